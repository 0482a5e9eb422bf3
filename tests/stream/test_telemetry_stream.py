"""Telemetry from real workers on a real broker: what it counts is what was decided, whatever happened in between."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import orjson
import pytest

from committed import committed, last_records
from kafka_topics import Topics
from line_output import LineOutput
from line_thread import ThreadedCrew, line_settings, threaded_crew
from models.bundle import open_bundle
from redis_server import RedisServer
from small_models import promote, small_model
from stream.errors import BatchAborted
from stream.settings import load_settings
from stream.telemetry_record import Telemetry, decode_telemetry, reference_hash
from stream.topics import look_around
from traffic import traffic

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

INTERVAL = {"telemetry.interval": "200ms"}


@pytest.fixture
def crew_of(topics: Topics, model_bundle) -> Callable[..., object]:
    """crew_of(source, **settings) gives a crew with a real model on that topic."""

    def make(source: str, **settings: object) -> object:
        model = {"model.engine": "forest", "model.bundle": str(model_bundle)}
        return threaded_crew(topics, source, line_settings(topics.bootstrap) | model | INTERVAL | settings)

    return make


def records_of(crew: ThreadedCrew) -> list[Telemetry]:
    return [decode_telemetry(record.value) for record in crew.topics.read(crew.line.telemetry)]


def ranges_of(records: list[Telemetry]) -> dict[int, list[tuple[int, int]]]:
    found = defaultdict(list)
    for record in records:
        for partition, ranges in record.offsets.items():
            found[int(partition)] += ranges
    return {partition: sorted(ranges) for partition, ranges in found.items()}


def assert_covered(crew: ThreadedCrew, records: list[Telemetry]) -> None:
    """No offset twice, none left out, from the first to the committed one."""
    done = committed(crew.topics, crew.group, crew.line.transactions)
    for partition, ranges in ranges_of(records).items():
        places = [0, *(place for one in ranges for place in one), done[partition]]
        assert places[0::2] == places[1::2], f"partition {partition}: {ranges}"
    assert ranges_of(records).keys() == last_records(crew.topics, crew.line.transactions).keys()


def assert_adds_up(records: list[Telemetry], output: LineOutput, bundle) -> None:
    """Sums over records equal what a reader of decisions and of the feature log would count."""
    decisions = list(output.decisions.values())
    assert sum(record.events for record in records) == len(decisions)
    segments = Counter()
    for record in records:
        for segment, by in record.segments.items():
            segments.update({(segment, decision): count for decision, count in by.items()})
    assert +segments == Counter((one["segment"], one["decision"]) for one in decisions)
    flags = Counter()
    dead = Counter()
    for record in records:
        flags.update(record.flags)
        dead.update(record.dead_letters)
    assert flags == Counter(flag for one in decisions for flag in one["flags"])
    assert dead == Counter(dict(headers)["error"].decode() for _, _, headers in output.dead_letters.values())
    assert sum(sum(record.latency) for record in records) == len(decisions)
    of_model = [record for record in records if record.model == bundle.version]
    assert {record.reference for record in of_model} == {reference_hash(bundle.files["histograms.json"])}
    places = [place for place, one in output.decisions.items() if one["model"] == bundle.version]
    rows = np.array([np.frombuffer(output.features[place][2], np.float32) for place in places])
    scores = np.array([output.decisions[place]["score"] for place in places], np.float32)
    for at, name in enumerate(bundle.feature_names):
        assert summed([r.features[name] for r in of_model]) == counted(bundle.histograms.features[name], rows[:, at])
    assert summed([r.score for r in of_model]) == counted(bundle.histograms.score, scores)
    known = {(float(score), tuple(null_where_missing(row))) for score, row in zip(scores, rows, strict=True)}
    for record in of_model:
        for score, row in zip(record.sample.scores, record.sample.features, strict=True):
            assert (score, tuple(row)) in known


def null_where_missing(row):
    return [float(value) if np.isfinite(value) else None for value in row]


def summed(counts):
    return np.sum([one.counts for one in counts], axis=0).tolist(), sum(one.missing for one in counts)


def counted(histogram, values):
    found = histogram.count(values)
    return found.counts, found.missing


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_sums_over_records_equal_what_was_decided(crew_of, calm, model_bundle, delivery):
    with crew_of(calm.source, **{"kafka.delivery": delivery}) as crew:
        crew.here("w1")
        output = crew.finish()
        records = records_of(crew)
        assert_adds_up(records, output, open_bundle(model_bundle))
        assert_covered(crew, records)
    assert [record.sequence for record in records] == list(range(len(records)))
    assert {record.worker for record in records} == {"w1"}
    assert [record.dropped for record in records] == [0] * len(records)
    assert sum(len(record.sample.features) == 8 for record in records) >= 1


def test_no_id_of_anybody_is_in_telemetry(crew_of, calm, topics):
    with crew_of(calm.source) as crew:
        crew.here("w1")
        crew.finish()
        values = b"".join(record.value for record in topics.read(crew.line.telemetry))
    ids = set()
    for row in calm.rows:
        try:
            payment = orjson.loads(row.value or b"")
        except ValueError:
            continue
        if isinstance(payment, dict):
            ids |= {str(payment.get(name)) for name in ("user_id", "transaction_id", "device_id", "merchant_id")}
    assert len(ids) > 3_000
    assert [one for one in ids if f'"{one}"'.encode() in values] == []


def test_aborted_batches_and_replays_are_not_counted(crew_of, topics, redis: RedisServer, model_bundle):
    source = topics.create("transactions")
    topics.produce(source, traffic(600))
    stored = {"store.kind": "redis", "store.url": redis.url, "store.checkpoint_interval_ms": 600_000}
    patient = {"kafka.transaction_timeout_ms": 30_000, "kafka.session_timeout_ms": 30_000}
    with crew_of(source, **stored, **patient) as crew:
        crew.start("w1", "produced:4").end()  # its batch is aborted by whoever comes next, and decided again
        worker = crew.here("w1", start=False)
        aborted = abort_a_commit(worker, 3)
        worker.start()
        output = crew.finish()
        records = records_of(crew)
    assert aborted == [True]
    assert worker.values("aborted") == ["refused by the test"]
    assert sum(report.replayed for report in worker.values("batch")) > 0
    [told] = {record.epoch for record in records} - {records[0].epoch} or {records[0].epoch}
    mine = [record for record in records if record.epoch == told]
    covered = {
        (partition, offset)
        for partition, ranges in ranges_of(mine).items()
        for first, following in ranges
        for offset in range(first, following)
    }
    assert sum(record.events for record in mine) == len(covered & output.decisions.keys()) > 0
    assert all(low[1] == high[0] for ranges in ranges_of(mine).values() for low, high in pairwise(ranges))


def test_a_killed_worker_leaves_exactly_the_gap_that_the_next_ones_ranges_show(crew_of, topics, redis: RedisServer):
    source = topics.create("transactions")
    topics.produce(source, traffic(900))
    with crew_of(source, **{"store.kind": "redis", "store.url": redis.url, "telemetry.interval": "1h"}) as crew:
        crew.start("w1", "committed:4").end()  # committed, and the record was not closed
        before = committed(topics, crew.group, source, stable=True)
        assert sum(before.values()) > 0
        crew.here("w1")
        output = crew.finish()
        records = records_of(crew)
    assert len({record.epoch for record in records}) == 1, "the killed worker wrote a record after all"
    uncovered = {partition: ranges[0][0] for partition, ranges in ranges_of(records).items()}
    assert uncovered == {partition: before.get(partition, 0) for partition in uncovered}
    beyond = [place for place in output.decisions if place[1] >= before.get(place[0], 0)]
    assert sum(record.events for record in records) == len(beyond)


def test_a_rebalance_covers_no_range_twice_and_leaves_none_out(crew_of, calm, redis: RedisServer, model_bundle):
    with crew_of(calm.source, **{"store.kind": "redis", "store.url": redis.url, "worker.max_batch": 16}) as crew:
        first = crew.here("w1", start=False)
        hold = first.hold("committing", 5)
        first.start()
        assert hold.reached.wait(20)
        second = crew.here("dynamic-2")
        hold.release()
        second.wait_for("committed", 3)
        assert second.stop() == 0
        output = crew.finish()
        records = records_of(crew)
        assert_covered(crew, records)
        assert_adds_up(records, output, open_bundle(model_bundle))
    assert any(record.offsets for record in records if record.worker != "w1")


def test_a_swap_of_models_begins_a_record_over_the_other_bins(crew_of, topics, tmp_path):
    source = topics.create("transactions")
    topics.produce(source, traffic(1_000))
    one, other = small_model(tmp_path / "one", 1), small_model(tmp_path / "other", 2)
    promote(tmp_path / "registry", one)
    followed = {
        "model.follow": str(tmp_path / "registry"),
        "model.cache": str(tmp_path / "cache"),
        "model.poll_interval": "50ms",
        "telemetry.interval": "1h",
    }
    with crew_of(source, **followed) as crew:
        worker = crew.here("w1", start=False)
        hold = worker.hold("committing", 5)
        worker.start()
        assert hold.reached.wait(20)
        promote(tmp_path / "registry", other)
        worker.wait_for("prepared")
        hold.release()
        output = crew.finish()
        records = records_of(crew)
        assert_covered(crew, records)
    for bundle in (one, other):
        assert sum(record.events for record in records if record.model == bundle.version) > 0
        assert_adds_up(records, output, bundle)


def test_without_its_topic_a_worker_decides_and_counts_what_it_could_not_tell(crew_of, topics, calm):
    nowhere = {"topics.telemetry": "nobody-made-this"}
    with crew_of(calm.source) as crew:
        crew.settings |= nowhere
        [finding] = look_around(load_settings(None, {}, crew.settings)).warnings
        assert finding.code == "missing_topic"
        assert not finding.fatal
        assert "nobody-made-this (topics.telemetry)" in finding.sentence
        assert "fraudstream topics create" in finding.sentence
        worker = crew.here("w1")
        worker.wait_for("telemetry_dropped")
        output = crew.finish()
        assert worker.count("telemetry_written") == 0
    assert len(output.decisions) + len(output.dead_letters) == len(calm.rows)


def test_a_constant_score_is_told_of_without_counts(crew_of, calm):
    with crew_of(calm.source, **{"model.engine": "constant"}) as crew:
        crew.here("w1")
        output = crew.finish()
        records = records_of(crew)
        assert_covered(crew, records)
    assert sum(record.events for record in records) == len(output.decisions)
    assert {(record.model, record.reference) for record in records} == {("constant", "")}
    assert all(record.features == {} for record in records)


def test_switched_off_nothing_is_written_and_nobody_asks_for_the_topic(crew_of, calm, topics):
    with crew_of(calm.source) as crew:
        crew.settings |= {"telemetry.enabled": False, "topics.telemetry": "nobody-made-this"}
        assert look_around(load_settings(None, {}, crew.settings)).warnings == []
        worker = crew.here("w1")
        crew.finish()
        assert worker.count("telemetry_written") == worker.count("telemetry_dropped") == 0


def abort_a_commit(worker, number: int) -> list[bool]:
    """Let the number-th commit of a worker be refused as the broker may refuse any."""
    delivery, done, left = worker.app.worker._delivery, [], [number]
    commit = delivery._commit

    def refuse(producer, output, group):
        left[0] -= 1
        if left[0] == 0:
            done.append(True)
            delivery._abort(producer, "refused by the test")
            raise BatchAborted("refused by the test")
        return commit(producer, output, group)

    delivery._commit = refuse
    return done
