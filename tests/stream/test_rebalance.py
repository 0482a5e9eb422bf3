"""Partitions change hands while batches are under way, and the output equals that of an undisturbed run."""

import time
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException

from committed import committed
from kafka_topics import Topics, wait_until
from line_thread import LineThread, ThreadedCrew, line_settings, threaded_crew
from redis_server import RedisServer
from stream.errors import BatchAborted, BrokerSilent

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SMALL = {"worker.max_batch": 16}
# A checkpoint waits for the batch in flight, without polling: on a slow machine it would come due while one is held.
NO_CHECKPOINT = {"store.checkpoint_interval_ms": 600_000}


@pytest.fixture
def shared(topics: Topics, redis: RedisServer, calm) -> Iterator[ThreadedCrew]:
    """A crew over the calm run's input, with a store that all its workers share."""
    settings = line_settings(topics.bootstrap) | {"store.kind": "redis", "store.url": redis.url}
    with threaded_crew(topics, calm.source, settings) as workers:
        yield workers


def test_workers_that_join_and_leave_leave_no_trace(shared: ThreadedCrew, calm):
    # Whoever has committed a batch waits with the next, so that there is work left for whoever joins.
    first = shared.here("w1", start=False, **SMALL)
    holds = {first: first.hold("committing")}
    first.start()
    for name in ("dynamic-2", "w3", "dynamic-4"):
        assert all(hold.reached.wait(20) for hold in holds.values()), "nothing was left to commit"
        joined = shared.here(name, start=False, **SMALL)
        its = joined.hold("committing", 2)
        joined.start()
        wait_until(lambda: rebalancing(shared), "a rebalance is under way")
        held, holds = holds, {worker: worker.hold("committing") for worker in holds}
        for hold in held.values():
            hold.release()
        joined.wait_for("committed")
        if name.startswith("dynamic"):
            its.release()
            assert joined.stop() == 0, joined.errors
        else:
            holds[joined] = its

    for hold in holds.values():
        hold.release()
    assert shared.finish().differences(calm.output) == []


def test_a_revocation_waits_for_the_commit_in_flight(shared: ThreadedCrew, calm):
    first = shared.here("w1", start=False, **NO_CHECKPOINT, **{"kafka.transaction_timeout_ms": 30_000})
    hold = first.hold("committing", 3)
    Polling(first, while_producing=3)
    first.start()
    assert hold.reached.wait(20)
    second = shared.here("w2")
    first.wait_for("revoking")
    begun = first.names.index("revoking")
    hold.release()
    second.wait_for("committed")

    since = first.names[begun:]
    assert since.index("committed") < since.index("revoked"), since
    assert shared.finish().differences(calm.output) == []


def test_a_batch_that_fails_while_partitions_are_revoked_is_not_stored(topics: Topics, shared: ThreadedCrew, calm):
    first = shared.here("w1", start=False, **NO_CHECKPOINT, **{"kafka.transaction_timeout_ms": 1000})
    hold = first.hold("committing", 3)
    Polling(first, while_producing=3)
    first.start()
    assert hold.reached.wait(20)
    second = shared.here("w2")
    first.wait_for("revoking")
    wait_until(
        lambda: committed(topics, shared.group, shared.line.transactions, stable=True),
        "the broker ends its transaction",
    )
    hold.release()
    first.wait_for("revoked")
    assert first.count("committed") == 2
    second.wait_for("committed")

    assert shared.finish().differences(calm.output) == []


def test_a_worker_that_lost_its_partitions_unawares_commits_nothing_of_them(shared: ThreadedCrew, calm):
    polls = {"max.poll.interval.ms": "3000"}
    first = shared.here("dynamic-1", start=False, **{"kafka.consumer": polls})
    fences = sent_with(first)
    hold = first.hold("loaded", 3)  # between consuming and sending
    first.start()
    assert hold.reached.wait(20)
    at_assignment, before = first.app.worker._assignment.group, len(fences)
    second = shared.here("w2")
    second.wait_until(lambda: second.values("assigned")[-1:] == [[0, 1, 2, 3]], "it takes over everything")
    second.wait_for("committed", 5)
    hold.release()
    first.wait_for("aborted")

    # Asked for now, it names no member; that of the next assignment would pass for the owner's.
    assert fences[before] == at_assignment
    assert shared.finish().differences(calm.output) == []


def test_records_consumed_before_a_rebalance_are_dropped_after_it(shared: ThreadedCrew, calm):
    first = shared.here("w1", start=False)
    asleep = RebalanceInMidBatch(first)
    first.start()
    first.wait_for("committed", 3)
    asleep.armed = True
    second = shared.here("w2")
    first.wait_until(lambda: asleep.done, "a rebalance between two reads of a batch")
    second.wait_for("committed")

    assert shared.finish().differences(calm.output) == []


def test_what_the_client_says_in_place_of_a_record_outlives_a_rebalance(shared: ThreadedCrew):
    worker = shared.here("w1", start=False).app.worker

    class Rebalanced:
        def consume(self, _count: int, _timeout_secs: float) -> list[object]:
            worker._assignment.held = {}
            return ["later"]

    consumer, worker._consumer = worker._consumer, Rebalanced()
    said, read = Mock(error=lambda: "fenced, said once"), Mock(error=lambda: None)
    assert worker._take([read, said]) == [said, "later"]
    worker._consumer = consumer


