"""The dashboards: Grafana's form, no overlap, and no query that names what nobody exposes.

Grafana itself is not run. What is checked: the JSON survives a round through Grafana's own types, every query is
answered by a real Prometheus that scrapes the real worker and monitor, and names only metrics, labels and values of
labels that the code can emit.
"""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from deployment import DEPLOY, rules
from emitted import OPEN, emitted
from queries import named
from servers import Prometheus, until

GRAFANA = DEPLOY / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [
    pytest.param(panel, id=f"{name}-{panel['title']}")
    for name, board in DASHBOARDS.items()
    for panel in board["panels"]
]
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def test_the_files_are_what_the_program_beside_them_writes():
    code = "import dashboards as d, json; print(json.dumps({name: d.rendered(name) for name in d.DASHBOARDS}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=GRAFANA, capture_output=True, text=True, check=True)
    written = json.loads(done.stdout)
    assert written == {path.stem: path.read_text() for path in FILES}, "run: python deploy/grafana/dashboards.py"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_survives_a_round_through_grafana_s_own_types(name):
    register_default_plugins()
    board = DASHBOARDS[name]
    again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    assert lost(board, again) == []


def test_dashboards_and_panels_have_ids_of_their_own_and_the_tags_that_link_them():
    uids = [board["uid"] for board in DASHBOARDS.values()]
    assert len(set(uids)) == len(uids)
    for board in DASHBOARDS.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        assert board["tags"] == board["links"][0]["tags"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_within_the_grid_and_none_on_another(name):
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    for place in places:
        assert 0 <= place["x"] <= 24 - place["w"]
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_from_the_provisioned_source(panel):
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    assert len(panel["title"]) > 3
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    for asked in (panel, *panel["targets"]):
        assert asked["datasource"] == {"type": source["type"], "uid": source["uid"]}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_that_is_used_is_offered_and_the_other_way_round(name):
    board = DASHBOARDS[name]
    used = {found for panel in board["panels"] for t in panel["targets"] for found in re.findall(r"\$(\w+)", t["expr"])}
    assert used == {one["name"] for one in board["templating"]["list"]}


def test_grafana_is_told_where_the_dashboards_lie():
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]["grafana"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "fraudstream.yml").read_text())["providers"]
    mounted = {volume.split(":")[1] for volume in compose["volumes"]}
    assert provider["options"]["path"] in mounted
    home = Path(compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) in mounted
    assert (GRAFANA / "dashboards" / home.name).exists()


def expressions():
    """Every PromQL there is, by where it stands."""
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            inner = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            yield f"{name}: ${variable['name']}", f"sum by ({inner[2]}) ({inner[1]})"
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]


