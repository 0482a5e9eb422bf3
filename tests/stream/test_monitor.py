"""The monitor as a process on a real broker: what it finds does not depend on what happens to it."""

import json
import math
import random
import threading
import time
from collections import Counter

import pytest
from confluent_kafka import Producer
from river.drift import ADWIN, KSWIN, PageHinkley
from river.drift.binary import DDM

from kafka_topics import Row, wait_until
from models.drift_detectors import DetectorPlan
from models.quality_detectors import ADWIN_DELTA, DDM_DEVIATIONS, DDM_WARM_UP
from monitor_log import Story, labelled, telemetry
from monitor_scene import scene_on
from stream.labelled_record import decode_labelled
from stream.telemetry_record import decode_telemetry
from stream.watch_panes import SCORE, Layout
from stream.watch_rows import Ranks

DELAY_MS = 180_000
EPOCH_MS = 1_200_000
LABELS = 2_400
#: Intervals of ten seconds that are not closed yet when the newest record was read: monitor.grace is 20 s.
GRACE_ROWS = 3


@pytest.fixture(scope="module")
def story():
    """An hour and a half of the recent past, with a feature that drifts for a while and offsets nobody covers."""
    epochs = time.time_ns() // 1_000_000 // EPOCH_MS - 5  # errors change in the middle of an epoch of the detectors
    return Story(epochs * EPOCH_MS, 5_400, drift=range(3_600, 4_200), gap_at=2_000, interval=10)


@pytest.fixture(scope="module")
def told(watched_bundle, story):
    """(topic's role, row) in the order of their timestamps."""
    rows = [("telemetry", row) for row in telemetry(watched_bundle, story)]
    rows += [("labelled", row) for row in labelled(watched_bundle.version, story, LABELS, worse_from=0.55)]
    return sorted(rows, key=lambda pair: pair[1].timestamp_ms)


def unnamed(state, scene):
    """Series without the names of this scene's topics."""
    names = {name: role for role, name in scene.names.items()}
    return {(n, tuple((k, names.get(v, v)) for k, v in labels)): value for (n, labels), value in state.items()}


def test_kills_and_a_broker_that_restarts_change_nothing_of_what_is_found(
    own_kafka, watched_registry, told, tmp_path, watched_bundle, monitor_kills
):
    rng, kills = random.Random(5), monitor_kills
    with scene_on(own_kafka.bootstrap, watched_registry, tmp_path) as calm:
        alone = calm.start()
        alone.wait_for("caught_up")
        calm.produce(told)
        expected, said = unnamed(calm.settle(alone), calm), calm.alerts()
        assert alone.stop() == 0
    assert {"feature_drift", "telemetry_uncovered", "concept_drift"} <= {alert.signal for alert in said}
    equals_river_alone(said, told, watched_bundle)
    folder = tmp_path / "disturbed"
    folder.mkdir()
    with scene_on(own_kafka.bootstrap, watched_registry, folder) as scene:
        cuts = [0, *sorted(rng.sample(range(1, len(told)), kills)), len(told)]
        monitor = scene.start()
        monitor.wait_for("caught_up")
        for kill in range(kills):
            if rng.random() < 0.7:  # else it may be killed while it reads back
                monitor.wait_for("caught_up")
            scene.produce(told[cuts[kill] : cuts[kill + 1]])
            threading.Event().wait(rng.random())  # anywhere in its work
            if kill == kills // 2:
                own_kafka.restart(crash=True)
            monitor.kill()
            monitor = scene.start()
        monitor.wait_for("caught_up")
        scene.produce(told[cuts[kills] :])
        found = unnamed(scene.settle(monitor), scene)
        alerts = scene.alerts()
        assert monitor.stop() == 0
    assert Counter((alert.id, alert.state) for alert in alerts).most_common(1)[0][1] == 1
    assert {(a.id, a.state, a.at) for a in alerts} == {(a.id, a.state, a.at) for a in said}
    assert found == expected


