"""The monitor's parts alone: credentials for Faust, who holds the topics, references, metric names, quiet logs."""

import dataclasses
import logging
import re
import subprocess

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from faust.types.auth import SASLMechanism
from prometheus_client import generate_latest

from clock import Clock
from models.quality_rows import Decided
from models.quality_watch import QualitySnapshot, QualityWatch
from monitor_log import Story, labelled, telemetry
from small_models import promote, small_model
from stream.drift_period import DriftPeriod
from stream.drift_quality import LabelsOfPeriod
from stream.errors import SettingsError
from stream.labelled_record import decode_labelled, encode_labelled
from stream.logs import configure
from stream.monitor_alerts import GIVE_UP_SECS, WAIT_SECS
from stream.monitor_group import OneActive
from stream.monitor_health import MonitorHealth, MonitorLog, Repeats
from stream.monitor_metrics import MonitorMetrics
from stream.monitor_observer import MonitorObserver, MonitorObservers
from stream.monitor_references import References
from stream.monitor_security import faust_credentials, unreached
from stream.monitor_state import MonitorState
from stream.monitor_topics import kept_too_short
from stream.settings import load_settings
from stream.topic_check import TopicState
from stream.topics import plan_topics, plan_watch_topics
from stream.watch_panes import SCORE
from stream.watch_snapshot import CoverageState, ModelState, SubjectState, Totals, WatchSnapshot

USER = {"sasl_username": "ada", "sasl_password": "secret"}


def settings(**properties):
    given = {f"kafka.properties.{name.replace('_', '.')}": value for name, value in properties.items()}
    return load_settings(None, {}, given)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=kafka -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def test_without_tls_or_sasl_there_are_no_credentials():
    assert faust_credentials(settings()) is None
    assert unreached(settings(fetch_min_bytes="1")) == ["fetch.min.bytes"]


def test_scram_over_tls_reaches_faust(certificate):
    credentials = faust_credentials(
        settings(
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="ada",
            sasl_password="secret",
            ssl_ca_location=str(certificate / "cert.pem"),
        )
    )
    assert credentials.mechanism is SASLMechanism.SCRAM_SHA_512
    assert (credentials.username, credentials.password) == ("ada", "secret")
    assert credentials.ssl_context.check_hostname
    assert len(credentials.ssl_context.get_ca_certs()) == 1


def test_a_certificate_of_our_own_and_no_check_of_names_reach_faust(certificate):
    credentials = faust_credentials(
        settings(
            security_protocol="ssl",
            ssl_certificate_location=str(certificate / "cert.pem"),
            ssl_key_location=str(certificate / "key.pem"),
            ssl_endpoint_identification_algorithm="none",
        )
    )
    assert not credentials.context.check_hostname


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"ssl_keystore_location": "x.p12", "security_protocol": "ssl"}, "ssl.keystore.location"),
        ({"security_protocol": "sasl_plaintext", "sasl_mechanism": "GSSAPI", **USER}, "GSSAPI"),
        ({"security_protocol": "sasl_plaintext", "sasl_mechanism": "PLAIN", "sasl_username": "a"}, "sasl.password"),
        ({"security_protocol": "ssl", "ssl_ca_location": "/nowhere.pem"}, "ssl.ca.location"),
        ({"security_protocol": "tls"}, "security.protocol"),
    ],
)
def test_what_faust_cannot_take_is_one_sentence(properties, named):
    with pytest.raises(SettingsError, match=re.escape(named)):
        faust_credentials(settings(**properties))


class Cluster:
    def partitions_for_topic(self, _):
        return {0}


def test_all_topics_go_to_the_oldest_and_stay_with_who_holds_them():
    old, young = OneActive(1_000), OneActive(2_000)

    def deal(**members):
        subscribed = {name: member.metadata(["labelled", "telemetry"]) for name, member in members.items()}
        dealt = OneActive(0).assign(Cluster(), subscribed)
        for name, member in members.items():
            member.on_assignment(dealt[name])
        return {name: sorted(topic for topic, _ in given.assignment) for name, given in dealt.items()}

    assert deal(a=young) == {"a": ["labelled", "telemetry"]}
    assert deal(a=young, b=old) == {"a": ["labelled", "telemetry"], "b": []}
    third = OneActive(1_500)
    assert deal(b=old, c=third) == {"b": ["labelled", "telemetry"], "c": []}
    assert isinstance(old.metadata([]), ConsumerProtocolMemberMetadata)