@pytest.fixture(scope="module")
def exposed(composed):
    """Metric by metric, the labels that live processes give it; None where there is no sample to tell."""
    found: dict[str, set[str] | None] = {}
    for service in ("worker-1", "monitor"):
        for family in text_string_to_metric_families(composed[service].metrics()):
            names = [family.name]
            if family.type == "counter":
                names = [f"{family.name}_total"]
            elif family.type == "histogram":
                names = [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
            for name in names:
                labels = [set(sample.labels) for sample in family.samples if sample.name == name]
                found[name] = set.union(*labels) if labels else None
    return found


EMITTED = emitted()
#: What Prometheus itself has, and which values of its labels there are.
BUILT_IN = {
    "up": {},
    "ALERTS": {
        "alertname": {rule["alert"] for rule in rules() if "alert" in rule},
        "alertstate": {"firing", "pending"},
        "severity": {"critical", "warning"},
    },
}
JOBS = {
    one["job_name"] for one in yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
}


def offered(metric):
    """Return the labels of a series and the values that each can have; of what is recorded, those it is made of."""
    if metric in RECORDED:
        labels = {}
        for query in named(RECORDED[metric]):
            for label, values in offered(query.metric).items():
                if re.search(rf"\b{label}\b", RECORDED[metric]):
                    labels.setdefault(label, set()).update(values)
        return labels
    return BUILT_IN[metric] if metric in BUILT_IN else EMITTED[metric]


def wrong(expression):
    """Return what an expression names that nobody can emit: metrics, labels, values of labels."""
    found = []
    for query in named(expression):
        if query.metric not in {*RECORDED, *BUILT_IN, *EMITTED}:
            found.append(query.metric)
            continue
        labels = {**offered(query.metric), "job": JOBS, "instance": set()}
        found += [(query.metric, label) for label in query.labels - set(labels)]
        for label, value in query.values:
            # "" is: without that label, or of all.
            closed = label in labels and label not in OPEN and value
            if closed and not any(re.fullmatch(value, one) for one in labels[label]):
                found.append((query.metric, label, value))
    return found


def test_every_metric_label_and_value_that_a_query_names_can_be_emitted():
    assert [(where, found) for where, expression in expressions() if (found := wrong(expression))] == []


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("fraudstream_no_such_total", ["fraudstream_no_such_total"]),
        ("sum by (nothing) (fraudstream_events_total)", [("fraudstream_events_total", "nothing")]),
        # Neither has a sample before something has happened.
        ("sum by (nothing) (fraudstream_quality_recall)", [("fraudstream_quality_recall", "nothing")]),
        ("fraudstream_concept_drift_alarm{detektor='ddm'}", [("fraudstream_concept_drift_alarm", "detektor")]),
        (
            'fraudstream_labels_total{outcome=~"joined|unmached"}',
            [("fraudstream_labels_total", "outcome", "unmached")],
        ),
        ('fraudstream_quality_recall{threshold="hold"}', [("fraudstream_quality_recall", "threshold", "hold")]),
        (
            'fraudstream_decision_latency_seconds_bucket{le="0.3"}',
            [("fraudstream_decision_latency_seconds_bucket", "le", "0.3")],
        ),
        (
            'fraudstream:decisions:share_rate5m{decision!="aprove"}',
            [("fraudstream:decisions:share_rate5m", "decision", "aprove")],
        ),
        ('up{job="worker"}', [("up", "job", "worker")]),
        ('ALERTS{alertname="FraudstreamNone"}', [("ALERTS", "alertname", "FraudstreamNone")]),
        ('fraudstream_drift_psi{model=~"$model",feature="mine"}', []),
    ],
)
def test_a_query_that_names_what_nobody_emits_would_be_found(expression, found):
    assert wrong(expression) == found


def test_live_processes_emit_what_the_code_says_with_the_labels_it_says(exposed):
    ours = {name: labels for name, labels in exposed.items() if name.startswith("fraudstream_")}
    assert set(ours) - set(EMITTED) == set()
    for name, labels in ours.items():
        assert labels is None or labels == set(EMITTED[name]), name


def test_a_real_prometheus_scrapes_both_takes_the_rules_and_answers_every_query(composed, tmp_path):
    with Prometheus(tmp_path, composed.targets) as prometheus:
        ask = prometheus.ask

        def scraped():
            up = ask("count(up == 1)")
            return up and up[0]["value"][1] == "3" and ask("fraudstream:lag_records:sum")

        until(scraped, "Prometheus has scraped all three", 90)
        for where, expression in expressions():
            filled = re.sub(r"\$\w+", ".*", expression)
            assert isinstance(ask(filled), list), where
        # A rate takes two scrapes, which a machine that starts quickly has not had yet.
        until(lambda: ask("sum by (instance) (rate(fraudstream_events_total[1m])) >= 0"), "there is a rate of events")
        critical = 'ALERTS{severity="critical",alertstate="firing"}'
        assert ask(critical) == [], "nothing is wrong, so nobody is called"


def lost(before, after, path=""):
    """What of `before` is not in `after`."""
    if isinstance(before, dict):
        return [
            found
            for key, value in before.items()
            for found in (
                lost(value, after[key], f"{path}.{key}")
                if isinstance(after, dict) and key in after
                else ([] if value is None else [f"{path}.{key}"])
            )
        ]
    if isinstance(before, list):
        if not isinstance(after, list) or len(after) != len(before):
            return [path]
        return [
            found for at, pair in enumerate(zip(before, after, strict=True)) for found in lost(*pair, f"{path}[{at}]")
        ]
    return [] if before == after else [f"{path}: {before!r} became {after!r}"]