def equals_river_alone(said, told, watched_bundle):
    """What was detected through Kafka and Faust is what River detects in the same sequence by itself."""
    known = []
    for role, row in told:
        if role == "labelled":
            record = decode_labelled(row.value)
            due = max(record.label_time, record.event_time + DELAY_MS)
            known.append((row.timestamp_ms, due, record))
    clock = known[-1][0]
    sequence = sorted(((max(due, 0), n, r) for n, (_, due, r) in enumerate(known) if due <= clock), key=lambda k: k[:2])
    for name in ("ddm", "adwin"):
        fresh = {
            "ddm": lambda: DDM(warm_start=DDM_WARM_UP, drift_threshold=DDM_DEVIATIONS),
            "adwin": lambda: ADWIN(delta=ADWIN_DELTA),
        }[name]
        detector, epoch, found = fresh(), None, []
        for due, _, record in sequence:
            if due // EPOCH_MS != epoch:
                detector, epoch = fresh(), due // EPOCH_MS
            if record.is_fraud:
                detector.update(int(record.decision == "approve"))
                if detector.drift_detected:
                    found.append(due)
        first = [a for a in said if a.subject == "misses" and a.statistic == name and a.state == "raised"]
        assert [alert.since in found for alert in first] == [True] * len(first)
        assert bool(first) == bool(found)


