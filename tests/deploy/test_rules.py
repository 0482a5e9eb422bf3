"""Alerting rules: each fires when it must and keeps quiet when it must not, and the runbook says what to do."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deployment import ROOT, RULES, alert_rules, program
from stream.alert_record import SIGNALS

CASES = sorted(Path(__file__).with_name("rules").glob("*.yml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ENTRIES = re.findall(r"^### (\S+)$", RUNBOOK.partition("\n## Alerts\n")[2], re.MULTILINE)
ALERTS = {rule["alert"] for rule in alert_rules()}


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.stem)
def test_prometheus_can_read_the_rules(rules):
    promtool("check", "rules", rules)


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_every_case_fires_or_keeps_quiet_as_it_says(cases):
    promtool("test", "rules", cases)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_has_a_case_that_must_fire_and_one_that_must_not(alert):
    fires, quiet = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            name, _, title = case["name"].partition(": ")
            for asked in case["promql_expr_test"]:
                wanted = f'count by (severity) (ALERTS{{alertname="{name.split()[0]}",alertstate="firing"}})'
                assert asked["expr"] == wanted, "a case asks for the alert it is named after"
                (fires if asked["exp_samples"] else quiet).add((name.split()[0], title))
                assert ("fires" in name) == bool(asked["exp_samples"]), "the case's name says what it expects"
    assert alert in {name for name, _ in fires}
    assert alert in {name for name, _ in quiet}


def test_a_case_with_a_wrong_expectation_fails(tmp_path):
    case = {
        "rule_files": [str(path) for path in RULES],
        "tests": [
            {
                "input_series": [{"series": "fraudstream_drift_alarm", "values": "1x30"}],
                "promql_expr_test": [{"expr": "ALERTS", "eval_time": "20m", "exp_samples": []}],
            }
        ],
    }
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump(case))
    assert subprocess.run([program("promtool"), "test", "rules", path], capture_output=True, check=False).returncode


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_what_and_where_to_read_on(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert len(rule["annotations"]["summary"]) < 100, "it is read on a telephone"


def test_every_alert_and_every_signal_has_an_entry_in_the_runbook_and_no_entry_is_left_over():
    assert sorted(ENTRIES) == sorted(ALERTS | set(SIGNALS))


def promtool(*arguments):
    done = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