def test_one_that_slept_while_another_took_over_does_not_take_the_topics_back():
    sleeper, awake = OneActive(1_000), OneActive(2_000)
    for generation, member in ((3, sleeper), (5, awake)):
        member.generation = lambda generation=generation: generation
        subscribed = {"alone": member.metadata(["telemetry"])}
        member.on_assignment(OneActive(0).assign(Cluster(), subscribed)["alone"])
    dealt = OneActive(0).assign(Cluster(), {"a": sleeper.metadata(["telemetry"]), "b": awake.metadata(["telemetry"])})
    assert [topic for topic, _ in dealt["b"].assignment] == ["telemetry"]
    assert dealt["a"].assignment == []


def test_an_unknown_version_is_looked_for_again_only_after_some_seconds(tmp_path):
    clock = Clock()
    chosen = load_settings(None, {}, {"registry.directory": str(tmp_path / "r"), "model.bundle": str(tmp_path / "no")})
    references = References(chosen, clock)
    bundle = small_model(tmp_path / "bundle", seed=1, rounds=2, rows=800)
    assert references.histograms(bundle.version) is None
    assert references.histograms("../bundle") is None
    promote(tmp_path / "r", bundle)
    assert references.histograms(bundle.version) is None
    clock.now += 5.1
    assert references.histograms(bundle.version) == bundle.histograms
    assert references.metrics(bundle.version) == bundle.metrics


def test_each_observer_is_told_by_every_hook():
    told = []

    class Teller(MonitorObserver):
        def standby(self):
            told.append("standby")

        def lag(self, topic, records):
            told.append((topic, records))

    observers = MonitorObservers(Teller(), Teller())
    observers.standby()
    observers.lag("labels", 3)
    assert told == ["standby"] * 2 + [("labels", 3)] * 2


def test_health_says_why_and_when_the_loop_is_stuck():
    clock = Clock()
    health = MonitorHealth(clock)
    assert health.unready() is not None
    health.reading_back()
    assert "read back" in health.unready()["reason"]
    health.read_back("telemetry", 2_000, 50_000)
    assert health.unready() == health.unready() | {"topic": "telemetry", "records": 2_000, "of": 50_000}
    health.caught_up(None)
    assert health.unready() is None
    clock.now += GIVE_UP_SECS + 3 * WAIT_SECS  # alerts that wait for a broker are no stuck loop
    assert health.unhealthy() is None
    clock.now += 31
    assert health.unhealthy()["reason"] == "the loop is stuck"
    health.turned()
    assert health.unhealthy() is None


def test_reading_back_says_every_ten_seconds_how_far_it_is(caplog):
    clock = Clock()
    log = MonitorLog(clock)
    with caplog.at_level(logging.INFO, "fraudstream.monitor"):
        log.reading_back()
        for done in range(0, 30_000, 1_000):
            log.read_back("telemetry", done, 30_000)
            clock.now += 1
    assert [one.records for one in caplog.records if one.event == "read_back"] == [10_000, 20_000]


@pytest.mark.parametrize("deleted", [False, True])
def test_after_a_gap_in_the_log_it_judges_where_it_goes_on_unless_retention_made_the_gap(tmp_path, deleted):
    bundle = small_model(tmp_path / "bundle", seed=1, rounds=2, rows=800)
    chosen = load_settings(None, {}, {"model.bundle": str(tmp_path / "bundle")})
    state = MonitorState(chosen, References(chosen))
    story = Story(1_700_000_000_000, 60)
    state.begins_with(whole_log=False, cut_ms=None if deleted else story.start_ms - chosen.monitor.read_back)
    for row in telemetry(bundle, story):
        state.telemetry(row.value, row.timestamp_ms)
    assert state.watch.caught is not deleted


def test_records_set_aside_are_one_line_a_minute_for_each_reason(caplog):
    clock = Clock()
    log = MonitorLog(clock)
    with caplog.at_level(logging.WARNING, "fraudstream.monitor"):
        for _ in range(50):
            log.set_aside("telemetry", "not_decoded", 1)
        log.set_aside("labelled", "not_decoded", 1)
        clock.now += 61
        log.set_aside("telemetry", "not_decoded", 1)
    assert [(one.topic, one.count) for one in caplog.records] == [("telemetry", 1), ("labelled", 1), ("telemetry", 50)]


