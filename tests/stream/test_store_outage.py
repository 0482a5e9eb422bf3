"""A Redis that goes away, comes back, is put back, wiped, damaged or of the wrong kind, under a line that goes on.

Equal means decisions, dead letters and feature rows by source partition and offset, to an undisturbed run.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from redis import Redis

import stream.assignment
from committed import committed
from kafka_topics import Row, Topics, wait_until
from line_thread import Hold, LineThread, ThreadedCrew, line_settings, threaded_crew
from redis_server import RedisServer
from state.errors import DamagedRecord, StoreMismatch, StoreUnavailable
from stored import stored
from stream.app import EXPIRY_MARGIN_MS
from stream.partition import Phase
from traffic import START_MS

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SESSION_MS = 1_500
# A loop that does not come round within this loses its partitions, and the test.
CONSUMER = {"max.poll.interval.ms": str(SESSION_MS)}


@pytest.fixture
def line(topics: Topics, own_redis: RedisServer, calm) -> Iterator[ThreadedCrew]:
    """A crew over the calm run's input, with a Redis of its own."""
    settings = line_settings(topics.bootstrap) | {"store.kind": "redis", "store.url": own_redis.url}
    with threaded_crew(topics, calm.source, settings) as workers:
        yield workers


@pytest.fixture
def own(topics: Topics, own_redis: RedisServer) -> Iterator[ThreadedCrew]:
    """A crew over an empty input of two partitions, with a Redis of its own."""
    source = topics.create("transactions", 2)
    settings = line_settings(topics.bootstrap) | {"store.kind": "redis", "store.url": own_redis.url}
    with threaded_crew(topics, source, settings) as workers:
        yield workers


def payments(user: str, partition: int, count: int, first: int = 0) -> list[Row]:
    """Payments of one user on a chosen partition."""
    return [
        Row(
            user.encode(),
            orjson.dumps(
                {
                    "transaction_id": f"{user}-{first + n}",
                    "user_id": user,
                    "amount": 5,
                    "currency": "EUR",
                    "event_time": START_MS + 1000 * (first + n),
                }
            ),
            partition,
        )
        for n in range(count)
    ]


def settle(crew: ThreadedCrew, worker: LineThread) -> None:
    def caught_up() -> bool:
        assert worker.alive, worker.errors
        ends = crew.topics.ends(crew.line.transactions)
        return committed(crew.topics, crew.group, crew.line.transactions) == ends

    worker.wait_for("assigned")
    wait_until(caught_up, "all input is committed")


def test_a_redis_that_may_evict_users_is_refused_at_the_start(line: ThreadedCrew, own_redis: RedisServer):
    with own_redis.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(StoreMismatch, match=r"maxmemory-policy allkeys-lru.*CONFIG SET maxmemory-policy noeviction"):
        line.here("w")


def test_a_store_that_is_down_when_the_worker_starts_is_an_error_by_name(line: ThreadedCrew, own_redis: RedisServer):
    own_redis.kill()

    with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:\d+/0 cannot be used now"):
        line.here("w")


def test_a_partitions_keys_share_a_slot_and_its_users_expire(line: ThreadedCrew, own_redis: RedisServer):
    line.here("w")
    line.finish()

    with own_redis.client() as client:
        users = {key: client.pttl(key) for key in client.scan_iter("fraudstream:{*}:*") if not key.endswith(b":w")}
        watermarks = list(client.scan_iter("*:w"))
        tags = {re.search(rb"\{(.+?)\}", key)[1] for key in (*users, *watermarks)}
        assert {client.pttl(key) for key in watermarks} == {-1}
    assert len(tags) == len(watermarks) == 4
    kept_ms = 31 * 86_400_000 + EXPIRY_MARGIN_MS
    assert len(users) > 100
    assert all(kept_ms - 60_000 < ttl <= kept_ms for ttl in users.values())


