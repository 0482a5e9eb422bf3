"""Rows reach the input topic in order, at the pace asked for, and every failure is counted."""

import itertools
import time

import pytest
from confluent_kafka import Producer

from kafka_topics import Record
from stream.clients import BATCH_BYTES, publisher_config
from stream.errors import StartupError
from stream.murmur2 import partition_of
from stream.publish import Row, as_fast_as_possible, at_event_time, at_rate, publish
from stream.settings import load_settings


class Clock:
    """A clock that stands still until somebody waits, and remembers the waits."""

    def __init__(self):
        self.now = 100.0
        self.waits = []

    def __call__(self):
        return self.now

    def wait(self, secs):
        self.waits.append(round(secs, 6))
        self.now += secs


@pytest.fixture
def make_producer(kafka):
    def make(batch_bytes=BATCH_BYTES, **properties):
        settings = load_settings(None, {}, {"kafka.bootstrap_servers": kafka.bootstrap})
        return Producer({**publisher_config(settings, batch_bytes=batch_bytes), **properties})

    return make


def rows(count):
    return [Row(b"user-%d" % (n % 7), b'{"n": %d}' % n, 1_000 * n) for n in range(count)]


def test_every_row_arrives_once_in_order_keyed_by_murmur2_and_stamped_now(make_producer, topic, consume_all):
    name, before_ms, seen = topic(), time.time() * 1000 - 1, []
    published = publish(rows(5_000), make_producer(), name, progress=seen.append)
    assert (published.count, published.failed) == (5_000, 0)
    records: list[Record] = consume_all(name)
    assert [r.partition for r in records] == [partition_of(r.key, 4) for r in records]
    for key, sent in itertools.groupby(sorted(rows(5_000), key=lambda r: (r.key, r.event_time_ms)), lambda r: r.key):
        assert [r.value for r in records if r.key == key] == [row.value for row in sent]
    assert all(before_ms <= r.timestamp_ms <= time.time() * 1000 + 1 for r in records)
    assert seen == sorted(seen)
    assert seen[-1] == 5_000


@pytest.mark.parametrize(
    ("pacing", "secs"),
    [
        (as_fast_as_possible, 0.0),
        (at_rate(50), 99 / 50),
        (at_event_time(1), 99.0),
        (at_event_time(10), 9.9),
        (at_rate(100_000), 0.0),  # 1 ms for all: too short to wait for
    ],
)
def test_rows_go_out_when_they_are_due(make_producer, topic, pacing, secs):
    clock = Clock()
    published = publish(rows(100), make_producer(), topic(), pacing, monotonic=clock, wait=clock.wait)
    assert published.count == 100
    assert clock.now - 100 == pytest.approx(secs, abs=0.002)


def test_a_row_dated_back_does_not_wait(make_producer, topic):
    clock = Clock()
    dated = [Row(b"a", b"1", 60_000), Row(b"a", b"2", 0), Row(b"a", b"3", 61_000)]
    publish(dated, make_producer(), topic(), at_event_time(1), monotonic=clock, wait=clock.wait)
    assert clock.waits == [1.0]


def test_a_full_queue_is_waited_for(make_producer, topic, topics):
    name = topic()
    small = {"queue.buffering.max.messages": 10}
    assert publish(rows(1_000), make_producer(**small), name).count == 1_000
    assert sum(topics.ends(name).values()) == 1_000


def test_rows_the_client_or_the_broker_refuses_are_counted_and_the_rest_goes_on(make_producer, topic, consume_all):
    name = topic(partitions=1, config={"max.message.bytes": "100000"})
    refused_by_broker, refused_by_client = bytes(200_000), bytes(3_000_000)
    mixed = [Row(b"a", b"1"), Row(b"a", refused_by_client), Row(b"a", refused_by_broker), Row(b"a", b"2")]
    producer = make_producer(100_000, **{"message.max.bytes": 1_000_000, "compression.type": "none"})
    published = publish(mixed, producer, name)
    assert (published.count, published.failed) == (2, 2)
    assert published.reasons == {"MSG_SIZE_TOO_LARGE": 2}
    assert [r.value for r in consume_all(name)] == [b"1", b"2"]


def test_a_missing_topic_is_named_with_what_creates_it(make_producer):
    with pytest.raises(StartupError, match="no-such-topic does not exist: create it"):
        publish(rows(1), make_producer(), "no-such-topic")


def test_no_rows_are_no_work(make_producer, topic):
    assert publish([], make_producer(), topic()).count == 0
