"""The embedded broker serves other clients, and is refused for what it cannot do."""

import subprocess
import sys
import threading

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from kafka_topics import wait_until
from stream.app import compose
from stream.embedded import EMBEDDED_PARTITIONS, EmbeddedBroker, check_embedded
from stream.errors import UsageError
from stream.observer import Observer
from stream.sections import EMBEDDED, KafkaSettings, StoreSettings
from stream.settings import Settings, load_settings
from stream.telemetry_record import decode_telemetry

READ_TEN = """
import sys, time
from confluent_kafka import Consumer, TopicPartition
c = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "g"})
c.assign([TopicPartition("payments", p, 0) for p in range(4)])
seen, deadline = 0, time.monotonic() + 20
while seen < 10 and time.monotonic() < deadline:
    seen += sum(m.error() is None for m in c.consume(10, 0.1))
c.close()
print(seen)
"""


def test_another_process_reads_what_was_written_through_the_embedded_broker():
    with EmbeddedBroker() as broker:
        broker.create_topics(["payments"])
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for n in range(10):
            producer.produce("payments", b"%d" % n, b"user")
        assert producer.flush(10) == 0
        command = [sys.executable, "-c", READ_TEN, broker.bootstrap]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "10\n"


def test_topics_have_four_partitions_and_committed_offsets_are_kept():
    with EmbeddedBroker() as broker:
        broker.create_topics(["a", "b"])
        client = {"bootstrap.servers": broker.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}
        producer, consumer = Producer({"bootstrap.servers": broker.bootstrap}), Consumer(client)
        assert {n: len(t.partitions) for n, t in consumer.list_topics(timeout=10).topics.items()} == {
            "a": EMBEDDED_PARTITIONS,
            "b": EMBEDDED_PARTITIONS,
        }
        producer.produce("a", b"1", partition=2)
        producer.flush(10)
        consumer.subscribe(["a"])
        seen = []
        wait_until(lambda: seen.extend(consumer.consume(10, 0.1)) or seen, "the record is read")
        consumer.commit(message=seen[0], asynchronous=False)
        assert [c.offset for c in consumer.committed(consumer.assignment()) if c.partition == 2] == [1]
        consumer.close()


class Heard(Observer):
    def __init__(self):
        self.written = threading.Event()

    def telemetry_written(self):
        self.written.set()


def test_a_worker_on_the_embedded_broker_writes_telemetry_too():
    given = {
        "kafka.bootstrap_servers": EMBEDDED,
        "kafka.delivery": "at_least_once",
        "store.kind": "memory",
        "model.engine": "constant",
        "telemetry.interval": "100ms",
    }
    settings, heard = load_settings(None, {}, given), Heard()
    with EmbeddedBroker() as broker:
        names = settings.topics
        broker.create_topics([names.transactions, names.decisions, names.features, names.dead_letters])
        app = compose(settings, heard, bootstrap=broker.bootstrap)
        worker = threading.Thread(target=app.run)
        worker.start()
        try:
            assert heard.written.wait(20)
        finally:
            app.stop()
            worker.join(20)
        reader = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g"})
        reader.assign([TopicPartition(names.telemetry, number, 0) for number in range(EMBEDDED_PARTITIONS)])
        found = []
        wait_until(lambda: found.extend(reader.consume(10, 0.1)) or found, "a record of telemetry is read")
        reader.close()
    assert decode_telemetry(found[0].value()).model == "constant"


@pytest.mark.parametrize(
    ("delivery", "store", "reason"),
    [
        ("exactly_once", "memory", "no transactional offsets"),
        ("at_least_once", "sqlite", "forgets its topics"),
        ("at_least_once", "redis", "forgets its topics"),
    ],
)
def test_anything_but_at_least_once_in_memory_is_refused_with_the_reason(delivery, store, reason):
    kafka = KafkaSettings(bootstrap_servers=EMBEDDED, delivery=delivery)
    with pytest.raises(UsageError, match=reason):
        check_embedded(Settings(kafka=kafka, store=StoreSettings(kind=store)))


def test_at_least_once_in_memory_is_allowed_and_a_real_broker_is_not_judged():
    kafka = KafkaSettings(bootstrap_servers=EMBEDDED, delivery="at_least_once")
    check_embedded(Settings(kafka=kafka, store=StoreSettings(kind="memory")))
    check_embedded(Settings())
