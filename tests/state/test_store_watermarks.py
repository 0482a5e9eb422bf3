"""The conformance suite, continued: watermarks, tokens, and stores that were wiped, put back or begun anew."""

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from state.errors import StoreRolledBack
from state.store import LastSeen, Namespace, Row, Watermark
from store_backends import Backend


def row(user: bytes, applied: int, record: bytes | None = None) -> Row:
    return Row(user, applied, record if record is not None else b"%s at %d" % (user, applied), applied)


def test_a_partition_never_begun_has_no_watermark_and_gives_nothing(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    assert store.watermark(3) is None
    with pytest.raises(StoreRolledBack, match="never begun"):
        store.load(3, [b"a"])
    with pytest.raises(StoreRolledBack, match="never begun"):
        store.save(3, [row(b"a", 1)])
    with pytest.raises(StoreRolledBack):
        store.advance(3, Watermark(0, "token"), 1)


def test_a_store_finds_its_partition_by_itself(backend: Backend, namespace: Namespace) -> None:
    began = backend.open(namespace).begin(0, 3)
    backend.open(namespace).save(0, [row(b"a", 1)])
    assert backend.open(namespace).load(0, [b"a"]) == ([b"a at 1"], began)


def test_w_only_rises(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    known = store.begin(0, 10)
    for offset, expected in [(15, 15), (12, 15), (15, 15), ((1 << 53) + 1, (1 << 53) + 1), (20, (1 << 53) + 1)]:
        known = store.advance(0, known, offset)
        assert known.offset == expected
        assert store.watermark(0) == known == store.load(0, []).watermark


def test_w_may_have_been_advanced_by_a_former_owner(backend: Backend, namespace: Namespace) -> None:
    former, owner = backend.open(namespace), backend.open(namespace)
    began = former.begin(0, 10)
    known = owner.watermark(0)
    assert known == began
    former.advance(0, began, 30)
    assert owner.advance(0, known, 20).offset == 30
    assert former.advance(0, began, 25).offset == 30


def test_advances_of_two_owners_at_once_leave_the_highest(backend: Backend, namespace: Namespace) -> None:
    stores = [backend.open(namespace), backend.open(namespace)]
    began = stores[0].begin(0, 0)
    offsets = [random.Random(seed).choices(range(1, 1000), k=60) for seed in (1, 2)]

    def advance(number: int) -> None:
        known = began
        for offset in offsets[number]:
            advanced = stores[number].advance(0, known, offset)
            assert advanced.offset >= max(known.offset, offset)
            known = advanced

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(advance, number) for number in (0, 1)]:
            done.result(60)
    assert stores[0].load(0, []).watermark.offset == max(*offsets[0], *offsets[1])


def test_what_was_seen_is_lowered_by_a_new_start_only() -> None:
    seen = LastSeen()
    first, higher, anew = Watermark(5, "one"), Watermark(9, "one"), Watermark(2, "two")
    seen.rise(0, first)
    seen.rise(0, higher)
    seen.rise(0, first)
    seen.rise(0, anew)
    assert seen.get(0) == higher
    seen.put(0, anew)
    assert seen.get(0) == anew
    seen.put(0, None)
    assert seen.get(0) is None


def test_each_advance_renews_the_time_written(backend: Backend, namespace: Namespace) -> None:
    clock = itertools.count(1_000, 500)
    store = backend.open(namespace, now_ms=lambda: next(clock))
    began = store.begin(0, 10)
    assert began.written_at_ms == 1_000
    assert store.advance(0, began, 10).written_at_ms == 1_500
    read = store.watermark(0)
    assert read is not None
    assert read.written_at_ms == 1_500


def test_begin_forgets_the_partitions_users_and_draws_a_new_token(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    first = store.begin(0, 100)
    store.save(0, [row(b"a", 150)])
    store.advance(0, first, 200)
    second = store.begin(0, 40)
    assert second.token != first.token
    assert store.load(0, [b"a"]) == ([None], second)
    store.save(0, [row(b"a", 45)])
    assert store.load(0, [b"a"]).records == [b"a at 45"]
    with pytest.raises(StoreRolledBack, match="began it anew"):
        store.advance(0, first, 300)
    assert store.watermark(0) == second


def test_who_holds_a_former_token_can_neither_read_nor_write(backend: Backend, namespace: Namespace) -> None:
    former, owner = backend.open(namespace), backend.open(namespace)
    stale = former.begin(0, 100)
    began = owner.begin(0, 0)
    with pytest.raises(StoreRolledBack, match="began it anew"):
        former.save(0, [row(b"a", 150)])
    with pytest.raises(StoreRolledBack, match="began it anew"):
        former.load(0, [b"a"])
    with pytest.raises(StoreRolledBack, match="began it anew"):
        former.advance(0, stale, 150)
    assert owner.load(0, [b"a"]) == ([None], began)
    assert former.watermark(0) == began
    former.save(0, [row(b"a", 150)])
    assert owner.load(0, [b"a"]).records == [b"a at 150"]


def test_a_wiped_store_is_noticed_by_every_call(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    known = store.advance(0, store.begin(0, 10), 20)
    store.save(0, [row(b"a", 19)])
    backend.wipe()
    with pytest.raises(StoreRolledBack, match=r"W = 20 was written and is gone"):
        store.load(0, [b"a"])
    with pytest.raises(StoreRolledBack, match=r"W = 20 was written and is gone"):
        store.save(0, [row(b"a", 25)])
    with pytest.raises(StoreRolledBack, match=r"W = 20 was written and is gone"):
        store.advance(0, known, 30)
    assert store.watermark(0) is None
    assert store.registered() == []
    store.begin(0, 0)
    assert store.load(0, [b"a"]).records == [None]


def test_a_store_put_back_to_an_older_state_is_noticed_by_every_call(backend: Backend, namespace: Namespace) -> None:
    store = backend.open(namespace)
    began = store.begin(0, 10)
    store.save(0, [row(b"a", 12)])
    old = store.advance(0, began, 15)
    snapshot = backend.snapshot()
    store.save(0, [row(b"a", 18), row(b"b", 19)])
    known = store.advance(0, old, 20)
    backend.restore(snapshot)
    with pytest.raises(StoreRolledBack, match="was 20 and is 15 now"):
        store.load(0, [b"a"])
    with pytest.raises(StoreRolledBack, match="was 20 and is 15 now"):
        store.save(0, [row(b"c", 12)])
    with pytest.raises(StoreRolledBack, match="was 20 and is 15 now"):
        store.advance(0, known, 30)
    assert store.watermark(0) == old
    assert store.load(0, [b"a", b"b"]) == ([b"a at 12", None], old)
    assert store.advance(0, old, 21).offset == 21


def test_w_never_vouches_for_more_than_was_read_beside_it(backend: Backend, namespace: Namespace) -> None:
    """One thread saves all users at step n, then sets W to n + 1; what another loads is no older than W says."""
    store = backend.open(namespace)
    began = store.begin(0, 0)
    users = [b"user-%d" % number for number in range(50)]
    done = threading.Event()

    def write() -> int:
        known = began
        for step in range(200):
            store.save(0, [row(user, step, b"%d" % step) for user in users])
            known = store.advance(0, known, step + 1)
        done.set()
        return known.offset

    def read() -> int:
        loads = 0
        while not done.is_set():
            records, watermark = store.load(0, users)
            if watermark.offset:
                assert min(int(record or -1) for record in records) >= watermark.offset - 1
            loads += 1
        return loads

    with ThreadPoolExecutor(2) as pool:
        reader, writer = pool.submit(read), pool.submit(write)
        try:
            assert writer.result(60) == 200
        finally:
            done.set()
        assert reader.result(60) > 0