def test_river_on_telemetry_through_kafka_and_faust_finds_what_river_alone_finds_at_the_very_row(scene, watched_bundle):
    """One worker and one row an interval, all in one epoch: the sequence is the sample, ranked in the reference."""
    epoch_ms, interval_ms = 6 * 3_600_000, 10_000
    start_ms = (time.time_ns() // 1_000_000 // epoch_ms - 1) * epoch_ms
    story = Story(start_ms, 9_000, drift=range(6_500, 9_000), interval=10, workers=1, rows=1, dearer=1e4)
    rows = list(telemetry(watched_bundle, story))
    layout = Layout(watched_bundle.histograms)
    plan = DetectorPlan(len(layout.names), epoch_ms // interval_ms, kswin_every=1)
    assert [type(one) for one in (plan.adwin(), plan.page_hinkley(), plan.kswin(0))] == [ADWIN, PageHinkley, KSWIN]
    found = Counter()
    at_row = list(river_alone(plan, layout, rows, found))
    assert {detector for detector, _ in found} == {"adwin", "page_hinkley", "kswin"}
    assert {subject for _, subject in found} >= {watched_bundle.feature_names[0], "score"}
    monitor = scene.start(
        drift__epoch="6h", monitor__read_back="8h", drift__kswin_every=1, drift__every="2m", drift__detector_every="10s"
    )
    monitor.wait_for("caught_up")

    def counted():
        series = monitor.series().items()
        return {
            (labels["detector"], labels["subject"]): count
            for (name, pairs), count in series
            if name == "fraudstream_detector_alarms_total" and count and (labels := dict(pairs))
        }

    # The last GRACE_ROWS intervals wait for slow workers. The first row at which each detector finds something, and the
    # one before it, and the end.
    firsts = {detector: min(row for row, (name, _) in at_row if name == detector) for detector, _ in found}
    cuts = sorted({applied for row in firsts.values() for applied in (row, row + 1)} | {len(rows) - GRACE_ROWS})
    sent = 0
    for applied in cuts:
        scene.topics.produce(scene.names["telemetry"], rows[sent : applied + GRACE_ROWS])
        sent = applied + GRACE_ROWS
        monitor.wait_for_lag([scene.names["telemetry"]])
        expected = dict(Counter(key for row, key in at_row if row < applied))
        monitor.wait_until(lambda expected=expected: counted() == expected, f"what River finds in {applied} rows", 120)
    assert monitor.stop() == 0


def river_alone(plan, layout, rows, found):
    """Yield (row, (detector, subject)) of what River finds over the ranks of the sampled rows; counted in `found`."""
    ranks = Ranks(layout, layout.reference)
    each = [
        [("adwin", plan.adwin()), ("page_hinkley", plan.page_hinkley()), ("kswin", plan.kswin(number))]
        for number in range(len(layout.names))
    ]
    for number, row in enumerate(rows):
        record = decode_telemetry(row.value)
        values = dict(zip(record.features, record.sample.features[0], strict=True)) | {SCORE: record.sample.scores[0]}
        sampled = [math.nan if values[name] is None else values[name] for name in layout.names]
        for name, rank, detectors in zip(layout.names, ranks.of(sampled), each, strict=True):
            for detector, river in detectors if not math.isnan(rank) else ():
                river.update(rank)
                if river.drift_detected:
                    key = detector, "score" if name == SCORE else name
                    found[key] += 1
                    yield number, key


def test_it_starts_on_an_empty_cluster_and_serves_what_there_is(scene):
    monitor = scene.start()
    monitor.wait_for("caught_up")
    assert monitor.get("/readyz") == (200, '{"status":"ok"}')
    assert monitor.get("/healthz")[0] == 200
    assert monitor.value("monitor_up") == monitor.value("monitor_caught_up") == 1
    assert monitor.value("monitor_alerts_firing", signal="quality_drop") == 0
    assert not [name for name, _ in monitor.series() if name.startswith("fraudstream_quality_")]
    assert monitor.stop() == 0
    assert [line["event"] for line in monitor.lines if line["level"] in ("warning", "error", "critical")] == []
    assert sorted(path.name for path in scene.folder.iterdir()) in (["var"], [])


def test_missing_topics_are_one_sentence(scene):
    monitor = scene.start(topics__telemetry="nowhere")
    assert monitor.process.wait(60) == 1
    assert "fraudstream topics create" in str(monitor.events("ended")[0]["message"])


def test_compressed_topics_are_read(scene, told):
    rows = [row for role, row in told if role == "telemetry"][:60]
    monitor = scene.start()
    monitor.wait_for("caught_up")
    for number, codec in enumerate(("lz4", "zstd", "snappy", "gzip")):
        producer = Producer({"bootstrap.servers": scene.topics.bootstrap, "compression.type": codec, "linger.ms": 50})
        for row in rows[15 * number : 15 * number + 15]:
            producer.produce(scene.names["telemetry"], row.value, row.key, timestamp=row.timestamp_ms)
        assert producer.flush(30) == 0
    state = scene.settle(monitor)
    assert monitor.value("monitor_records_total", topic=scene.names["telemetry"]) == 60
    assert monitor.value("monitor_set_aside_records_total", topic=scene.names["telemetry"], reason="not_decoded") == 0
    assert state["fraudstream_telemetry_workers", ()] == 2


def test_what_is_no_record_is_counted_told_once_and_left(scene, told):
    good = {role: [row for whose, row in told if whose == role][:40] for role in ("telemetry", "labelled")}
    wrong = json.loads(good["labelled"][0].value) | {"decision": "perhaps"}
    bad = [Row(b"k", value) for value in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b"{}", b"null")] + [Row(None, None)]
    monitor = scene.start()
    monitor.wait_for("caught_up")
    scene.topics.produce(scene.names["telemetry"], [*good["telemetry"][:20], *bad, *good["telemetry"][20:]])
    scene.topics.produce(scene.names["labelled"], [*bad, Row(b"k", json.dumps(wrong).encode()), *good["labelled"]])
    scene.settle(monitor)
    for role in ("telemetry", "labelled"):
        assert monitor.value("monitor_set_aside_records_total", topic=scene.names[role], reason="not_decoded") == 7
    aside = {"topic": scene.names["labelled"], "reason": "unknown_decision"}
    assert monitor.value("monitor_set_aside_records_total", **aside) == 1
    assert monitor.value("telemetry_events_total") > 0
    lines = Counter((line["topic"], line["reason"]) for line in monitor.events("set_aside"))
    assert set(lines.values()) == {1}
    assert monitor.stop() == 0


def test_a_second_monitor_waits_does_no_harm_and_takes_over(scene, told):
    first = scene.start()
    first.wait_for("caught_up")
    second = scene.start()
    second.wait_for("standby")
    half = len(told) // 2
    scene.produce(told[:half])
    scene.settle(first)
    assert second.get("/readyz")[0] == 503
    assert second.get("/healthz")[0] == 200
    assert second.value("monitor_caught_up") == 0
    first.kill()
    second.wait_for("caught_up")
    scene.produce(told[half:])
    scene.settle(second)
    assert Counter((alert.id, alert.state) for alert in scene.alerts()).most_common(1)[0][1] == 1
    assert second.stop() == 0


def test_a_monitor_that_slept_while_another_took_over_says_nothing_more(scene, told):
    first = scene.start()
    first.wait_for("caught_up")
    first.process.send_signal(19)  # SIGSTOP
    second = scene.start()
    second.wait_for("caught_up")
    first.process.send_signal(18)  # SIGCONT
    scene.produce(told)
    scene.settle(second)
    wait_until(lambda: not first.alive or first.get("/readyz")[0] == 503, "the first one knows", 30)
    assert Counter((alert.id, alert.state) for alert in scene.alerts()).most_common(1)[0][1] == 1