def test_what_faust_repeats_is_one_line_a_minute(capsys):
    clock = Clock()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure("info", b"key")
        root.handlers[0].addFilter(Repeats(clock))
        for _ in range(10):
            logging.getLogger("aiokafka.conn").error("no broker at %s", "h:9092")
            logging.getLogger("fraudstream.x").error("ours")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.captureWarnings(capture=False)
    lines = capsys.readouterr().err.splitlines()
    assert sum("no broker" in line for line in lines) == 1
    assert sum("ours" in line for line in lines) == 10


def test_metrics_are_there_before_anything_has_happened():
    shown = generate_latest(MonitorMetrics().registry).decode()
    for name in ("up", "caught_up", "start_time_seconds", "alerts_total", "alerts_firing"):
        assert f"fraudstream_monitor_{name}" in shown
    assert "fraudstream_quality_roc_auc{" not in shown


def test_lag_falls_while_it_reads_back():
    metrics = MonitorMetrics()
    for done in (0, 4_000):
        metrics.read_back("telemetry", done, 10_000)
    assert 'fraudstream_monitor_lag_records{topic="telemetry"} 6000.0' in generate_latest(metrics.registry).decode()


def test_what_can_be_counted_begins_at_0_and_what_was_uncovered_never_goes_down():
    def snapshot(uncovered, *, drifts, missing):
        feature = SubjectState(1_000, psi=0.1, alarm=drifts, missing_alarm=missing)
        model = ModelState("a", 1_000, {"amount": feature}, SubjectState(1_000, detector_alarm=True), {})
        totals = Totals(uncovered={0: uncovered})
        return WatchSnapshot(1_000, True, ("w",), {"a": model}, (), {}, {1: CoverageState(0, 9)}, (), totals)

    metrics = MonitorMetrics(aside=[("labels", "wrong_type")])
    assert value(metrics, "monitor_set_aside_records_total", topic="labels", reason="wrong_type") == 0
    quality = QualitySnapshot({}, {}, {}, (), 0, 0)
    metrics.state(snapshot(40_000, drifts=False, missing=True), quality)
    metrics.state(snapshot(5_000, drifts=False, missing=True), quality)
    assert value(metrics, "telemetry_uncovered_offsets_total", partition="0") == 40_000
    assert value(metrics, "telemetry_uncovered_offsets_total", partition="1") == 0
    for subject in ("amount", "score"):
        assert value(metrics, "detector_alarms_total", detector="kswin", subject=subject) == 0
    assert value(metrics, "telemetry_set_aside_total", reason="other_bins") == 0
    of_amount = {"model": "a", "feature": "amount"}
    assert [value(metrics, f"{name}_alarm", **of_amount) for name in ("drift", "missing", "detector")] == [0, 1, 0]
    assert value(metrics, "detector_alarm", model="a", feature="score") == 1


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"fraudstream_{name}", labels)


def test_what_is_known_is_shown_with_the_word_that_it_has_caught_up():
    """Rules hold what was last said until a monitor that has caught up says otherwise: not one scrape between them."""
    model = ModelState("a", 1_000, {"amount": SubjectState(1_000, alarm=True)}, SubjectState(1_000), {})
    watch = WatchSnapshot(1_000, True, ("w",), {"a": model}, (), {}, {}, (), Totals())
    metrics = MonitorMetrics()
    metrics.caught_up(watch)
    assert value(metrics, "monitor_caught_up") == 1
    assert value(metrics, "drift_alarm", model="a", feature="amount") == 1


def test_what_detectors_find_in_the_score_is_counted_where_it_began_at_0():
    model = ModelState("a", 1_000, {}, SubjectState(1_000), {})
    watch = WatchSnapshot(1_000, True, ("w",), {"a": model}, (), {}, {}, (), Totals())
    metrics = MonitorMetrics()
    metrics.caught_up(watch)
    found = dataclasses.replace(watch, totals=Totals(detections={("kswin", SCORE): 2}))
    metrics.state(found, QualitySnapshot({}, {}, {}, (), 0, 0))
    assert value(metrics, "detector_alarms_total", detector="kswin", subject="score") == 2
    assert value(metrics, "detector_alarms_total", detector="kswin", subject=SCORE) is None


