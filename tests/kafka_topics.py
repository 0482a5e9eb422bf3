"""What a test does with topics on the real broker: make them, fill them, read them back as plain records."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

DEADLINE_SECS = 30.0

NOT_THERE_YET = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic, as any client would see it; ``timestamp_ms`` is the record's own."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = -1


@dataclass(frozen=True, slots=True)
class Row:
    """A record to be produced; without a partition, the key's murmur2 hash chooses it as in Java's producer."""

    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int = 0


class Topics:
    """Topics on one broker, each with a name of its own."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._client = {"bootstrap.servers": bootstrap, "log_level": 2}  # outlives its broker, quietly
        self.admin = AdminClient(self._client)
        # Idempotent: a broker that stops in between must not double the input of a test that counts.
        self._producer = Producer(
            {**self._client, "partitioner": "murmur2_random", "linger.ms": 2, "enable.idempotence": True}
        )

    def create(self, name: str = "topic", partitions: int = 4, config: Mapping[str, str] | None = None) -> str:
        """Create a topic and return its unique name, which begins with ``name``."""
        unique = f"{name}-{uuid.uuid4().hex[:12]}"
        self.create_exactly(unique, partitions, config)
        return unique

    def create_exactly(self, name: str, partitions: int = 4, config: Mapping[str, str] | None = None) -> None:
        """Create a topic of this very name, and wait until its partitions can be written."""
        self.admin.create_topics([NewTopic(name, partitions, 1, config=dict(config or {}))])[name].result(DEADLINE_SECS)
        wait_until(lambda: len(self.ends(name)) == partitions, f"{partitions} partitions of {name} are there")

    def delete(self, name: str) -> None:
        """Delete a topic and wait until it is gone."""
        self.admin.delete_topics([name])[name].result(DEADLINE_SECS)
        wait_until(lambda: name not in self.admin.list_topics(timeout=5).topics, f"{name} is gone")

    def produce(self, topic: str, rows: Iterable[Row | tuple[bytes | None, bytes | None]]) -> list[Record]:
        """Produce rows (or pairs of key and value) in order; return them with the places the broker gave them."""
        delivered: list[Record | None] = []
        for row in rows:
            self._produce(topic, row if isinstance(row, Row) else Row(*row), delivered)
        assert self._producer.flush(DEADLINE_SECS) == 0, (
            f"records for {topic} were not delivered in {DEADLINE_SECS:.0f} s"
        )
        records = [record for record in delivered if record is not None]
        assert len(records) == len(delivered), f"{len(delivered) - len(records)} records for {topic} failed"
        return records

    def read(self, topic: str, *, read_committed: bool = True) -> list[Record]:
        """Return all of a topic up to its end as it is now, by partition and offset.

        With ``read_committed``, waits until the transactions open now have ended.
        """
        isolation = "read_committed" if read_committed else "read_uncommitted"
        consumer = Consumer(
            {
                **self._client,
                "group.id": f"read-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": isolation,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            records = read_all(consumer, topic, self.ends(topic))
        finally:
            consumer.close()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def ends(self, topic: str) -> dict[int, int]:
        """Return each partition's high watermark, open transactions included."""
        deadline = time.monotonic() + DEADLINE_SECS
        while True:
            try:
                return self._ends(topic)
            except KafkaException as error:
                # A partition just made, or a broker just back, has a leader by name before it has one in deed.
                if error.args[0].code() not in NOT_THERE_YET or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def _ends(self, topic: str) -> dict[int, int]:
        partitions = self.admin.list_topics(topic, timeout=DEADLINE_SECS).topics[topic].partitions
        wanted = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in partitions}
        found = self.admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        return {place.partition: future.result(DEADLINE_SECS).offset for place, future in found.items()}

    def _produce(self, topic: str, row: Row, delivered: list[Record | None]) -> None:
        place = len(delivered)
        delivered.append(None)

        def keep(error: KafkaError | None, message: Message) -> None:
            if error is None:
                delivered[place] = plain(message, headers=tuple(row.headers))

        where = {} if row.partition < 0 else {"partition": row.partition}
        if row.timestamp_ms:
            where["timestamp"] = row.timestamp_ms
        while True:
            try:
                self._producer.produce(
                    topic, row.value, row.key, on_delivery=keep, headers=list(row.headers) or None, **where
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return


def read_all(consumer: Consumer, topic: str, ends: Mapping[int, int]) -> list[Record]:
    """Read every partition of ``ends`` from its beginning until its position has reached that end."""
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
    behind = {partition for partition, end in ends.items() if end > 0}
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_SECS
    while behind:
        assert time.monotonic() < deadline, (
            f"{topic}: partitions {sorted(behind)} not read to {ends} (an open transaction?)"
        )
        for message in [consumer.poll(0.2), *consumer.consume(10_000, 0)]:
            if message is None:
                continue
            # A million records may take longer; what counts is that none comes any more.
            deadline = time.monotonic() + DEADLINE_SECS
            error = message.error()
            if error is None:
                if message.offset() < ends[message.partition()]:
                    records.append(plain(message))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            # At the end of a partition the offset is the next one to be fetched, past any transaction's marker.
            elif message.offset() >= ends[message.partition()]:
                behind.discard(message.partition())
    return records


def plain(message: Message, headers: tuple[tuple[str, bytes], ...] | None = None) -> Record:
    """Return a client's message as a plain record."""
    if headers is None:
        headers = tuple(message.headers() or ())
    key, value, timestamp_ms = message.key(), message.value(), message.timestamp()[1]
    return Record(message.partition(), message.offset(), key, value, headers, timestamp_ms)


def wait_until(condition: Callable[[], object], what: str, deadline_secs: float = DEADLINE_SECS) -> None:
    """Wait until ``condition()`` is true; fail with ``what`` was waited for once the deadline has passed."""
    deadline = time.monotonic() + deadline_secs
    while not condition():
        assert time.monotonic() < deadline, f"waited {deadline_secs:.0f} s in vain until: {what}"
        time.sleep(0.01)
