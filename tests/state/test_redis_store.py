"""What only the Redis store promises: which servers it takes, expiry, foreign keys, one slot a partition."""

import re
from collections.abc import Iterator

import numpy as np
import pytest

from redis_server import RedisServer
from state.errors import DamagedRecord, StoreMismatch, StoreUnavailable
from state.events import Events
from state.features import StateSpec, default_feature_set
from state.redis_store import RedisStore
from state.store import Namespace, Row
from state.windows import Windows

pytestmark = pytest.mark.redis

EXPIRE_MS = 32 * 86_400_000


def opened(server: RedisServer, namespace: Namespace, **options) -> RedisStore:
    store = RedisStore(server.url, namespace, **{"expire_after_ms": EXPIRE_MS, **options})
    store.open()
    return store


@pytest.fixture
def store(redis: RedisServer, namespace: Namespace) -> Iterator[RedisStore]:
    store = opened(redis, namespace)
    yield store
    store.close()


def watermark_key(store: RedisStore) -> bytes:
    return store._watermark_key(0)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_is_refused_with_the_command_that_mends_it(
    own_redis: RedisServer, namespace: Namespace, policy: str
) -> None:
    with own_redis.client() as operator:
        operator.config_set("maxmemory-policy", policy)
        with pytest.raises(StoreMismatch, match=f"maxmemory-policy {policy}.*CONFIG SET maxmemory-policy noeviction"):
            opened(own_redis, namespace)
        operator.config_set("maxmemory-policy", "noeviction")
    opened(own_redis, namespace).close()


def test_an_old_server_is_refused(store: RedisStore) -> None:
    with pytest.raises(StoreMismatch, match=r"runs Redis 5\.0\.14: upgrade it to 6\.2"):
        store._connection._check({"redis_version": "5.0.14"})


def test_cluster_and_single_node_are_told_apart(
    redis: RedisServer, redis_cluster: RedisServer, namespace: Namespace
) -> None:
    with pytest.raises(StoreMismatch, match="is a Redis Cluster: set the store's cluster option to true"):
        opened(redis_cluster, namespace)
    with pytest.raises(StoreMismatch, match="is no Redis Cluster: set the store's cluster option to false"):
        opened(redis, namespace, cluster=True)


def test_wrong_credentials_are_refused_and_no_secret_is_told(own_redis: RedisServer, namespace: Namespace) -> None:
    with own_redis.client() as operator:
        operator.config_set("requirepass", "right-secret")
        for credentials in ("", ":wrong-secret@", "somebody:wrong-secret@"):
            url = own_redis.url.replace("redis://", f"redis://{credentials}")
            with pytest.raises(StoreMismatch, match="refuses these credentials") as refused:
                RedisStore(url, namespace).open()
            assert "secret" not in str(refused.value)
            assert "somebody" not in str(refused.value)
        url = own_redis.url.replace("redis://", "redis://:right-secret@")
        store = RedisStore(url, namespace)
        store.open()
        own_redis.kill()
        with pytest.raises(StoreUnavailable) as down:
            store.watermark(0)
        assert "secret" not in str(down.value)
        store.close()


@pytest.mark.parametrize(
    "url",
    ["redis://:pass#word@host:6379", "redis://user:half@host:secret", "http://:secret@h", "redis://secret:1?2@host"],
)
def test_an_address_that_cannot_be_read_is_refused_and_no_secret_is_told(namespace: Namespace, url: str) -> None:
    with pytest.raises(StoreMismatch, match="percent-encoded") as refused:
        RedisStore(url, namespace).open()
    assert not re.search(r"pass(?!word)|secret|half", str(refused.value))
    assert refused.value.__cause__ is None


def test_a_prefix_with_braces_is_refused(namespace: Namespace) -> None:
    with pytest.raises(StoreMismatch, match="must not hold braces"):
        RedisStore("redis://localhost", namespace, prefix="my{app}")


def test_users_expire_by_the_last_write_and_w_never(redis: RedisServer, store: RedisStore) -> None:
    store.begin(0, 0)
    store.save(0, [Row(b"a", 1, b"record", 0)])
    key = store.key(0, b"a")
    with redis.client() as operator:
        assert EXPIRE_MS - 60_000 < operator.pttl(key) <= EXPIRE_MS
        operator.pexpire(key, 5_000)
        store.save(0, [Row(b"a", 1, b"record", 0)])
        assert operator.pttl(key) <= 5_000
        store.save(0, [Row(b"a", 2, b"record", 0)])
        assert operator.pttl(key) > EXPIRE_MS - 60_000
        store.advance(0, store.watermark(0), 5)
        assert operator.pttl(watermark_key(store)) == -1
        operator.pexpireat(key, 1)
    assert store.load(0, [b"a"]).records == [None]


