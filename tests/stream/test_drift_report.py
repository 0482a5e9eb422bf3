"""The drift report: figures are those of the counts, what matters stands first, and what is not known is said."""

import json
import re

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from command import Command
from kafka_server import KafkaServer
from kafka_topics import Row, Topics
from models.drift_report import drift_report_json
from models.drift_report_tables import drift_page, drift_tables
from models.drift_statistics import psi
from models.histograms import Histograms, reference, render_histograms
from models.report_tables import as_text
from stream.alert_record import Alert, alert_id, encode_alert
from stream.cli import fraudstream
from stream.drift_report import drift_report
from stream.errors import StartupError
from stream.labelled_record import LabelledDecision, encode_labelled
from stream.settings import load_settings
from stream.telemetry_record import Counts, Telemetry, encode_telemetry, reference_hash
from stream.times import rfc3339

START_MS = 1_750_000_020_000
STEP_MS = 60_000
NAMES = ("amount", "count_1h")
MODEL, OTHER = "first", "second"


def rows(count: int, seed: int, factor: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.column_stack([factor * rng.lognormal(3, 1, count), rng.poisson(2, count)]).astype(np.float32)
    x[rng.random(count) < 0.1, 1] = np.nan
    return x


def scores(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(0.5, 20, count).astype(np.float32)


@pytest.fixture(scope="module")
def known() -> Histograms:
    return reference(rows(20_000, 1), NAMES, scores(20_000, 2))


def record(known: Histograms, sequence: int, x: np.ndarray, **changes) -> Telemetry:
    def counts(one, values) -> Counts:
        found = one.count(values)
        return Counts(found.counts, found.missing)

    found = Telemetry(
        worker="w-1",
        epoch=START_MS,
        sequence=sequence,
        interval=START_MS // STEP_MS + sequence,
        interval_ms=STEP_MS,
        opened_at_ms=START_MS + sequence * STEP_MS,
        closed_at_ms=START_MS + (sequence + 1) * STEP_MS,
        model=MODEL,
        engine="forest",
        feature_set="f",
        reference=reference_hash(render_histograms(known)),
        events=len(x),
        features={name: counts(known.features[name], x[:, at]) for at, name in enumerate(NAMES)},
        score=counts(known.score, scores(len(x), sequence)),
        segments={"DE": {"approve": len(x) - 2, "review": 2}, "<b>": {"decline": 1}},
        offsets={"0": [(100 * sequence, 100 * (sequence + 1))]},
    )
    return msgspec.structs.replace(found, **changes)


def alert(**changes) -> Alert:
    found = Alert(
        id=alert_id("feature_drift", "amount", "", MODEL, "psi", START_MS),
        state="raised",
        signal="feature_drift",
        subject="amount",
        segment="",
        model=MODEL,
        statistic="psi",
        value=0.5,
        bound=0.2,
        since=START_MS + 30 * STEP_MS,
        at=START_MS + 33 * STEP_MS,
        runbook="feature_drift",
        text="The feature amount is distributed unlike in training.",
    )
    return msgspec.structs.replace(found, **changes)


def labelled(number: int, fraud: bool, **changes) -> LabelledDecision:
    found = LabelledDecision(
        transaction_id=f"t-{number}",
        user_id=f"u-{number % 7}",
        score=0.9 if fraud and number % 4 else 0.1 + number % 9 / 100,
        decision="review" if fraud and number % 4 else "approve",
        model=MODEL,
        segment="DE" if number % 2 else "FR",
        event_time=START_MS - 1,
        partition=0,
        offset=number,
        is_fraud=fraud,
        label_time=START_MS,
        delay_ms=1,
    )
    return msgspec.structs.replace(found, **changes)


class Log:
    """Three topics of their own, and the report over them."""

    def __init__(self, kafka: KafkaServer) -> None:
        self.topics = Topics(kafka.bootstrap)
        self.names = {
            kind: self.topics.create(kind, 1, {"retention.ms": "-1"}) for kind in ("telemetry", "labelled", "alerts")
        }
        named = {f"topics.{kind}": name for kind, name in self.names.items()}
        self.overrides = {"kafka.bootstrap_servers": kafka.bootstrap, "drift.min_events": 200, **named}
        self.settings = load_settings(None, {}, self.overrides)

    def write(self, kind: str, records: list[tuple[bytes, int]]) -> None:
        self.topics.produce(self.names[kind], [Row(b"k", value, timestamp_ms=at) for value, at in records])

    def report(self, known: Histograms | None, minutes: int = 60, settings=None):
        references = {MODEL: known}.get
        return drift_report(settings or self.settings, START_MS, START_MS + minutes * STEP_MS, references)


@pytest.fixture
def log(kafka: KafkaServer) -> Log:
    return Log(kafka)


def hour(known: Histograms, **changes) -> list[tuple[bytes, int]]:
    """An hour of telemetry, 400 events a minute, whose amounts double in the second half."""
    return [
        (
            encode_telemetry(record(known, at, rows(400, 10 + at, 1.0 if at < 30 else 2.0), **changes)),
            START_MS + at * STEP_MS,
        )
        for at in range(60)
    ]


def test_an_empty_topic_gives_a_page_that_says_so(log, known):
    found = log.report(known)
    assert (found.models, found.alerts, found.quality) == ([], [], [])
    page = drift_page(found)
    assert "holds nothing of this period" in page
    assert "Nothing could be compared" in page
    assert json.loads(drift_report_json(found))["coverage"]["records"] == 0


def test_figures_are_those_of_the_counts_and_what_drifted_stands_first(log, known):
    log.write("telemetry", hour(known))
    found = log.report(known)
    (model,) = found.models
    assert (model.events, model.compared) == (24_000, 24_000)
    assert [one.name for one in model.features] == ["amount", "count_1h"]
    amount = model.features[0]
    everything = np.concatenate([rows(400, 10 + at, 1.0 if at < 30 else 2.0)[:, 0] for at in range(60)])
    counted = known.features["amount"].count(everything)
    assert list(amount.current) == counted.counts
    assert amount.psi == pytest.approx(psi(np.array(known.features["amount"].counts), np.array(counted.counts)))
    first, last = amount.over_time[0], amount.over_time[-1]
    assert first.psi < 0.1 < found.psi_bound < last.psi
    assert sum(one.events for one in amount.over_time) == 24_000
    assert (amount.drifted, model.features[1].drifted, model.score.drifted) == (False, False, False)  # all hour: 0.13
    assert model.features[1].missing == pytest.approx(0.1, abs=0.01)
    assert [one.decisions for one in found.mix[:1]] == [{"approve": 398, "review": 2, "decline": 1}]


def test_a_period_of_a_rhythm_is_judged_by_the_bound_that_the_watch_has_for_one(log, known):
    log.write("telemetry", hour(known))  # all of it: an index of 0.13
    for rhythm, bound, drifted in (("1d", 0.1, True), ("1h", 0.2, False)):
        bounds = {"drift.psi": 0.1, "drift.day_psi": 0.2, "drift.rhythm": rhythm}
        found = log.report(known, settings=load_settings(None, {}, log.overrides | bounds))
        assert (found.psi_bound, found.whole_psi_bound) == (0.1, bound)
        assert found.models[0].features[0].drifted is drifted
        assert json.loads(drift_report_json(found))["bounds"]["whole_psi"] == bound
        assert drifted is (f"from {bound:g} on it counts" in drift_page(found))


def test_a_field_that_breaks_is_called_broken(log, known):
    broken = []
    for at in range(60):
        x = rows(400, 10 + at)
        x[:, 1] = np.nan
        broken.append((encode_telemetry(record(known, at, x)), START_MS + at * STEP_MS))
    log.write("telemetry", broken)
    (model,) = log.report(known).models
    assert model.features[0].name == "count_1h"
    assert model.features[0].broken
    assert model.features[0].missing == 1.0


def test_records_outside_the_period_repeats_and_garbage_are_left_out_and_counted(log, known):
    telemetry = hour(known)
    early = (encode_telemetry(record(known, 900, rows(50, 1))), START_MS - 1)
    late = (encode_telemetry(record(known, 901, rows(50, 1))), START_MS + 60 * STEP_MS)
    garbage = b"{", START_MS + 40 * STEP_MS
    log.write("telemetry", [early, *telemetry[:40], telemetry[3], garbage, *telemetry[42:], late])
    coverage = log.report(known).coverage
    assert (coverage.records, coverage.repeated, coverage.unreadable, coverage.lost) == (58, 1, 1, 2)
    assert (coverage.covered, coverage.uncovered) == ({0: 5_800}, {0: 200})


def test_alerts_mark_their_feature_and_those_over_before_the_period_are_left_out(log, known):
    log.write("telemetry", hour(known))
    over = [
        alert(id="a", at=START_MS - 5, state="raised"),
        alert(id="a", at=START_MS - 2, state="cleared"),
        alert(id="b", at=START_MS - 9, subject="count_1h", signal="detector_drift", text="older, and still open"),
    ]
    log.write("alerts", [(encode_alert(one), START_MS) for one in (*over, alert(), alert())])
    found = log.report(known)
    assert [(one.signal, one.subject) for one in found.alerts] == [
        ("detector_drift", "count_1h"),
        ("feature_drift", "amount"),
    ]
    assert [one.name for _, one in found.drifting()] == ["amount", "count_1h"]
    page = drift_page(found)
    assert "older, and still open" in page
    assert page.index("What drifted") < page.index("Alerts") < page.index("<h3>")


def test_quality_is_that_of_the_labels_that_came_by_model_and_segment(log, known):
    log.write("telemetry", hour(known))
    truth = [(at, at % 5 == 0) for at in range(400)]
    records = [(encode_labelled(labelled(at, fraud)), START_MS + at) for at, fraud in truth]
    contradicted = encode_labelled(labelled(1, True, former=False))
    before = encode_labelled(labelled(999, True))
    log.write("labelled", [(before, START_MS - 1), *records, (contradicted, START_MS + 1_000)])
    found = log.report(known)
    whole, *segments = found.quality
    assert (whole.segment, whole.events, whole.frauds) == ("", 400, 81)
    reviewed = [at % 4 > 0 for at in range(0, 400, 5)] + [True]
    assert whole.figures["review_recall"] == pytest.approx(np.mean(reviewed))
    assert {one.segment: one.events for one in segments} == {"DE": 200, "FR": 200}
    assert sum(one.frauds + one.honest for one in found.labels) == 401
    assert "review recall" in drift_page(found)
    assert any("400 of its 400 labelled decisions are younger than quality.delay (7d)" in one for one in found.unknown)
    patient = load_settings(None, {}, {**log.overrides, "quality.delay": "1m"})
    unknown = log.report(known, settings=patient).unknown
    assert not any("younger than quality.delay" in one for one in unknown)


def test_several_models_are_each_compared_with_their_own_reference_and_one_unknown_is_named(log, known):
    first = hour(known)[:30]
    second = [
        (encode_telemetry(record(known, at, rows(400, at), model=OTHER)), START_MS + at * STEP_MS)
        for at in range(30, 60)
    ]
    log.write("telemetry", first + second)
    found = log.report(known)
    assert {one.version: one.compared for one in found.models} == {OTHER: 0, MODEL: 12_000}
    assert any(f"The drift of model {OTHER} (12,000 events)" in sentence for sentence in found.unknown)
    assert "not at hand" in as_text(drift_tables(found))


def test_counts_over_other_bins_are_not_compared(log, known):
    log.write("telemetry", hour(known, reference="0" * 16))
    found = log.report(known)
    assert found.models[0].compared == 0
    assert found.coverage.set_aside == {"other_reference": 60}


def test_a_silence_is_a_sentence_with_its_times(log, known):
    telemetry = hour(known)
    log.write("telemetry", [*telemetry[:10], *telemetry[40:]])
    found = log.report(known)
    ((begin, end),) = found.coverage.silent_ms
    assert ((begin - START_MS) / STEP_MS, (end - START_MS) / STEP_MS) == (9, 40)
    assert any(sentence.startswith("What happened from") for sentence in found.unknown)


def test_a_missing_topic_of_labels_is_said_and_a_missing_topic_of_telemetry_is_an_error(log, known):
    log.write("telemetry", hour(known)[:5])
    settings = load_settings(None, {}, {**log.overrides, "topics.labelled": "nowhere"})
    unknown = log.report(known, settings=settings).unknown
    assert any(one.startswith("How good the decisions were: The topic nowhere") for one in unknown)
    settings = load_settings(None, {}, {**log.overrides, "topics.telemetry": "nowhere"})
    with pytest.raises(StartupError, match=r"The topic nowhere cannot be read .* `fraudstream topics create`"):
        log.report(known, settings=settings)


def test_a_constant_feature_and_one_always_missing_have_no_drift_and_no_error(log):
    x = rows(5_000, 1)
    x[:, 0], x[:, 1] = 7.0, np.nan
    constant = reference(x, NAMES, scores(5_000, 2))
    log.write("telemetry", [(encode_telemetry(record(constant, at, x[:500])), START_MS + at) for at in range(4)])
    (model,) = log.report(constant).models
    assert [(one.psi, one.drifted, one.broken) for one in model.features] == [(0.0, False, False)] * 2
    assert drift_page(log.report(constant)).count("<svg") == 3 + 2


def test_whatever_stands_in_a_record_is_text_on_the_page(log, known):
    log.write("telemetry", hour(known)[:5])
    page = drift_page(log.report(known))
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert re.search(r"<script|src=|href=\"http", page) is None


# --- the verb --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "soon"), "--since takes a duration such as 24h or a time such as"),
        (("--until", "2026-13-01T00:00:00Z"), "--until takes a duration such as 24h or a time such as"),
        (("--since", "0s"), "--since must lie before --until"),
        (("--since", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"), "--since must lie before --until"),
    ],
)
def test_a_wrong_option_gets_a_sentence(arguments, words):
    done = CliRunner().invoke(fraudstream, ["drift", "report", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def test_the_verb_writes_page_and_json_and_says_what_drifted(log, known, tmp_path):
    command = Command(tmp_path)
    log.write("telemetry", hour(known))
    given = [part for key, value in log.overrides.items() for part in ("--set", f"{key}={value}")]
    period = ("--since", rfc3339(START_MS), "--until", rfc3339(START_MS + 60 * STEP_MS))
    done = command(*given, "drift", "report", *period, "-o", "page.html", "--json", "all.json")
    assert done.returncode == 0, done.stderr
    assert "What this page does not know" in done.stdout  # no bundle is at hand
    assert done.stdout.rstrip().endswith("page.html\nall.json")
    assert json.loads((tmp_path / "all.json").read_text())["models"][0]["events"] == 24_000
    assert "24,000" in (tmp_path / "page.html").read_text()
