"""The Redis store when the server fails or another owner writes between two of its commands."""

import time
from collections.abc import Iterator

import pytest

from redis_server import RedisServer
from state.errors import StoreRolledBack, StoreUnavailable
from state.redis_store import RedisStore
from state.store import Namespace, Row

pytestmark = pytest.mark.redis


def opened(server: RedisServer, namespace: Namespace, **options) -> RedisStore:
    store = RedisStore(server.url, namespace, **options)
    store.open()
    return store


@pytest.fixture
def store(redis: RedisServer, namespace: Namespace) -> Iterator[RedisStore]:
    store = opened(redis, namespace)
    yield store
    store.close()


@pytest.fixture
def own_store(own_redis: RedisServer, namespace: Namespace) -> Iterator[RedisStore]:
    store = opened(own_redis, namespace, timeout_ms=300)
    store.begin(0, 0)
    store.save(0, [Row(b"a", 1, b"record", 0)])
    yield store
    store.close()


@pytest.mark.parametrize("cluster", [False, True], ids=["single", "cluster"])
def test_an_outage_is_unavailable_at_once_and_passes_by_itself(
    request: pytest.FixtureRequest, namespace: Namespace, cluster: bool
) -> None:
    server: RedisServer = request.getfixturevalue("redis_cluster" if cluster else "own_redis")
    store = opened(server, namespace, cluster=cluster, timeout_ms=300)
    known = store.begin(0, 0)
    store.save(0, [Row(b"a", 1, b"record", 0)])
    server.kill()
    started = time.monotonic()
    for call in (
        lambda: store.load(0, [b"a"]),
        lambda: store.save(0, [Row(b"a", 2, b"newer", 0)]),
        lambda: store.advance(0, known, 5),
        lambda: store.watermark(0),
        lambda: store.begin(0, 0),
        store.registered,
        lambda: opened(server, namespace, cluster=cluster),
    ):
        with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:\d+/0 cannot be used now"):
            call()
    assert time.monotonic() - started < 3
    server.start()
    assert store.load(0, [b"a"]) == ([b"record"], known)
    assert store.advance(0, known, 5).offset == 5
    store.close()


def test_a_server_that_hangs_is_unavailable_within_the_timeout(own_redis: RedisServer, own_store: RedisStore) -> None:
    own_redis.suspend()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="TimeoutError"):
        own_store.load(0, [b"a"])
    assert time.monotonic() - started < 2
    own_redis.resume()
    assert own_store.load(0, [b"a"]).records == [b"record"]


def test_a_save_that_timed_out_may_be_repeated(own_redis: RedisServer, own_store: RedisStore) -> None:
    own_redis.suspend()
    with pytest.raises(StoreUnavailable):
        own_store.save(0, [Row(b"a", 2, b"newer", 0)])
    own_redis.resume()
    own_store.save(0, [Row(b"a", 2, b"newer", 0)])
    assert own_store.load(0, [b"a"]).records == [b"newer"]


def test_a_server_without_memory_is_unavailable_for_writes_and_still_read(
    own_redis: RedisServer, own_store: RedisStore
) -> None:
    with own_redis.client() as operator:
        operator.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match=r"OOM|OutOfMemoryError"):
            own_store.save(0, [Row(b"a", 2, b"newer", 0)])
        assert own_store.load(0, [b"a"]).records == [b"record"]
        operator.config_set("maxmemory", 0)
    own_store.save(0, [Row(b"a", 2, b"newer", 0)])
    assert own_store.load(0, [b"a"]).records == [b"newer"]


def test_a_server_that_became_a_replica_is_unavailable_for_writes(
    own_redis: RedisServer, own_store: RedisStore
) -> None:
    with own_redis.client() as operator:
        operator.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match=r"READONLY|ReadOnlyError"):
            own_store.save(0, [Row(b"a", 2, b"newer", 0)])
        operator.replicaof("NO", "ONE")
    own_store.save(0, [Row(b"a", 2, b"newer", 0)])


def test_a_server_that_forgot_the_scripts_is_sent_them_again(redis: RedisServer, store: RedisStore) -> None:
    known = store.begin(0, 0)
    for applied in (1, 2):
        with redis.client() as operator:
            operator.script_flush()
        store.save(0, [Row(b"a", applied, b"at %d" % applied, 0)])
        known = store.advance(0, known, applied)
    assert store.load(0, [b"a"]) == ([b"at 2"], known)


def test_a_server_restarted_without_its_data_is_noticed(own_redis: RedisServer, own_store: RedisStore) -> None:
    own_redis.flush()
    own_redis.restart()
    with pytest.raises(StoreRolledBack, match="wiped"):
        own_store.load(0, [b"a"])


def test_a_refused_save_writes_nothing(own_redis: RedisServer, own_store: RedisStore, namespace: Namespace) -> None:
    other = opened(own_redis, namespace)
    other.begin(0, 0)
    with own_redis.client() as operator:
        before = operator.dbsize()
        with pytest.raises(StoreRolledBack, match="began it anew"):
            own_store.save(0, [Row(b"b", 2, b"record", 0)])
        assert operator.dbsize() == before
        operator.flushall()
        with pytest.raises(StoreRolledBack, match="wiped"):
            own_store.save(0, [Row(b"b", 2, b"record", 0)])
        assert operator.dbsize() == 0
    other.close()


def test_w_raised_between_the_two_steps_of_an_advance_stays(
    redis: RedisServer, store: RedisStore, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = store.begin(0, 0)
    other = opened(redis, namespace)
    meanwhile = [lambda: other.advance(0, began, 50), lambda: other.begin(0, 0)]
    run = store._connection.run

    def late(*args):
        if meanwhile:
            meanwhile.pop(0)()
        return run(*args)

    monkeypatch.setattr(store._connection, "run", late)
    with pytest.raises(StoreRolledBack, match="began it anew"):
        store.advance(0, began, 20)
    known = store.watermark(0)
    meanwhile.append(lambda: other.advance(0, known, 50))
    assert store.advance(0, known, 20).offset == 50
    other.close()


def test_a_load_of_several_reads_tells_the_w_of_the_first(
    redis: RedisServer, store: RedisStore, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = store.begin(0, 0)
    other = opened(redis, namespace)
    command = store._connection.command

    def then_advanced(*args):
        answer = command(*args)
        if args[0] == "MGET":
            other.advance(0, began, int(other.watermark(0).offset) + 1)
        return answer

    monkeypatch.setattr(store._connection, "command", then_advanced)
    assert store.load(0, [b"%d" % number for number in range(2_500)]).watermark.offset == 0
    assert other.watermark(0).offset == 3
    other.close()


def test_a_user_saved_between_the_two_reads_of_a_load_is_no_damage(
    redis: RedisServer, store: RedisStore, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.begin(0, 0)
    other = opened(redis, namespace)
    command = store._connection.command

    def late(*args):
        if args[0] == "EXISTS":
            other.save(0, [Row(b"a", 1, b"record", 0)])
        return command(*args)

    monkeypatch.setattr(store._connection, "command", late)
    assert store.load(0, [b"a", b"b"]).records == [b"record", None]
    other.close()
