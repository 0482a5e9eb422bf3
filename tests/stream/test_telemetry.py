"""What becomes of batches in records: each committed one once, in the record of its model, and none of the others."""

import logging
import time

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from kafka_server import free_port
from models.histograms import reference
from scored_rows import Rows
from stream.clients import telemetry_config
from stream.observer import BatchReport, Observer, Scored, ScoredBy
from stream.settings import load_settings
from stream.telemetry import TelemetryObserver, worker_name
from stream.telemetry_record import Sample, decode_telemetry
from stream.telemetry_writer import TelemetryWriter
from stream.watch_sections import TelemetrySettings

NAMES = ("approve", "review", "decline")
START_MS = 1_750_000_000_300


def model(version, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(500, 2)).astype(np.float32)
    return ScoredBy(
        version, "forest", "fs", ("a", "b"), reference(features, ["a", "b"], rng.random(500).astype("f4")), version
    )


M1, M2 = model("m1"), model("m2", 2)
PLAIN = ScoredBy("constant", "constant", "fs", ("a", "b"))


class FakeProducer:
    """Takes records until told to refuse, and reports on them when polled."""

    def __init__(self):
        self.sent, self.waiting, self.refuse, self.fail, self.flushed = [], [], None, None, []

    def produce(self, topic, value, key, on_delivery):
        if self.refuse is not None:
            raise self.refuse
        self.sent.append((topic, key, value))
        self.waiting.append(on_delivery)

    def poll(self, timeout):
        assert timeout == 0, "the loop waits for nobody"
        for report in self.waiting:
            report(self.fail, None)
        self.waiting.clear()

    def flush(self, timeout):
        self.flushed.append(timeout)
        if self.fail is None:
            self.poll(0)


class Told(Observer):
    def __init__(self):
        self.written, self.dropped = 0, []

    def telemetry_written(self):
        self.written += 1

    def telemetry_dropped(self, reason):
        self.dropped.append(reason)


class Stand:
    """An observer under a clock of ours."""

    def __init__(self, by=M1, **settings):
        self.now, self.by = START_MS, by
        self.producer, self.told = FakeProducer(), Told()
        writer = TelemetryWriter(lambda: self.producer, "telemetry", b"w1", self.told)
        given = TelemetrySettings(**settings)
        self.observer = TelemetryObserver(writer, given, "w1", START_MS, lambda: self.by, lambda: self.now)
        self.observer.recovering(0, replay_from=0, live_from=100, reason="assigned")

    def turn(self, ms=0):
        self.now += ms
        self.observer.turned()

    def commit(self, batch):
        self.observer.batch(batch)
        self.observer.acknowledged(dict(batch.offsets))

    @property
    def records(self):
        return [decode_telemetry(value) for _, _, value in self.producer.sent]


def report(offsets, rows=4, by=M1, seed=1, **more):
    rng = np.random.default_rng(seed)
    scored = Scored(
        by,
        rng.normal(size=(rows, 2)).astype(np.float32),
        rng.random(rows).astype(np.float32),
        np.zeros(rows, np.uint8),
        NAMES,
        Rows(["DE"] * rows, START_MS + np.arange(rows)),
    )
    return BatchReport(events=rows, latency_ms=np.full(rows, 7.0), offsets=offsets, scored=scored, **more)


def test_a_batch_counts_once_it_is_acknowledged_in_the_record_open_then():
    stand = Stand()
    one = report({0: 104}, dead_letters={"invalid_json": 2}, flags={"late": 1})
    stand.observer.batch(one)
    stand.turn(800)  # the interval's end comes before the commit
    stand.observer.acknowledged({0: 104})
    stand.turn()
    stand.turn(1_000)
    early, late = stand.records
    assert (early.events, early.offsets, early.latency[3]) == (0, {}, 0)
    assert (late.events, late.offsets) == (4, {"0": [(100, 104)]})
    assert (late.dead_letters, late.flags) == ({"invalid_json": 2}, {"late": 1})
    assert late.segments == {"DE": {"approve": 4}}
    assert late.latency[4] == sum(late.latency) == 4  # 7 ms lie in (5, 8]
    for at, name in enumerate(("a", "b")):
        counted = M1.histograms.features[name].count(one.scored.features[:, at])
        assert (late.features[name].counts, late.features[name].missing) == (counted.counts, counted.missing)
    assert late.score.counts == M1.histograms.score.count(one.scored.scores).counts
    assert late.sample.scores == one.scored.scores.tolist()
    assert late.sample.event_times_ms == [START_MS + at for at in range(4)]