def test_a_worker_fenced_before_it_joins_again_joins_anew(shared: ThreadedCrew, calm, monkeypatch):
    first = shared.here("w1", start=False)
    delivery, assignment = first.app.worker._delivery, first.app.worker._assignment
    hold = first.hold("committed")
    first.start()
    assert hold.reached.wait(20)
    for target, name, error in (
        (delivery, "finish", BatchAborted("the broker went away")),
        (delivery, "ready", BrokerSilent("no answer")),
        (assignment, "rejoin", KafkaException(KafkaError(KafkaError._FATAL))),
    ):
        fails_once(monkeypatch, target, name, error)
    hold.release()
    first.wait_for("assigned", 2)

    assert shared.finish().differences(calm.output) == []
    assert "the group has another member under this worker's name: joining anew" in first.values("aborted")


def fails_once(monkeypatch: pytest.MonkeyPatch, target: object, name: str, error: Exception) -> None:
    """Let the next call of the method raise."""
    whole, errors = getattr(target, name), [error]

    def call(*args: object, **kwargs: object) -> object:
        if errors:
            raise errors.pop()
        return whole(*args, **kwargs)

    monkeypatch.setattr(target, name, call)


def test_a_dynamic_workers_partitions_are_taken_over_at_once(shared: ThreadedCrew):
    session = {"kafka.session_timeout_ms": 30_000}
    leaver, stayer = (shared.here(name, **session) for name in ("dynamic-1", "dynamic-2"))
    wait_until(lambda: all_held(leaver, stayer), "each worker holds two partitions")

    assert leaver.stop() == 0, leaver.errors
    stayer.wait_until(lambda: stayer.values("assigned")[-1] == [0, 1, 2, 3], "all partitions", 10)


def test_a_static_workers_partitions_wait_for_it_or_for_the_session_timeout(shared: ThreadedCrew):
    leaver, stayer = shared.here("w1"), shared.here("w2")
    wait_until(lambda: all_held(leaver, stayer), "each worker holds two partitions")

    assert leaver.stop() == 0, leaver.errors
    back = shared.here("w1")
    back.wait_for("assigned")
    rebalances = stayer.count("revoked")
    assert back.stop() == 0, back.errors
    left_at = time.monotonic()
    stayer.wait_until(lambda: stayer.values("assigned")[-1] == [0, 1, 2, 3], "all partitions")
    assert (rebalances, stayer.count("revoked")) == (rebalances, rebalances + 1)
    assert stayer.at("assigned") - left_at > 1.0, "they were taken before the session ended"


class Polling:
    """A consumer that polls on while one batch is in flight, until it has served a revocation.

    What it polls before that is as good as not fetched yet: it is fetched again after the next assignment.
    """

    def __init__(self, worker: LineThread, while_producing: int) -> None:
        self._worker = worker
        self._batch = while_producing
        self._consumer: Consumer = worker.app.worker._consumer
        worker.app.worker._consumer = self

    def __getattr__(self, name: str) -> object:
        return getattr(self._consumer, name)

    def consume(self, count: int, timeout_secs: float) -> list[object]:
        found: list[object] = self._consumer.consume(count, timeout_secs)
        deadline = time.monotonic() + 30
        while self._worker.count("produced") == self._batch and not self._worker.count("revoking"):
            assert time.monotonic() < deadline, "no revocation came"
            found = self._consumer.consume(count, 0.05)
        return found


class RebalanceInMidBatch:
    """A consumer whose process sleeps between the two reads of a batch, until a rebalance has been served."""

    def __init__(self, worker: LineThread) -> None:
        self._worker = worker
        self._consumer: Consumer = worker.app.worker._consumer
        self._partition = -1
        self.armed = self.done = False
        worker.app.worker._consumer = self

    def __getattr__(self, name: str) -> object:
        return getattr(self._consumer, name)

    def consume(self, count: int, timeout_secs: float) -> list[object]:
        if timeout_secs or not self.armed or self.done or self._partition != 0:
            found: list[object] = self._consumer.consume(count, timeout_secs)
            self._partition = found[-1].partition() if found else -1
            return found
        served = self._worker.count("assigned")
        deadline = time.monotonic() + 20
        while self._worker.count("assigned") == served:
            assert time.monotonic() < deadline, "no rebalance came"
            found = self._consumer.consume(count, 0.05)  # what came before it is as good as not fetched yet
        while 0 not in {record.partition() for record in found}:
            assert time.monotonic() < deadline, "nothing came after the rebalance"
            found += self._consumer.consume(count, 0.05)
        self.done = True
        return found


def sent_with(worker: LineThread) -> list[object]:
    """Record the group metadata that each batch is sent with."""
    delivery = worker.app.worker._delivery
    send, metadata = delivery.send, []

    def recorded(output: object, group: object) -> None:
        metadata.append(group)
        send(output, group)

    delivery.send = recorded
    return metadata


def all_held(*workers: LineThread) -> bool:
    held = [worker.values("assigned")[-1] for worker in workers if worker.count("assigned")]
    return len(held) == len(workers) and sorted(partition for each in held for partition in each) == [0, 1, 2, 3]


def rebalancing(crew: ThreadedCrew) -> bool:
    described = crew.topics.admin.describe_consumer_groups([crew.group])[crew.group].result(20)
    return described.state == ConsumerGroupState.PREPARING_REBALANCING
