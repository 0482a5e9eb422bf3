"""Whatever happens to a worker, its broker or its store in mid-stream, the output equals that of an undisturbed run."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError

from committed import committed
from kafka_server import KafkaServer
from kafka_topics import Topics, wait_until
from line_thread import LineThread, ThreadedCrew, line_settings, threaded_crew
from redis_server import RedisServer
from stream.clients import consumer_config

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SMALL = {"worker.max_batch": 16}


@pytest.fixture
def shared(topics: Topics, redis: RedisServer, calm) -> Iterator[ThreadedCrew]:
    """A crew over the calm run's input, with a store that all its workers share."""
    settings = line_settings(topics.bootstrap) | {"store.kind": "redis", "store.url": redis.url}
    with threaded_crew(topics, calm.source, settings) as workers:
        yield workers


@pytest.mark.parametrize("name", ["w1", "dynamic-1"])
def test_a_worker_stopped_past_its_session_and_continued_doubles_nothing(shared: ThreadedCrew, calm, name):
    stopped = shared.start(name, "committing:4:STOP", **{"kafka.transaction_timeout_ms": 1_000})
    stopped.wait_until(lambda: is_stopped(stopped.process.pid), "the worker to be stopped at its fourth commit")
    other = shared.here("w2", **SMALL)
    other.wait_until(lambda: other.values("assigned")[-1:] == [[0, 1, 2, 3]], "it takes over everything")
    hold = other.hold("committing", 5)
    assert hold.reached.wait(20)
    stopped.resume()
    stopped.wait_for("aborted")
    hold.release()

    assert shared.finish().differences(calm.output) == []


def test_a_transaction_that_timed_out_is_begun_again(shared: ThreadedCrew, topics: Topics, calm):
    long = {"kafka.session_timeout_ms": 30_000, "kafka.transaction_timeout_ms": 1_000}
    stopped = shared.start("w1", "committing:4:STOP", **long)
    stopped.wait_until(lambda: is_stopped(stopped.process.pid), "the worker to be stopped at its fourth commit")
    # Partitions that the transaction does not touch are stable at once; the broker needs a second, and one to notice.
    due = time.monotonic() + 3
    wait_until(
        lambda: time.monotonic() > due and committed(topics, shared.group, shared.line.transactions, stable=True),
        "the broker ends its transaction",
    )
    stopped.resume()

    assert shared.finish().differences(calm.output) == []
    assert stopped.count("aborted") >= 1


def test_the_older_of_two_workers_with_one_instance_id_gives_way(shared: ThreadedCrew, calm):
    older = shared.here("w1", start=False, **SMALL)
    hold = older.hold("committing", 5)
    older.start()
    assert hold.reached.wait(20)
    twin = shared.here("w1", **SMALL)
    twin.wait_for("assigned")
    hold.release()

    assert older.end() == 1
    assert re.fullmatch(r"Another worker joined with the same kafka.instance_id.*\.", str(older.error)), older.errors
    output = shared.finish(ended=[older])
    assert output.differences(calm.output) == []


def test_an_idle_worker_gives_way_to_its_twin_as_well(topics: Topics):
    with threaded_crew(topics, topics.create("transactions"), line_settings(topics.bootstrap)) as crew:
        older = crew.here("w1")
        older.wait_for("assigned")
        crew.here("w1").wait_for("assigned")

        assert older.end() == 1
        assert re.fullmatch(r"Another worker joined with the same kafka.instance_id.*\.", str(older.error)), (
            older.errors
        )


def test_a_worker_whose_place_was_taken_and_left_joins_anew(shared: ThreadedCrew, calm):
    """As where a broker goes down after it has counted an attempt to join, and before it has answered; and again."""
    worker = shared.here("w1", start=False, **SMALL)
    hold = worker.hold("committing", 5)
    worker.start()
    assert hold.reached.wait(20)
    take_place_and_leave(worker)
    again = worker.hold("committing", 5)
    hold.release()
    assert again.reached.wait(20)
    worker.app.worker._consumer._error(KafkaError(KafkaError._TRANSPORT))
    take_place_and_leave(worker)
    again.release()

    assert shared.finish().differences(calm.output) == []
    assert worker.values("aborted").count("the group has another member under this worker's name: joining anew") == 2
    assert worker.count("assigned") > 1


def take_place_and_leave(worker: LineThread) -> None:
    ghost = Consumer(consumer_config(worker.settings))
    assigned = threading.Event()
    ghost.subscribe([worker.settings.topics.transactions], on_assign=lambda _consumer, _partitions: assigned.set())
    wait_until(lambda: ghost.poll(0.1) or assigned.is_set(), "it is in the group under the worker's name")
    ghost.close()


def test_a_broker_restart_leaves_no_trace(own_kafka: KafkaServer, calm):
    topics = Topics(own_kafka.bootstrap)
    topics.create_exactly(calm.source)
    topics.produce(calm.source, calm.rows)
    patient = {"kafka.session_timeout_ms": 30_000, "kafka.transaction_timeout_ms": 10_000}
    with threaded_crew(topics, calm.source, line_settings(topics.bootstrap) | SMALL | patient) as crew:
        worker = crew.here("w1")
        for crash in (False, True):
            hold = worker.hold("offsets_sent", 5)
            assert hold.reached.wait(40), "nothing was left to commit"
            own_kafka.restart(crash=crash)
            hold.release()
        assert crew.finish().differences(calm.output) == []


def test_a_broker_outage_longer_than_the_session_leaves_no_trace(own_kafka: KafkaServer, calm):
    topics = Topics(own_kafka.bootstrap)
    topics.create_exactly(calm.source)
    topics.produce(calm.source, calm.rows)
    settings = line_settings(topics.bootstrap) | SMALL | {"kafka.transaction_timeout_ms": 10_000}
    with threaded_crew(topics, calm.source, settings) as crew:
        worker = crew.here("w1")
        for crash in (False, True):
            hold = worker.hold("offsets_sent", 5)
            worker.wait_until(hold.reached.is_set, "it commits", 90)
            own_kafka.restart(crash=crash)
            hold.release()
        assert crew.finish().differences(calm.output) == []


def test_a_commit_that_never_returns_is_left_behind_with_its_producer(shared: ThreadedCrew, calm):
    worker = shared.here("w1", start=False, **{"kafka.transaction_timeout_ms": 1_000})
    hold = worker.hold("committing", 4)
    worker.start()
    worker.wait_for("aborted")
    worker.wait_for("committed", 5)
    hold.release()

    assert shared.finish().differences(calm.output) == []


@pytest.mark.parametrize("disturbance", ["restarted", "wiped", "put back"])
def test_a_disturbed_store_leaves_no_trace(topics: Topics, own_redis: RedisServer, calm, disturbance):
    settings = line_settings(topics.bootstrap) | SMALL | {"store.kind": "redis", "store.url": own_redis.url}
    with threaded_crew(topics, calm.source, settings) as crew:
        worker = crew.here("w1")
        worker.wait_for("checkpointed", 2)
        older = own_redis.snapshot()
        worker.wait_for("checkpointed", 6)
        recovered = worker.count("recovering")
        if disturbance == "restarted":
            own_redis.stop()
            worker.wait_for("store_failed")
            own_redis.start()
        elif disturbance == "wiped":
            own_redis.flush()
        else:
            own_redis.restore(older)
        output = crew.finish()

    assert output.differences(calm.output) == []
    if disturbance != "restarted":
        assert worker.count("recovering") > recovered, "nobody noticed"


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