def test_records_are_numbered_name_their_interval_and_are_written_although_nothing_happens():
    stand = Stand()
    for _ in range(35):
        stand.turn(100)
    found = stand.records
    assert [record.sequence for record in found] == [0, 1, 2]
    assert [record.interval for record in found] == [START_MS // 1000 + 1 + at for at in range(3)]
    assert all(record.interval == record.closed_at_ms // 1000 for record in found)
    assert [record.opened_at_ms for record in found] == [START_MS, *(record.closed_at_ms for record in found[:-1])]
    assert {(record.worker, record.epoch, record.model, record.reference) for record in found} == {
        ("w1", START_MS, "m1", "m1")
    }
    assert stand.told.written == 3
    assert {(topic, key) for topic, key, _ in stand.producer.sent} == {("telemetry", b"w1")}


def test_an_aborted_batch_is_replaced_by_the_next_and_never_counted():
    stand = Stand()
    stand.observer.batch(report({0: 104}))
    stand.observer.recovering(0, replay_from=90, live_from=100, reason="aborted")
    stand.observer.batch(BatchReport(replayed=10))  # replay without output: it was covered before
    stand.turn()
    stand.commit(report({0: 103}, rows=3))
    stand.turn(1_000)
    [record] = stand.records
    assert (record.events, record.offsets) == (3, {"0": [(100, 103)]})


def test_an_acknowledgement_of_something_else_counts_nothing():
    stand = Stand()
    stand.observer.batch(report({0: 104}))
    stand.observer.acknowledged({0: 90})
    stand.observer.acknowledged({0: 104})
    stand.turn(1_000)
    assert stand.records[0].events == 0


def test_ranges_touch_from_batch_to_batch_and_show_what_a_former_owner_did_not_tell():
    stand = Stand()
    stand.commit(report({0: 104}))
    stand.commit(report({0: 110, 3: 7}))  # of partition 3 nothing is known: no range is made up
    stand.turn()
    stand.observer.recovering(0, replay_from=100, live_from=150, reason="assigned")  # another worker was there
    stand.commit(report({0: 155}))
    stand.turn(1_000)
    assert stand.records[0].offsets == {"0": [(100, 110), (150, 155)], "3": [(7, 7)]}


def test_a_rebalance_between_acknowledgement_and_turn_does_not_change_what_was_covered():
    stand = Stand()
    stand.commit(report({0: 104}))
    stand.observer.recovering(0, replay_from=104, live_from=120, reason="assigned")
    stand.turn(1_000)
    assert stand.records[0].offsets == {"0": [(100, 104)]}


def test_another_model_closes_the_record_early():
    stand = Stand()
    stand.commit(report({0: 104}))
    stand.by = M2
    stand.turn()
    stand.commit(report({0: 109}, rows=5, by=M2))
    stand.turn()
    stand.turn(1_000)
    first, second = stand.records
    assert (first.model, first.events, first.reference) == ("m1", 4, "m1")
    assert (second.model, second.events, second.reference) == ("m2", 5, "m2")
    assert first.closed_at_ms == START_MS
    assert [sum(record.features["a"].counts) for record in (first, second)] == [4, 5]


def test_an_idle_swap_shows_in_the_next_record_and_a_batch_of_the_former_model_still_counts():
    stand = Stand()
    stand.observer.batch(report({0: 104}))
    stand.by = M2
    stand.turn(1_000)
    stand.observer.acknowledged({0: 104})
    stand.turn()
    stand.turn(1_000)
    stand.turn(1_000)
    assert [(record.model, record.events) for record in stand.records] == [("m1", 0), ("m1", 4), ("m2", 0)]


def test_without_a_reference_there_are_no_counts_but_everything_else():
    stand = Stand(PLAIN)
    stand.commit(report({0: 104}, by=PLAIN))
    stand.turn(1_000)
    [record] = stand.records
    assert (record.reference, record.features, record.score.counts) == ("", {}, [])
    assert (record.events, sum(record.latency), len(record.sample.features)) == (4, 4, 4)


def test_a_batch_of_dead_letters_alone_is_covered():
    stand = Stand()
    stand.commit(BatchReport(dead_letters={"invalid_json": 3}, offsets={0: 103}))
    stand.turn(1_000)
    [record] = stand.records
    assert (record.events, record.dead_letters, record.offsets) == (0, {"invalid_json": 3}, {"0": [(100, 103)]})


def broken(batch):
    """A batch whose rows cannot be counted: one outcome has no name."""
    batch.scored.outcomes[0] = 200
    return batch


def test_a_batch_that_cannot_be_counted_costs_its_record_and_nothing_else():
    stand = Stand()
    stand.turn(1_000)
    stand.commit(broken(report({0: 104})))
    stand.turn()
    stand.commit(broken(report({0: 108})))
    stand.turn(100)
    assert [reason.split(" (")[0] for reason in stand.told.dropped] == [
        "it could not be counted or encoded: IndexError: tuple index out of range"
    ]
    stand.turn(900)  # another record begins
    stand.commit(report({0: 113}, rows=5))
    stand.turn()
    stand.turn(1_000)
    first, second = stand.records
    assert (first.sequence, second.sequence) == (0, 2), "the monitor sees that one is missing"
    assert (second.events, second.offsets, second.dropped) == (5, {"0": [(108, 113)]}, 1)
    assert sum(second.features["a"].counts) == 5
    assert second.segments == {"DE": {"approve": 5}}
    assert second.opened_at_ms == first.closed_at_ms + 1_000


def test_batches_that_can_never_be_counted_cost_one_record_an_interval():
    stand = Stand()
    for at in range(50):
        stand.commit(broken(report({0: 104 + at})))
        stand.turn(100)
    stand.observer.stopped()
    assert len(stand.told.dropped) in {5, 6}
    assert all(record.events == 0 for record in stand.records)
    assert stand.producer.flushed == []


def test_a_record_that_cannot_be_encoded_is_dropped_and_the_next_ones_are_written():
    stand = Stand()
    stand.commit(report({0: 104}, dead_letters={"\ud800": 1}))  # half a character
    stand.turn()
    stand.turn(1_000)
    assert ["UnicodeEncodeError" in reason for reason in stand.told.dropped] == [True]
    stand.commit(report({0: 109}, rows=5))
    stand.turn()
    stand.turn(1_000)
    stand.observer.stopped()
    assert [(record.sequence, record.events, record.dropped) for record in stand.records] == [(1, 5, 1), (2, 0, 1)]
    assert stand.told.written == 2


def test_a_model_that_cannot_be_begun_with_costs_one_record_an_interval_until_it_can():
    stand = Stand()
    stand.by = ScoredBy("m3", "forest", "fs", ("a", "unknown"), M1.histograms, "m3")
    for _ in range(30):
        stand.turn(100)
    assert (len(stand.records), len(stand.told.dropped)) == (1, 3)
    stand.by = M2
    stand.turn(1_000)
    stand.turn(1_000)
    assert [(record.model, record.sequence, record.dropped) for record in stand.records] == [("m1", 0, 0), ("m2", 4, 3)]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (BufferError("full"), "its queue is full"),
        (KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC)), "Local: Unknown topic"),
    ],
)
def test_a_record_that_is_not_taken_is_dropped_and_the_next_one_says_so(refusal, reason):
    stand = Stand()
    stand.producer.refuse = refusal
    stand.turn(1_000)
    stand.producer.refuse = None
    stand.turn(1_000)
    stand.turn()
    [record] = stand.records
    assert (record.sequence, record.dropped) == (1, 1)
    assert stand.told.dropped == [reason]
    assert stand.told.written == 1


