"""The threads of a demonstration: who publishes, who scores, who reads the decisions, and when all of it is done."""

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from stream.app import App
from stream.clients import publisher_config
from stream.embedded import EMBEDDED_PARTITIONS
from stream.publish import Published, Row, at_rate, publish
from stream.settings import Settings
from stream.simulate import simulate, transactions
from stream.top import Recent
from stream.training import demo_simulation

__all__ = ["DRAIN_SECS", "FETCH_WAIT_MS", "Cast", "DecisionReader", "Traffic", "WorkerPart"]

SPAN_MS: Final = 30 * 86_400_000  # the simulated month

#: After the last transaction, how long to wait for the decisions that are still under way.
DRAIN_SECS: Final = 15.0

#: The trial broker answers a fetch that found nothing only when its time is up, whatever came meanwhile.
FETCH_WAIT_MS: Final = 2

TICK_SECS: Final = 0.05

#: Records that are no transactions, to show what becomes of them: key, value.
BAD_RECORDS: Final = (
    (b"user-0000001", b"not JSON at all"),
    (b"user-0000001", b'{"user_id":"user-0000001","amount":5,"currency":"EUR","event_time":1767225600000}'),
    (b"user-0000002", (b'{"transaction_id":"bad-1","user_id":"user-0000002","amount":-5,"currency":"EUR",'
                      b'"event_time":1767225600000}')),
    (b"user-0000003", (b'{"transaction_id":"bad-2","user_id":"user-0000003","amount":5,"currency":"XXZ",'
                      b'"event_time":1767225600000}')),
    (b"somebody", (b'{"transaction_id":"bad-3","user_id":"user-0000004","amount":5,"currency":"EUR",'
                  b'"event_time":1767225600000}')),
    (b"user-0000005", (b'{"transaction_id":"bad-4","user_id":"user-0000005","amount":5,"currency":"EUR",'
                      b'"event_time":"2099-12-31T00:00:00Z"}')),
    (b"user-0000006", b""),
)  # fmt: skip


class Part:
    """One thread of the demonstration; what ends it unasked is kept, so that it can be raised where it is seen."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)
        self._failure: Exception | None = None
        self.asked = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End in good order, and wait for it."""
        self.asked.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it is at work."""
        return self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """Whether it was at work and is no more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether something ended it."""
        return self._failure is not None

    def raise_failure(self) -> None:
        """Raise what ended it, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _guarded(self) -> None:
        try:
            self.work()
        except Exception as error:  # noqa: BLE001 - raised again by raise_failure
            self._failure = error

    def work(self) -> None:
        """Do what the part is there for, until asked to stop."""
        raise NotImplementedError


class WorkerPart(Part):
    """The composed worker."""

    def __init__(self, app: App) -> None:
        super().__init__("worker")
        self._app = app

    def work(self) -> None:
        """Score until stopped."""
        self._app.run()

    def stop(self) -> None:
        """Finish the batch, commit and leave."""
        self._app.stop()
        super().stop()


class Traffic(Part):
    """A month of simulated payments that ends now, and who is a thief in it: the model has seen none of these people.

    Bad records are spread evenly among them.
    """

    def __init__(self, settings: Settings, bootstrap: str, seconds: int, rate: int, seed: int) -> None:
        super().__init__("traffic")
        self._producer = Producer(publisher_config(settings, bootstrap=bootstrap))
        self._topic, self._rate = settings.topics.transactions, rate
        start_ms = time.time_ns() // 1_000_000 - SPAN_MS
        self._table = simulate(demo_simulation(seconds * rate, seed + 1_000_003, start_ms))
        ids = self._table.column("transaction_id").to_pylist()
        self.frauds = {
            name for name, fraud in zip(ids, self._table.column("is_fraud").to_pylist(), strict=True) if fraud
        }
        self.sent = 0
        self.bad = 0
        self.secs = 0.0
        self.published = Published()

    @property
    def good(self) -> int:
        """Transactions sent so far, those that failed left out once all are sent."""
        return self.sent - self.bad - self.published.failed

    def work(self) -> None:
        """Publish at a steady rate."""
        started = time.monotonic()
        self.published = publish(self._rows(), self._producer, self._topic, at_rate(self._rate))
        self.secs = time.monotonic() - started

    def _rows(self) -> Iterator[Row]:
        every = max(1, self._table.num_rows // (2 * len(BAD_RECORDS)))
        for rows in transactions(self._table):
            for key, value in rows:
                if self.asked.is_set():
                    return
                if self.sent % every == every // 2:
                    self.sent += 1
                    bad_key, bad_value = BAD_RECORDS[self.bad % len(BAD_RECORDS)]
                    self.bad += 1
                    yield Row(bad_key, bad_value)
                self.sent += 1
                yield Row(key, value)


class DecisionReader(Part):
    """Reads the decisions as any other program would."""

    def __init__(self, settings: Settings, bootstrap: str, recent: Recent) -> None:
        super().__init__("decisions")
        self._recent = recent
        self._topic = settings.topics.decisions
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "demo", "log_level": 3, "fetch.wait.max.ms": FETCH_WAIT_MS}
        )
        self.outcomes: dict[str, str] = {}

    def work(self) -> None:
        """Read until asked to stop."""
        self._consumer.assign([TopicPartition(self._topic, number, 0) for number in range(EMBEDDED_PARTITIONS)])
        while not self.asked.is_set():
            for record in self._consumer.consume(1_000, 0.1):
                if record.error() is None:
                    value = record.value() or b""
                    decision = orjson.loads(value)
                    self.outcomes[decision["transaction_id"]] = decision["decision"]
                    self._recent.decision(value)
        self._consumer.close()


class Cast:
    """All of them; as a context, the worker is at work inside it and nobody is after it."""

    def __init__(self, worker: WorkerPart, traffic: Traffic, decisions: DecisionReader) -> None:
        self.worker, self.traffic, self.decisions = worker, traffic, decisions
        self._published_at: float | None = None
        self._pause = threading.Event()

    def __enter__(self) -> Self:
        self.worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for part in (self.traffic, self.decisions, self.worker):
            part.stop()
        if error is None:
            for part in (self.worker, self.decisions, self.traffic):
                part.raise_failure()

    def perform(self) -> None:
        """Begin to read decisions, then to publish."""
        self.decisions.start()
        self.traffic.start()

    def finish(self) -> None:
        """Publish no more, and wait for the decisions that are still under way."""
        self.traffic.stop()
        self.wait(DRAIN_SECS)

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds; True, and earlier, where it is over or something has ended unasked."""
        deadline = time.monotonic() + timeout
        while not self._over():
            if time.monotonic() >= deadline:
                return False
            self._pause.wait(TICK_SECS)
        return True

    def _over(self) -> bool:
        if not self.worker.alive or self.decisions.ended or (self.traffic.ended and self.traffic.failed):
            return True
        if not self.traffic.ended:
            return False
        self._published_at = self._published_at or time.monotonic()
        late = time.monotonic() - self._published_at > DRAIN_SECS
        return late or len(self.decisions.outcomes) >= self.traffic.good