def test_a_store_down_loses_nothing_and_costs_no_place_in_the_group(
    topics: Topics, calm, line: ThreadedCrew, own_redis: RedisServer
):
    """Down for longer than the session and than max.poll.interval.ms: the loop comes round, nobody is revoked."""
    worker = line.here(
        "dynamic-1", **{"kafka.consumer": CONSUMER, "kafka.session_timeout_ms": SESSION_MS, "worker.max_batch": 32}
    )
    worker.wait_for("committed", 5)
    own_redis.kill()
    worker.wait_until(lambda: unavailable(worker), "partitions wait for the store")
    gauges = worker.count("memory")
    worker.wait_for("memory", gauges + 4 * 3)  # three seconds: the gauges are told once in each
    assert worker.count("assigned") == 1
    own_redis.start()

    assert line.finish().differences(calm.output) == []
    assert (worker.count("revoked"), worker.count("aborted")) == (1, 0)  # revoked when it left
    assert worker.values("breaker")[0] is True
    assert worker.values("breaker")[-1] is False


def unavailable(worker: LineThread) -> bool:
    return any("not available" in why for _, why in worker.values("paused"))


def test_partitions_whose_users_are_known_go_on_while_others_wait(
    topics: Topics, own: ThreadedCrew, own_redis: RedisServer
):
    topics.produce(own.line.transactions, [*payments("known", 0, 10), *payments("other", 1, 10)])
    worker = own.here("w", **{"store.checkpoint_interval_ms": 3_600_000})
    settle(own, worker)
    own_redis.kill()
    topics.produce(own.line.transactions, [*payments("known", 0, 30, 10), *payments("new", 1, 5)])

    wait_until(lambda: own_offsets(own)[0] == 40 and unavailable(worker), "one goes on and one waits")
    assert own_offsets(own)[1] == 10
    topics.produce(own.line.transactions, payments("known", 0, 30, 40))
    wait_until(lambda: own_offsets(own)[0] == 70, "it still goes on")
    assert own_offsets(own)[1] == 10
    own_redis.start()

    settle(own, worker)
    assert len(own.finish().decisions) == 85


def own_offsets(crew: ThreadedCrew) -> dict[int, int]:
    return committed(crew.topics, crew.group, crew.line.transactions)


def test_a_partition_that_waited_goes_on_even_if_intake_was_full_when_the_store_came_back(
    topics: Topics, own: ThreadedCrew, own_redis: RedisServer
):
    """Both reasons to pause at once: an unknown user, and too much unwritten by the other partition."""
    topics.produce(own.line.transactions, [*payments("known", 0, 10), *payments("other", 1, 10)])
    worker = own.here("w", start=False, **{"worker.max_unwritten_bytes": 4_000})
    worker.start()
    settle(own, worker)
    own_redis.kill()
    topics.produce(own.line.transactions, payments("new", 1, 5))
    worker.wait_until(lambda: unavailable(worker), "one waits")
    topics.produce(own.line.transactions, payments("known", 0, 200, 10))
    worker.wait_until(lambda: worker.app.worker._assignment.full, "too much is unwritten")
    held = worker.hold("users_written")  # so that it stays full until the waiting partition has gone on
    own_redis.start()
    worker.wait_until(
        lambda: not any(p.held_back for p in worker.app.worker._assignment.held.values()), "the one that waited went on"
    )
    held.release()
    topics.produce(own.line.transactions, payments("new", 1, 5, 5))

    settle(own, worker)
    assert len(own.finish().decisions) == 230