def test_a_record_that_the_broker_does_not_take_is_dropped():
    stand = Stand()
    stand.producer.fail = KafkaError(KafkaError._MSG_TIMED_OUT)
    for _ in range(3):
        stand.turn(1_000)
    assert [record.dropped for record in stand.records] == [0, 1, 2]
    stand.producer.fail = None
    stand.turn()
    assert (len(stand.told.dropped), stand.told.written) == (2, 1)


def test_an_orderly_stop_writes_what_is_left_and_waits_a_moment_for_it():
    stand = Stand()
    stand.commit(report({0: 104}))
    stand.observer.stopped()
    [record] = stand.records
    assert (record.events, stand.told.written, stand.producer.flushed) == (4, 1, [2.0])


def test_a_stop_without_a_broker_gives_up_and_counts():
    stand = Stand()
    stand.producer.fail = KafkaError(KafkaError._MSG_TIMED_OUT)
    stand.observer.stopped()
    assert len(stand.told.dropped) == 1


def test_with_its_broker_away_writing_returns_at_once_and_every_record_is_counted_as_lost():
    told = Told()
    settings = load_settings(None, {}, {"kafka.bootstrap_servers": f"127.0.0.1:{free_port()}"})
    config = {**telemetry_config(settings), "queue.buffering.max.messages": 3, "logger": logging.getLogger("quiet")}
    writer = TelemetryWriter(lambda: Producer(config), "telemetry", b"w1", told)
    started = time.monotonic()
    for _ in range(5):
        writer.write(b"{}")
        writer.poll()
    assert time.monotonic() - started < 5.0, "the delivery times out after 30 s"
    assert told.dropped == ["its queue is full"] * 2
    writer.close(0.05)
    assert (writer.dropped, told.written) == (5, 0)