def test_every_figure_that_an_alert_of_drift_rests_on_is_shown():
    one = SubjectState(9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, psi_past=0.8, psi_long=0.9, missing=0.05)
    model = ModelState("a", 9, {"amount": one}, dataclasses.replace(one, psi_long=None), {})
    metrics = MonitorMetrics()
    metrics.caught_up(WatchSnapshot(1_000, True, ("w",), {"a": model}, (), {}, {}, (), Totals()))
    names = ("psi", "past_psi", "long_psi", "js", "kl", "superiority", "reference_missing_ratio", "missing_ratio")
    shown = [value(metrics, f"drift_{name}", model="a", feature="amount") for name in names]
    assert shown == [0.1, 0.8, 0.9, 0.2, 0.3, 0.7, 0.0, 0.05]
    assert value(metrics, "score_past_psi", model="a") == 0.8
    assert value(metrics, "score_long_psi", model="a") is None, "no rhythm is whole yet"


def test_a_joiner_shows_what_it_commits_and_whether_it_joins():
    metrics = MonitorMetrics()
    assert (value(metrics, "joiner_commits_total"), value(metrics, "joiner_live")) == (0, None)
    metrics.rebuilding("decisions", 0, replay_from=0, live_from=9, reason="no index")
    assert value(metrics, "joiner_live") == 0
    metrics.live()
    metrics.committed(20)
    assert (value(metrics, "joiner_commits_total"), value(metrics, "joiner_live")) == (1, 1)
    metrics.aborted("the broker does not answer")
    assert value(metrics, "joiner_live") == 0
    metrics.left()
    assert value(metrics, "joiner_live") is None


def test_a_topic_that_deletes_what_a_restart_needs_is_a_sentence_with_what_to_set():
    week_ms, given = 7 * 86_400_000, settings()
    planned = {plan.name: plan.config for plan in (*plan_topics(given, 3), *plan_watch_topics(given, 3))}
    roles = ("decisions", "labels", "labelled", "telemetry")

    def told(config):
        return list(kept_too_short(given, {role: TopicState(role, config=config(role)) for role in roles}))

    # Of quality's clock, which never goes back; telemetry has a clock that disbelieves what jumps.
    assert planned["labelled"]["message.timestamp.type"] == "LogAppendTime"
    assert told(planned.get) == told(lambda _: None) == told(lambda _: {"retention.ms": "-1"}) == []
    decisions, labels, labelled = told(lambda _: {"retention.ms": str(week_ms)})
    assert "topics.labels" in labels
    assert "topics.labelled" in labelled
    assert decisions == (
        "The topic decisions (topics.decisions) keeps records for 7d and labels.retention asks for 120d, so a lost "
        "label index could not be read again whole: set its retention.ms to at least 10368000000."
    )


def test_two_users_may_have_a_payment_of_the_same_id_each():
    now_ms = 1_700_000_000_000
    (row,) = labelled("a", Story(start_ms=now_ms, seconds=1), 1)
    first = decode_labelled(row.value)
    state = MonitorState(settings(), References(settings()))
    period = DriftPeriod(now_ms, now_ms + 10_000, lambda _: None)
    report = LabelsOfPeriod(period)
    for user in ("u-1", "u-2"):
        one = msgspec.structs.replace(first, user_id=user)
        state.labelled(encode_labelled(one), now_ms)
        report.add(one, now_ms)
    assert state.quality.pending == 2
    assert len(report) == 2


def test_when_the_last_label_came_is_known_again_after_reading_back_and_never_goes_back():
    watch = QualityWatch(
        window_ms=9_000,
        delay_ms=5_000,
        every_ms=1_000,
        max_events=9,
        min_frauds=1,
        max_segments=2,
        holdout=lambda _: None,
    )
    metrics = MonitorMetrics()
    metrics.state(None, watch.snapshot())
    assert value(metrics, "label_last_timestamp_seconds") is None
    row = Decided(id=1, user=1, segment="DE", score=0.5, outcome=0, weight=1.0, fraud=True)
    watch.label("a", row, event_time_ms=1_000, label_time_ms=2_000, at_ms=3_000, former=None)
    watch.advance(60_000)
    metrics.state(None, watch.snapshot())
    assert value(metrics, "label_last_timestamp_seconds") == 3.0
    metrics.last_label(1_000, 8_000)
    metrics.state(None, watch.snapshot())
    assert value(metrics, "label_last_timestamp_seconds") == 8.0