def test_partitions_that_wait_survive_a_rebalance(
    topics: Topics, calm, line: ThreadedCrew, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    """The client keeps a partition paused through rebalances, whoever has it in between."""
    monkeypatch.setattr(stream.assignment, "REVOKE_SECS", 0.5)
    worker = line.here("dynamic-1", **{"worker.max_batch": 32})
    joined = line.here("dynamic-2", start=False, **{"worker.max_batch": 32})  # opens the store while it is there
    worker.wait_for("committed", 3)
    own_redis.kill()
    worker.wait_until(lambda: unavailable(worker), "partitions wait for the store")
    joined.start()
    joined.wait_for("assigned")
    worker.wait_for("assigned", 2)
    held = joined.app.worker._assignment.held
    assert {p.phase for p in held.values()} == {Phase.WAITING}
    assert joined.stop() == 0, joined.errors
    worker.wait_until(lambda: worker.values("assigned")[-1] == [0, 1, 2, 3], "everything is back")
    own_redis.start()

    assert line.finish().differences(calm.output) == []


def test_a_store_that_hangs_when_partitions_are_assigned_is_waited_for(
    topics: Topics, calm, line: ThreadedCrew, own_redis: RedisServer
):
    """One time-out, not one for each partition, before the loop comes round again."""
    worker = line.here("w", start=False)
    own_redis.suspend()
    worker.start()
    worker.wait_for("assigned")
    assert worker.count("store_failed") == 1
    worker.wait_until(lambda: unavailable(worker), "partitions wait for the store")
    own_redis.resume()

    assert line.finish().differences(calm.output) == []


@pytest.mark.parametrize("disaster", ["wiped", "put back"])
def test_a_store_that_lost_state_under_a_running_worker_is_recovered_from_the_log(
    topics: Topics, calm, line: ThreadedCrew, own_redis: RedisServer, disaster: str
):
    worker, late, snapshot = held_past_a_snapshot(line, own_redis)
    begun = worker.count("recovering")
    lose_state(own_redis, disaster, snapshot)
    late.release()
    settle(line, worker)
    worker.wait_until(lambda: replayed_to_the_end(worker), "what was lost is replayed")

    assert line.finish().differences(calm.output) == []
    reasons = [reason for *_, reason in worker.values("recovering")[begun:]]
    assert any("rebuilt" in reason if disaster == "wiped" else reason == "checkpoint" for reason in reasons), reasons
    found = stored(topics, line.settings)
    assert found.offsets == committed(topics, line.group, calm.source)


def held_past_a_snapshot(crew: ThreadedCrew, redis: RedisServer) -> tuple[LineThread, Hold, Path]:
    """Return a worker that is held at its 40th commit, what holds it, and the store as it was at the 12th."""
    worker = crew.here("w", start=False, **{"worker.max_batch": 32})
    early, late = worker.hold("committing", 12), worker.hold("committing", 40)
    worker.start()
    assert early.reached.wait(30)
    snapshot = redis.snapshot()
    early.release()
    assert late.reached.wait(30)
    return worker, late, snapshot


def lose_state(redis: RedisServer, disaster: str, snapshot: Path) -> None:
    if disaster == "wiped":
        redis.flush()
    else:
        redis.restore(snapshot)


def replayed_to_the_end(worker: LineThread) -> bool:
    return all(p.phase is Phase.LIVE for p in worker.app.worker._assignment.held.values())


@pytest.mark.parametrize("disaster", ["wiped", "put back"])
def test_a_store_that_lost_state_while_nobody_ran_is_recovered_from_the_log(
    topics: Topics, calm, line: ThreadedCrew, own_redis: RedisServer, disaster: str
):
    worker, late, snapshot = held_past_a_snapshot(line, own_redis)
    worker.app.stop()
    late.release()
    assert worker.end() == 0, worker.errors
    lose_state(own_redis, disaster, snapshot)
    line.here("w")

    assert line.finish().differences(calm.output) == []


def test_a_damaged_record_ends_the_worker_with_its_key(topics: Topics, own: ThreadedCrew, own_redis: RedisServer):
    topics.produce(own.line.transactions, payments("u", 0, 10))
    worker = own.here("w")
    settle(own, worker)
    assert worker.stop() == 0, worker.errors
    with own_redis.client() as client:
        damaged = damage(client, b":u")
    topics.produce(own.line.transactions, payments("u", 0, 10, 10))
    again = own.here("w")
    again._thread.join(40)

    assert isinstance(again.error, DamagedRecord), again.errors
    assert again.error.key == damaged
    assert own_offsets(own)[0] == 10
    again.error = None

    mended = own.here("w", **{"store.recovery": "rebuild"})
    settle(own, mended)
    with threaded_crew(topics, own.line.transactions, line_settings(topics.bootstrap)) as calm:
        calm.here("calm")
        assert own.finish().differences(calm.finish()) == []


def damage(client: Redis, suffix: bytes) -> str:
    """Flip one bit in the middle of a user's value; return its key."""
    (key,) = [key for key in client.scan_iter("fraudstream:{*}:*") if key.endswith(suffix)]
    value = bytearray(client.get(key))
    value[len(value) // 2] ^= 0x10
    client.set(key, bytes(value), keepttl=True)
    return key.decode()