def test_without_expiry_users_are_kept_for_ever(redis: RedisServer, namespace: Namespace) -> None:
    store = opened(redis, namespace, expire_after_ms=None)
    store.begin(0, 0)
    store.save(0, [Row(b"a", 1, b"record", 0)])
    with redis.client() as operator:
        assert operator.pttl(store.key(0, b"a")) == -1
    store.close()


def test_a_key_that_holds_no_record_is_damage_that_names_it(redis: RedisServer, store: RedisStore) -> None:
    store.begin(0, 0)
    store.save(0, [Row(b"fine", 1, b"record", 0)])
    with redis.client() as operator:
        operator.rpush(store.key(0, b"list"), "x")
        operator.set(store.key(0, b"short"), "1234567")
        operator.set(store.key(0, b"empty"), "")
    for user in (b"list", b"short", b"empty"):
        with pytest.raises(DamagedRecord) as damaged:
            store.load(0, [b"fine", b"nobody", user])
        assert damaged.value.key == store.key(0, user)
    for user in (b"list", b"short"):
        with pytest.raises(DamagedRecord) as damaged:
            store.save(0, [Row(b"fine", 2, b"record", 0), Row(user, 2, b"record", 0)])
        assert damaged.value.key == store.key(0, user)
    assert store.load(0, [b"fine"]).records == [b"record"]


def test_a_bit_flipped_in_the_offset_before_a_record_is_damage_that_names_it(
    redis: RedisServer, store: RedisStore
) -> None:
    windows = Windows(StateSpec(), default_feature_set())
    windows.add([b"a"], [None])
    one = np.ones(1, np.int64)
    events = Events(one, one, one.astype(np.uint64), one, one.astype(np.uint16), np.ones((1, 3), np.uint64))
    windows.replay(windows.find([b"a"]), events)
    (record,) = windows.changed(1).records
    store.begin(0, 0)
    store.save(0, [Row(b"a", 1, record, 0)])
    assert store.load(0, [b"a"]).records == [record]
    with redis.client() as operator:
        for byte in range(8):
            stored = bytearray(operator.get(store.key(0, b"a")))
            stored[byte] ^= 1
            operator.set(store.key(0, b"a"), bytes(stored))
            with pytest.raises(DamagedRecord) as damaged:
                store.load(0, [b"a"])
            assert damaged.value.key == store.key(0, b"a")
            stored[byte] ^= 1
            operator.set(store.key(0, b"a"), bytes(stored))


def test_a_key_that_holds_no_watermark_is_damage_that_names_it(redis: RedisServer, store: RedisStore) -> None:
    store.begin(0, 0)
    with redis.client() as operator:
        for value in ("", "1 2", "x token 3", "1 token 3 4"):
            operator.set(watermark_key(store), value)
            with pytest.raises(DamagedRecord, match="is not a watermark"):
                store.watermark(0)
        operator.delete(watermark_key(store))
        operator.rpush(watermark_key(store), "x")
    with pytest.raises(DamagedRecord) as damaged:
        store.watermark(0)
    assert damaged.value.key == watermark_key(store).decode()


def test_keys_stand_under_the_prefix_in_one_slot_for_each_partition(
    redis_cluster: RedisServer, namespace: Namespace
) -> None:
    store = opened(redis_cluster, namespace, cluster=True, prefix="bank:fraud")
    store.begin(0, 0)
    users = [b"{a}", b"}", b"b", "名前".encode()]
    store.save(0, [Row(user, 1, b"record", 0) for user in users])
    with redis_cluster.client() as operator:
        found = set(operator.scan_iter(match="bank:fraud:*", count=1000))
        slots = {operator.execute_command("CLUSTER KEYSLOT", key) for key in found if b"namespaces" not in key}
    assert {store.key(0, user).encode() for user in users} | {watermark_key(store)} < found
    assert len(found) == len(users) + 2
    assert len(slots) == 1
    store.close()
