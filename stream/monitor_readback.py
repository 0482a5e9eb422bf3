"""Reads a topic of one partition from one offset to another, beside the group; the monitor's state is made from it."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.clients import consumer_config
from stream.coordinator import patiently
from stream.errors import StartupError
from stream.settings import Settings

__all__ = ["LogReader"]

ANSWER_SECS: Final = 30.0
SILENT_TURNS: Final = 600
TURN_SECS: Final = 0.1
BATCH: Final = 2_000


class LogReader:
    """A consumer under the monitor's group that never joins it; a context manager. Methods raise StartupError.

    bootstrap: where the broker listens if not as the settings say.
    """

    def __init__(self, settings: Settings, bootstrap: str | None = None) -> None:
        config: dict[str, Any] = {
            **consumer_config(settings, bootstrap=bootstrap),
            "group.id": settings.monitor.group,
            "auto.offset.reset": "earliest",  # what retention deletes meanwhile is no error
            "enable.partition.eof": True,
        }
        config.pop("group.instance.id", None)
        self._consumer = Consumer(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._consumer.close()

    def committed(self, topic: str) -> int | None:
        """Return the group's committed offset, None where there is none."""
        (found,) = self._ask(lambda: self._consumer.committed([TopicPartition(topic, 0)], timeout=ANSWER_SECS))
        if found.error is not None:
            raise _refused(topic, found.error)
        return None if found.offset == OFFSET_INVALID else int(found.offset)

    def commit(self, topic: str, offset: int) -> bool:
        """Commit for the group while it has no member; return whether that was so."""
        try:
            place = TopicPartition(topic, 0, offset)
            patiently(lambda: self._consumer.commit(offsets=[place], asynchronous=False), ANSWER_SECS)
        except KafkaException as error:
            if error.args[0].code() in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION):
                return False
            raise _refused(topic, error.args[0]) from error
        return True

    def range(self, topic: str) -> tuple[int, int]:
        """Return (first offset, the one the next record gets)."""
        low, high = self._ask(lambda: self._consumer.get_watermark_offsets(TopicPartition(topic, 0), ANSWER_SECS))
        return int(low), int(high)

    def offset_at(self, topic: str, time_ms: int) -> int:
        """Return the offset of the first record stamped at this time (epoch ms) or later; the end where none is."""
        place = TopicPartition(topic, 0, max(0, time_ms))
        (found,) = self._ask(lambda: self._consumer.offsets_for_times([place], timeout=ANSWER_SECS))
        return int(found.offset) if found.offset >= 0 else self.range(topic)[1]

    def last_time_ms(self, topic: str, before: int) -> int | None:
        """Return the timestamp of the last record before an offset, None where there is none."""
        low, _ = self.range(topic)
        step = 1
        while before > low:
            begin = max(low, before - step)
            times = [int(record.timestamp()[1]) for record in self.read(topic, begin, before)]
            if times or begin == low:
                return times[-1] if times else None
            step *= 16  # only markers of transactions
        return None

    def read(self, topic: str, begin: int, end: int) -> Iterator[Message]:
        """Yield the committed records in [begin, end), in order."""
        if begin >= end:
            return
        self._consumer.assign([TopicPartition(topic, 0, begin)])
        silent = 0
        try:
            while True:
                batch = self._consumer.consume(BATCH, TURN_SECS)
                silent = 0 if batch else silent + 1
                if silent > SILENT_TURNS:
                    raise StartupError(
                        f"The topic {topic} could not be read from {begin} to {end}: a transaction is still open, or "
                        f"the partition has no leader; start again later."
                    )
                for record in batch:
                    error = record.error()
                    if error is None and record.offset() < end:
                        yield record
                    elif error is None or (error.code() == KafkaError._PARTITION_EOF and record.offset() >= end):  # noqa: SLF001 (a public code)
                        return
                    elif error.code() != KafkaError._PARTITION_EOF and not error.retriable():  # noqa: SLF001 (a public code)
                        raise _refused(topic, error)
                if self._consumer.position([TopicPartition(topic, 0)])[0].offset >= end:
                    return
        finally:
            self._consumer.unassign()

    @staticmethod
    def _ask(request: Callable[[], Any]) -> Any:
        try:
            return patiently(request, ANSWER_SECS)
        except KafkaException as error:
            raise StartupError(
                f"The broker did not say what it holds ({error.args[0].str()}): check kafka.bootstrap_servers, the "
                f"network, and this user's rights."
            ) from error


def _refused(topic: str, error: KafkaError) -> StartupError:
    return StartupError(f"The topic {topic} cannot be used ({error.str()}): correct its name, or this user's rights.")
