"""Waits until a group has committed all of a topic."""

import threading
import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from kafka_topics import Topics
from worker_process import WorkerProcess


def committed(topics: Topics, group: str, topic: str, *, stable: bool = False) -> dict[int, int]:
    """Return the committed offset of each partition that has one; none where the broker does not say.

    With `stable`, the broker does not say while a transaction that holds offsets of the group is open. Asked as a
    consumer: librdkafka's admin client crashes where a coordinator is still loading, as after a broker's restart.
    """
    isolation = "read_committed" if stable else "read_uncommitted"
    consumer = Consumer({"bootstrap.servers": topics.bootstrap, "group.id": group, "isolation.level": isolation})
    try:
        places = [TopicPartition(topic, partition) for partition in topics.ends(topic)]
        found = consumer.committed(places, timeout=2 if stable else 20)
        # The transaction may hold offsets of some partitions only; then the client names an error for these alone.
        if stable and any(tp.error is not None for tp in found):
            return {}
        return {tp.partition: tp.offset for tp in found if tp.error is None and tp.offset >= 0}
    except KafkaException:
        return {}
    finally:
        consumer.close()


def wait_until_committed(
    topics: Topics, group: str, topic: str, workers: Sequence[WorkerProcess], timeout_secs: float = 120
) -> None:
    """Wait until every record that is in the topic now is committed; a worker that ends meanwhile is an error."""
    wanted = last_records(topics, topic)
    deadline = time.monotonic() + timeout_secs
    tick = threading.Event()
    while True:
        found = committed(topics, group, topic)
        if all(found.get(partition, 0) >= end for partition, end in wanted.items()):
            return
        for worker in workers:
            assert worker.alive, f"a worker ended ({worker.process.returncode}):\n{worker.errors[-3000:]}"
        assert time.monotonic() < deadline, (
            f"{group} stands at {found}, not {wanted}, after {timeout_secs} s; "
            f"{[w.events[-3:] for w in workers]}; {[w.errors[-2000:] for w in workers]}"
        )
        tick.wait(0.05)


def last_records(topics: Topics, topic: str) -> dict[int, int]:
    """Return the offset after each partition's last record; transaction markers behind it are never consumed."""
    consumer = Consumer({"bootstrap.servers": topics.bootstrap, "group.id": "ends", "enable.auto.commit": False})
    try:
        ends = {p: end for p, end in topics.ends(topic).items() if end}
        found = {}
        for partition, end in ends.items():
            consumer.assign([TopicPartition(topic, partition, max(0, end - 3))])
            last = 0
            while True:
                record = consumer.poll(2.0)
                if record is None:
                    break
                if record.error() is None:
                    last = record.offset() + 1
                if last >= end:
                    break
            found[partition] = last
        return found
    finally:
        consumer.close()
