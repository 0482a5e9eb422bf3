"""The real broker that other tests stand on: it keeps its data and its address, and is read as any client would."""

import time
from pathlib import Path

from confluent_kafka import Producer

from kafka_server import KafkaServer
from kafka_topics import Row, Topics, wait_until


def test_a_record_comes_back_as_it_was_written(topic, produce, consume_all):
    name = topic(partitions=3)
    rows = [Row(b"k%d" % n, b"v%d" % n, n % 3, [("h", b"\xff"), ("h", b"2")], 1_700_000_000_000 + n) for n in range(9)]
    written = produce(name, rows)
    assert sorted(written, key=lambda r: (r.partition, r.offset)) == consume_all(name)
    assert [r.partition for r in written] == [row.partition for row in rows]
    assert written[0].headers == (("h", b"\xff"), ("h", b"2"))


def test_a_topic_has_its_own_name_and_settings(topics, topic):
    first, second = topic("a"), topic("a", config={"retention.ms": "1234567"})
    assert first != second
    assert len(topics.ends(second)) == 4


def test_an_empty_topic_reads_as_no_records(topic, consume_all):
    assert consume_all(topic()) == []


def test_read_committed_waits_for_the_open_transaction_and_leaves_out_the_aborted_one(kafka, topic, consume_all):
    name = topic(partitions=1)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": name, "transaction.timeout.ms": 1000}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(name, b"committed")
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(name, b"aborted")
    producer.flush(30)
    producer.abort_transaction(30)
    assert [r.value for r in consume_all(name)] == [b"committed"]
    assert [r.value for r in consume_all(name, read_committed=False)] == [b"committed", b"aborted"]
    producer.begin_transaction()
    producer.produce(name, b"left open")
    producer.flush(30)
    began = time.monotonic()
    assert [r.value for r in consume_all(name)] == [b"committed"]
    assert time.monotonic() - began < 10, "the broker should abort a transaction left open soon after its timeout"


def test_the_data_and_the_address_outlive_a_stop_a_crash_and_a_freeze_but_not_the_end():
    with KafkaServer() as server:
        topics, address, folder = Topics(server.bootstrap), server.bootstrap, server._dir
        name = topics.create(partitions=1)
        topics.produce(name, [(b"a", b"1")])
        server.restart()
        topics.produce(name, [(b"a", b"2")])
        server.restart(crash=True)
        server.suspend()
        server.resume()
        assert server.bootstrap == address
        assert [r.value for r in topics.read(name)] == [b"1", b"2"]
        pid = server.pid
    assert not folder.exists()
    wait_until(lambda: not is_running(pid), "the process is gone")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
