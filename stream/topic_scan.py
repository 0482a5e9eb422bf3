"""Reads what is committed in a topic from a place on to its present end, in no consumer group."""

import time
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.clients import consumer_config
from stream.errors import StartupError
from stream.settings import Settings

__all__ = ["TopicScan", "scan_config"]

ANSWER_SECS: Final = 15.0
#: So long without a record and without an end: a broker that still answers sends something within this time.
SILENT_SECS: Final = 30.0
POLL_SECS: Final = 0.2
BATCH: Final = 10_000


def scan_config(settings: Settings) -> dict[str, Any]:
    """Return the consumer's configuration: as the worker reads, but whole partitions, fast, and committing nothing."""
    config = {
        **consumer_config(settings),
        "group.id": f"{settings.kafka.group}-explain",  # the client wants a name; nobody joins a group under it
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",  # what expires while it is being searched is no error
        # A whole topic lies ahead: few and large requests.
        "fetch.message.max.bytes": 8 << 20,
        "fetch.max.bytes": 64 << 20,
        "queued.min.messages": 100_000,
    }
    config.pop("group.instance.id", None)
    return config


class TopicScan:
    """One consumer, for one search after another; a context manager. Every method raises StartupError."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._consumer = Consumer(dict(config))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """Return the topic's partition numbers."""
        try:
            found = self._consumer.list_topics(topic, timeout=ANSWER_SECS).topics[topic]
        except KafkaException as error:
            raise _silent(error.args[0]) from error
        if found.error is not None:
            raise StartupError(
                f"The topic {topic} cannot be read ({found.error.str()}): create it with `fraudstream topics create`, "
                f"correct its name, or grant this user Read."
            )
        return sorted(found.partitions)

    def offsets_at(self, topic: str, times_ms: Mapping[int, int]) -> dict[int, int]:
        """Return, for each partition, the offset of its first record stamped at its time (epoch ms) or later.

        Every record before that one is stamped earlier. Where none is that late, OFFSET_END.
        """
        places = [TopicPartition(topic, number, at_ms) for number, at_ms in times_ms.items()]
        try:
            found = self._consumer.offsets_for_times(places, timeout=ANSWER_SECS)
        except KafkaException as error:
            raise _silent(error.args[0]) from error
        for place in found:
            if place.error is not None:
                raise _silent(place.error)
        return {place.partition: place.offset if place.offset >= 0 else OFFSET_END for place in found}

    def counts(self, topic: str, starts: Mapping[int, int]) -> int:
        """Return how many offsets lie between the starts and the ends: at least the number of records."""
        total = 0
        for number, start in starts.items():
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), ANSWER_SECS)
            except KafkaException as error:
                raise _silent(error.args[0]) from error
            if start != OFFSET_END:
                total += high - max(low, start)
        return total

    def records(self, topic: str, starts: Mapping[int, int]) -> Generator[list[Message], None, None]:
        """Yield the committed records of these partitions, each from its offset (OFFSET_BEGINNING for all) to its end.

        A partition's own order is kept. The end is that of the last committed transaction as it is met; what lies
        behind a transaction still open is not read. Whoever has enough closes the iterator.
        """
        unread = {number for number, start in starts.items() if start != OFFSET_END}
        self._consumer.assign([TopicPartition(topic, number, starts[number]) for number in sorted(unread)])
        try:
            silent_at = time.monotonic() + SILENT_SECS
            while unread:
                batch = self._consumer.consume(BATCH, POLL_SECS)
                if batch:
                    silent_at = time.monotonic() + SILENT_SECS
                elif time.monotonic() > silent_at:
                    raise StartupError(f"Nothing came from the topic {topic} within {SILENT_SECS:.0f} s; try again.")
                records = [record for record in batch if self._is_record(record, unread)]
                if records:
                    yield records
        finally:
            self._consumer.unassign()

    def _is_record(self, record: Message, unread: set[int]) -> bool:
        error = record.error()
        if error is None:
            return True
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 (the client's public name for it)
            raise _silent(error)
        unread.discard(record.partition())
        return False


def _silent(error: KafkaError) -> StartupError:
    return StartupError(
        f"The broker did not say what it holds ({error.str().removeprefix('Broker: ').rstrip('.')}): check "
        f"kafka.bootstrap_servers, the network, and this user's rights."
    )