def test_a_clock_that_jumps_back_closes_one_record_and_goes_on():
    stand = Stand()
    stand.turn(1_000)
    stand.turn(-3_600_000)
    stand.turn(100)
    stand.turn(900)
    assert [record.sequence for record in stand.records] == [0, 1, 2]


def test_infinities_and_gaps_are_null_in_the_sample():
    stand = Stand()
    one = report({0: 104})
    one.scored.features[0] = [np.nan, np.inf]
    stand.commit(one)
    stand.turn(1_000)
    [record] = stand.records
    assert record.sample.features[0] == [None, None]
    assert record.features["a"].missing == 1
    assert record.features["b"].counts[-1] >= 1


def test_rows_whose_score_is_no_number_are_not_in_the_sample_and_the_record_can_be_read():
    stand = Stand()
    one = report({0: 106}, rows=6)
    one.scored.scores[[0, 2, 5]] = [np.nan, np.inf, -np.inf]
    stand.commit(one)
    stand.turn(1_000)
    [record] = stand.records
    assert record.sample.scores == one.scored.scores[[1, 3, 4]].tolist()
    assert record.sample.features == one.scored.features[[1, 3, 4]].tolist()
    assert record.sample.event_times_ms == [START_MS + at for at in (1, 3, 4)]
    assert (record.events, sum(record.score.counts), record.score.missing) == (6, 5, 1)


def test_where_no_score_is_a_number_the_sample_is_empty():
    stand = Stand()
    one = report({0: 104})
    one.scored.scores[:] = np.nan
    stand.commit(one)
    stand.turn(1_000)
    assert (stand.records[0].events, stand.records[0].sample) == (4, Sample())


def test_a_worker_without_an_instance_id_draws_a_name():
    assert worker_name("w1") == "w1"
    assert worker_name("") != worker_name("")
