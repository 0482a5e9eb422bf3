"""Which records share a batch: one that is not full goes on filling while the batch before is not durable."""

import threading
import time
from unittest.mock import Mock

import pytest
from confluent_kafka import Consumer

from kafka_topics import Topics
from line_thread import LineThread, line_settings, threaded_crew
from stream.errors import BatchAborted
from traffic import payments

pytestmark = pytest.mark.kafka


class Reads:
    """A consumer that says when a read gave something, and leaves nothing to chance beside a batch in flight.

    The first read then waits for its record; what is read once the flight has ended waits until all that is expected
    has come, as a read without a time takes what the client has fetched already, which no test can tell.
    """

    def __init__(self, worker: LineThread) -> None:
        self._worker = worker
        self._consumer: Consumer = worker.app.worker._consumer
        self.gave = threading.Semaphore(0)
        self.expected = 0
        self.calm = False
        worker.app.worker._consumer = self

    def __getattr__(self, name: str) -> object:
        return getattr(self._consumer, name)

    def consume(self, count: int, timeout_secs: float) -> list[object]:
        if self.expected and not self._worker.app.worker._delivery.in_flight:
            found: list[object] = []
            deadline = time.monotonic() + 30
            while len(found) < self.expected:
                assert time.monotonic() < deadline, f"{len(found)} of {self.expected} records came"
                found += self._consumer.consume(self.expected - len(found), 1)
            self.expected, self.calm = 0, True
            return found
        waits = bool(timeout_secs) and not self.calm and self._worker.app.worker._delivery.in_flight
        found = self._consumer.consume(count, 30 if waits else timeout_secs)
        if found:
            self.gave.release()
        return found


@pytest.fixture
def source(topics: Topics) -> str:
    return topics.create("transactions", 4)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_batch_that_is_not_full_takes_what_comes_until_the_batch_before_is_durable(topics, source, delivery):
    rows = list(payments(7, seed=1))
    with threaded_crew(topics, source, patient(topics) | {"kafka.delivery": delivery}) as crew:
        worker = crew.here("w1", start=False)
        reads = Reads(worker)
        hold = worker.hold("committing")
        worker.start().wait_for("assigned")
        topics.produce(source, rows[:1])
        assert hold.reached.wait(30)
        assert reads.gave.acquire(timeout=30)
        topics.produce(source, rows[1:2])
        assert reads.gave.acquire(timeout=30)
        topics.produce(source, rows[2:])
        reads.expected = 5
        hold.release()
        worker.wait_for("committed", 2)
        assert decided(worker) == [1, 6]


def test_a_full_batch_is_scored_while_the_batch_before_is_not_durable(topics, source):
    settings = patient(topics) | {"worker.max_batch": 1}
    rows = list(payments(2, seed=2))
    with threaded_crew(topics, source, settings) as crew:
        worker = crew.here("w1", start=False)
        reads, judged = Reads(worker), judgements(worker)
        hold = worker.hold("committing")
        worker.start().wait_for("assigned")
        topics.produce(source, rows[:1])
        assert hold.reached.wait(30)
        assert judged.acquire(timeout=30)
        topics.produce(source, rows[1:])
        assert judged.acquire(timeout=30), "nothing was scored while a commit was under way"
        reads.calm = True
        hold.release()


def test_what_the_client_says_in_place_of_a_record_is_heard_before_the_batch_in_flight_is_waited_for(topics, source):
    with threaded_crew(topics, source, patient(topics)) as crew:
        worker = crew.here("w1", start=False).app.worker
        said = [Mock(error=lambda: "fenced, said once")]
        consumer, worker._consumer = worker._consumer, Mock(consume=Mock(side_effect=[said, []]))
        worker._delivery._flight = Mock(result=Mock(side_effect=BatchAborted("it failed")))
        assert worker._consume() == said
        worker._delivery._flight, worker._consumer = None, consumer


def patient(topics: Topics) -> dict[str, object]:
    """Return settings under which a transaction outlives what a test does in it, and no checkpoint waits for it."""
    long = {"kafka.transaction_timeout_ms": 60_000, "kafka.session_timeout_ms": 30_000}
    return line_settings(topics.bootstrap) | long | {"store.checkpoint_interval_ms": 60_000}


def judgements(worker: LineThread) -> threading.Semaphore:
    """Count the batches that were scored."""
    judge = worker.app.line._scorer.judge
    found, scores = threading.Semaphore(0), judge.judge

    def counted(*arguments: object) -> object:
        found.release()
        return scores(*arguments)

    judge.judge = counted
    return found


def decided(worker: LineThread) -> list[int]:
    return [report.events for report in worker.values("batch") if report.events]
