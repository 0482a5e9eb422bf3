"""Publishes transactions to the input topic, at a chosen pace."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import confluent_kafka.admin  # noqa: F401 (list_topics imports it inside C, where Ctrl-C would become an ImportError)
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.errors import StartupError

__all__ = ["Pacing", "Published", "Row", "as_fast_as_possible", "at_event_time", "at_rate", "publish"]

METADATA_TIMEOUT_SECS: Final = 10.0

# Waits shorter than this are left out, so that a high rate goes out in small bursts instead of spinning.
SHORTEST_WAIT_SECS: Final = 0.001

# How many rows go into the queue between two looks at what came back.
ROWS_A_POLL: Final = 500


class Row(NamedTuple):
    """One transaction: the user id in UTF-8 (None: it names none), the value as sent, its event time in epoch ms."""

    key: bytes | None
    value: bytes
    event_time_ms: int = 0


#: Seconds after the start at which the n-th row (from 0) is due.
Pacing = Callable[[int, Row], float]


@dataclass(slots=True)
class Published:
    """What came of it: rows acknowledged by every in-sync replica, rows that were not, and why, by error name."""

    count: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def as_fast_as_possible(_: int, __: Row) -> float:
    """Every row is due at once."""
    return 0.0


def at_rate(events_per_sec: float) -> Pacing:
    """Rows are due evenly, so many a second."""
    interval_secs = 1.0 / events_per_sec
    return lambda number, _: number * interval_secs


def at_event_time(speed: float) -> Pacing:
    """Rows are due as far apart as their event times are, divided by `speed`; a row dated back is due at once."""
    first_ms: list[int] = []

    def due(_: int, row: Row) -> float:
        if not first_ms:
            first_ms.append(row.event_time_ms)
        return (row.event_time_ms - first_ms[0]) / 1_000 / speed

    return due


def publish(
    rows: Iterable[Row],
    producer: Producer,
    topic: str,
    pacing: Pacing = as_fast_as_possible,
    *,
    progress: Callable[[int], object] = lambda _: None,
    monotonic: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
) -> Published:
    """Publish rows in order and return once every one was acknowledged or given up.

    producer: configured by clients.publisher_config; its queue bounds how many rows are in flight. Records are
    stamped with the time they are sent. progress: called now and then with the rows acknowledged so far.
    monotonic, wait: the clock that paces, and how to wait so many seconds (by default while serving the producer).
    Raises StartupError where the topic does not exist. A row that fails is counted, and the next one goes on.
    """
    require_topic(producer, topic)
    published = Published()
    wait = wait or producer.poll
    sent = 0
    start = monotonic()
    for sent, row in enumerate(rows, 1):
        while (left := pacing(sent - 1, row) - (monotonic() - start)) > SHORTEST_WAIT_SECS:
            wait(left)
            progress(acknowledged(producer, sent - 1, published))
        _send(producer, topic, row, published)
        if sent % ROWS_A_POLL == 0:
            producer.poll(0)
            progress(acknowledged(producer, sent, published))
    while producer.flush(0.2):
        progress(acknowledged(producer, sent, published))
    published.count = sent - published.failed
    progress(published.count)
    return published


def require_topic(producer: Producer, topic: str) -> None:
    """Raise StartupError, in one sentence, where the broker cannot be reached or has no such topic."""
    try:
        known = producer.list_topics(timeout=METADATA_TIMEOUT_SECS).topics
    except KafkaException as error:
        raise StartupError(
            f"The broker did not answer within {METADATA_TIMEOUT_SECS:.0f} s ({error.args[0].str()}): check "
            f"kafka.bootstrap_servers and that the broker is up."
        ) from error
    if topic not in known:
        raise StartupError(f"The topic {topic} does not exist: create it with `fraudstream topics create`.")


def acknowledged(producer: Producer, sent: int, published: Published) -> int:
    """Return how many rows the broker has acknowledged so far."""
    return max(0, sent - len(producer) - published.failed)


def _send(producer: Producer, topic: str, row: Row, published: Published) -> None:
    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            _fail(published, error)

    while True:
        try:
            producer.produce(topic, row.value, row.key, on_delivery=report)
        except BufferError:
            producer.poll(0.05)  # the queue is full: wait until some of it was acknowledged
        except KafkaException as error:
            _fail(published, error.args[0])
            return
        else:
            return


def _fail(published: Published, error: KafkaError) -> None:
    published.failed += 1
    published.reasons[error.name()] += 1
