"""Writes telemetry with a producer of its own, which nobody waits for."""

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from stream.observer import Observer

__all__ = ["TelemetryWriter"]

#: Longest wait for the last records of a worker that leaves.
FLUSH_SECS: Final = 2.0


class TelemetryWriter:
    """Hands records to the client; one that its queue or the broker does not take is lost, and counted.

    key: of every record. observer: told of each record's end. Used by the loop's thread alone.
    """

    def __init__(self, make_producer: Callable[[], Producer], topic: str, key: bytes, observer: Observer) -> None:
        self._producer = make_producer()
        self._topic = topic
        self._key = key
        self._observer = observer
        self._waiting = 0
        self.dropped = 0

    def write(self, record: bytes) -> None:
        """Queue a record; returns at once."""
        try:
            self._producer.produce(self._topic, record, self._key, on_delivery=self._delivered)
        except (BufferError, KafkaException) as error:
            self.lose(_reason(error))
        else:
            self._waiting += 1

    def lose(self, reason: str) -> None:
        """Count a record as lost, and tell why."""
        self.dropped += 1
        self._observer.telemetry_dropped(reason)

    def poll(self) -> None:
        """Hear what became of the records that are on their way."""
        if self._waiting:
            self._producer.poll(0)

    def close(self, timeout_secs: float = FLUSH_SECS) -> None:
        """Wait a moment for what is on its way; the rest is lost."""
        if self._waiting:
            self._producer.flush(timeout_secs)
        for _ in range(self._waiting):
            self.lose("the worker left before the broker had it")
        self._waiting = 0

    def _delivered(self, error: Any, _: object) -> None:
        self._waiting -= 1
        if error is None:
            self._observer.telemetry_written()
        else:
            self.lose(error.str())


def _reason(error: BufferError | KafkaException) -> str:
    return "its queue is full" if isinstance(error, BufferError) else str(error.args[0].str())
