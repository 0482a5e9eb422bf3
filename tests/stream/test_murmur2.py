"""murmur2 agrees with Kafka's own vectors and with librdkafka on a real broker; a topic's partitioner is told."""

import pytest
from confluent_kafka import Consumer, Producer

from stream.murmur2 import KeySample, judge_partitioner, murmur2, partition_of
from stream.sampling import newest_records

# From UtilsTest.testMurmur2 of Apache Kafka, as Java's signed integers.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "signed"), VECTORS.items())
def test_kafkas_own_vectors(data, signed):
    assert murmur2(data) == signed % 2**32


def test_the_real_brokers_partitions_are_those_computed_here(kafka, topic):
    name = topic(partitions=7)
    keys = [b"", *(b"\x00\xff" * n + b"user-%d" % n for n in range(500))]
    places = {}
    client = {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "linger.ms": 2}
    producer = Producer(client)
    for key in keys:
        producer.produce(name, b"", key, on_delivery=lambda _, m: places.__setitem__(m.key(), m.partition()))
        producer.poll(0)
    assert producer.flush(20) == 0
    assert {key: places[key] for key in keys if key} == {key: partition_of(key, 7) for key in keys if key}


@pytest.mark.parametrize(
    ("partitioner", "expected"),
    [("murmur2_random", "murmur2"), ("consistent_random", "crc32"), ("fnv1a_random", "other")],
)
def test_the_partitioner_of_a_topic_is_told_from_its_newest_keys(kafka, topic, partitioner, expected):
    name = topic(partitions=5)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": partitioner, "linger.ms": 2})
    for n in range(300):
        producer.produce(name, b"", b"user-%d" % n)
    assert producer.flush(20) == 0
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "doctor", "enable.auto.commit": False})
    try:
        samples = [KeySample(r.key(), r.partition()) for r in newest_records(consumer, name, range(5), 40)]
    finally:
        consumer.close()
    assert len(samples) == 200
    verdict = judge_partitioner(samples, 5)
    assert (verdict.name, verdict.keys, verdict.keyless, verdict.scattered) == (expected, 200, 0, 0)


def test_a_topic_without_records_gives_no_sample(kafka, topic):
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "doctor", "enable.auto.commit": False})
    try:
        assert newest_records(consumer, topic(), range(4), 40) == []
    finally:
        consumer.close()


def test_few_keys_or_one_partition_prove_nothing():
    placed = [KeySample(key, partition_of(key, 4)) for key in (b"%d" % n for n in range(10))]
    assert judge_partitioner(placed, 4).name == "unknown"
    assert judge_partitioner([KeySample(b"%d" % n, 0) for n in range(100)], 1).name == "unknown"
    assert judge_partitioner([], 4).name == "unknown"


def test_keys_found_on_two_partitions_and_records_without_key_are_counted():
    verdict = judge_partitioner([KeySample(b"a", 0), KeySample(b"a", 1), KeySample(None, 2)], 4)
    assert (verdict.name, verdict.keys, verdict.keyless, verdict.scattered) == ("other", 1, 1, 1)
