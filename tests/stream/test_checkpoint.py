"""What a checkpoint promises, with real windows and stores and a clock that only the test moves.

Users first, W last; a slice that failed is written again as it is; only acknowledged users may leave memory; and from
whatever a store holds at whatever moment, replay from W gives back the state.
"""

import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import stream.checkpoint
from clock import Clock
from state.errors import StoreUnavailable
from state.events import Events
from state.features import StateSpec, default_feature_set
from state.memory_store import MemoryBacking, MemoryStore
from state.store import Row, wall_clock_ms
from state.windows import Windows
from store_backends import Backend, Memory, Redis, Sqlite, new_namespace
from stream.breaker import Breaker
from stream.checkpoint import Checkpointer
from stream.observer import Observer
from stream.partition import Partition, Phase

SPEC, FEATURES = StateSpec(), default_feature_set()
INTERVAL_SECS = 10
DAY_MS = 86_400_000
DEADLINE_SECS = 20


def log_of(count: int, users: int, seed: int = 1) -> list[tuple[bytes, int]]:
    """(user, event time) by offset; some out of order."""
    rng = random.Random(seed)
    return [
        (b"u-%d" % int(users ** rng.random()), 1_750_000_000_000 + 1000 * n - rng.choice([0, 0, 0, 90_000]))
        for n in range(count)
    ]


def observe(windows: Windows, log: list[tuple[bytes, int]], start: int, stop: int, load) -> None:
    """Apply [start, stop) as the line does: unknown users are loaded first, with one read."""
    users = [user for user, _ in log[start:stop]]
    unknown = [user for user in dict.fromkeys(users) if windows.find([user])[0] < 0]
    if unknown:
        windows.add(unknown, load(unknown))
    offsets = np.arange(start, stop, dtype=np.int64)
    events = Events(
        np.array([time for _, time in log[start:stop]], np.int64),
        offsets,
        (offsets + 1).astype(np.uint64),
        offsets % 97,
        np.ones(stop - start, np.uint16),
        np.tile(np.arange(1, 1 + len(SPEC.fields), dtype=np.uint64), (stop - start, 1)),  # no two fields share a hash
    )
    windows.replay(windows.find(users), events)


def state_of(windows: Windows, users) -> dict[bytes, tuple]:
    found = {user: windows.events_of(user) for user in sorted(users)}
    return {u: (r.applied_offset, r.floor_ms, r.time_ms.tolist(), r.transaction.tolist()) for u, r in found.items()}


def undisturbed(log, stop: int) -> dict[bytes, tuple]:
    windows = Windows(SPEC, FEATURES)
    observe(windows, log, 0, stop, lambda users: [None] * len(users))
    return state_of(windows, {user for user, _ in log[:stop]})


def recovered(store, log, committed: int) -> dict[bytes, tuple]:
    """What a worker that starts now comes to: W from the store, [W, C) replayed, the rest loaded."""
    windows, users = Windows(SPEC, FEATURES), {user for user, _ in log[:committed]}
    watermark = store.watermark(0)
    assert watermark is not None
    assert watermark.offset <= committed

    def load(users):
        return store.load(0, users).records

    if watermark.offset < committed:
        observe(windows, log, watermark.offset, committed, load)
    rest = [user for user in users if windows.find([user])[0] < 0]
    windows.add(rest, load(rest))
    return state_of(windows, users)


class Bench:
    """One partition and its checkpointer, driven by hand as the worker's loop drives them."""

    def __init__(self, store, log, now_ms=wall_clock_ms) -> None:
        self.store, self.log, self.clock = store, log, Clock(0.0)
        self.breaker = Breaker(self.clock, Observer(), random.Random(1))
        self.checkpointer = Checkpointer(
            store, Observer(), self.breaker, self.clock, interval_secs=INTERVAL_SECS, now_ms=now_ms
        )
        self.partition = Partition(0, Windows(SPEC, FEATURES), Phase.LIVE, watermark=store.begin(0, 0))

    def feed(self, count: int) -> None:
        """Process records and have them committed."""
        position = self.partition.position
        observe(self.partition.windows, self.log, position, position + count, lambda us: self.store.load(0, us).records)
        self.partition.advance(position + count, Observer())

    def checkpoint(self) -> list[Partition]:
        self.checkpointer.begin([self.partition])
        return self.checkpointer.wait(DEADLINE_SECS)

    @property
    def stored(self) -> int:
        watermark = self.store.watermark(0)
        assert watermark is not None
        return watermark.offset


class Troubled(MemoryStore):
    """A store whose writes can be told to fail or to wait, and that remembers what was asked of it in which order."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[tuple] = []
        self.fails = lambda call: ""
        self.gate = threading.Event()
        self.gate.set()

    def save(self, partition, rows):
        assert self.gate.wait(DEADLINE_SECS)
        self._asked(
            "save", [(row.user, row.applied) for row in rows], lambda: super(Troubled, self).save(partition, rows)
        )

    def advance(self, partition, known, offset):
        return self._asked("advance", offset, lambda: super(Troubled, self).advance(partition, known, offset))

    def _asked(self, call, what, then):
        self.calls.append((call, what))
        when = self.fails(call)
        if when == "before":
            raise StoreUnavailable("it is down")
        result = then()
        if when == "after":
            raise StoreUnavailable("its answer was lost")
        return result


@pytest.fixture
def troubled() -> Iterator[Troubled]:
    store = Troubled(new_namespace())
    store.open()
    yield store
    store.gate.set()


@pytest.fixture
def bench(troubled: Troubled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """2,000 records of 50 users; a slice holds four."""
    monkeypatch.setattr(stream.checkpoint, "SLICE_USERS", 4)
    bench = Bench(troubled, log_of(2_000, 50))
    yield bench
    troubled.gate.set()
    bench.checkpointer.close()


def test_w_is_written_after_the_users_it_vouches_for(bench: Bench, troubled: Troubled):
    bench.feed(100)
    troubled.fails = lambda call: "before" if call == "save" else ""

    bench.checkpoint()

    assert [call for call, _ in troubled.calls] == ["save"]
    assert bench.stored == 0


def test_users_are_written_oldest_change_first_and_w_follows_slice_by_slice(bench: Bench, troubled: Troubled):
    bench.feed(100)
    first_change = {user: offset for offset, (user, _) in reversed(list(enumerate(bench.log[:100])))}
    while bench.partition.behind:
        bench.checkpoint()

    written = [user for call, rows in troubled.calls if call == "save" for user, _ in rows]
    assert written == sorted(first_change, key=lambda user: first_change[user])
    ends = [offset for call, offset in troubled.calls if call == "advance"]
    assert ends == [first_change[user] for user in written[4::4]] + [100]


def test_a_checkpoint_with_slices_left_wants_the_next_boundary_at_once(bench: Bench):
    bench.feed(100)
    assert not bench.checkpointer.due()
    bench.clock.now += INTERVAL_SECS

    turns = 0
    while bench.checkpointer.due():
        bench.checkpoint()
        turns += 1

    assert turns == -(-len({user for user, _ in bench.log[:100]}) // 4)
    assert bench.stored == 100
    bench.clock.now += INTERVAL_SECS - 1
    assert not bench.checkpointer.due()
    bench.clock.now += 1
    assert bench.checkpointer.due()


def test_a_gentle_checkpoint_reaches_all_partitions_with_a_few_users_a_boundary(bench: Bench, monkeypatch):
    monkeypatch.setattr(stream.checkpoint, "GENTLY_USERS", 3)
    monkeypatch.setattr(stream.checkpoint, "SLICE_USERS", 4096)
    other = Partition(1, Windows(SPEC, FEATURES), Phase.LIVE, watermark=bench.store.begin(1, 0))
    both, copied = [bench.partition, other], []
    for partition in both:
        observe(partition.windows, bench.log, 0, 100, lambda users: [None] * len(users))
        partition.advance(100, Observer())
    changed = sum(partition.windows.changed_users for partition in both)
    bench.clock.now += INTERVAL_SECS

    while bench.checkpointer.due():
        bench.checkpointer.begin(both, gently=True)
        copied.append([len(p.unwritten.snapshot.users) for p in both if p.unwritten is not None])
        bench.checkpointer.wait(DEADLINE_SECS)

    assert max(map(sum, copied)) == max(3, changed // stream.checkpoint.GENTLY_SHARE) < changed
    assert sum(map(sum, copied)) == changed
    assert [partition.watermark.offset for partition in both] == [100, 100]


def test_a_partition_that_was_given_away_in_mid_checkpoint_asks_for_no_boundary(bench: Bench, monkeypatch):
    monkeypatch.setattr(stream.checkpoint, "GENTLY_USERS", 3)
    bench.feed(100)
    bench.clock.now += INTERVAL_SECS
    bench.checkpointer.begin([bench.partition], gently=True)
    bench.checkpointer.wait(DEADLINE_SECS)
    assert bench.checkpointer.due()
    bench.checkpointer.begin([], gently=True)
    assert not bench.checkpointer.due()


def test_nothing_new_is_copied_while_a_write_is_under_way(bench: Bench, troubled: Troubled):
    bench.feed(100)
    bench.clock.now += INTERVAL_SECS
    troubled.gate.clear()
    bench.checkpointer.begin([bench.partition])

    assert not bench.checkpointer.due()
    troubled.gate.set()
    bench.checkpointer.wait(DEADLINE_SECS)
    assert bench.checkpointer.due()


def test_a_slice_that_failed_is_written_again_as_it_is(bench: Bench, troubled: Troubled):
    """Its users have changed meanwhile; what was copied is still right, and W still is the one of the copy."""
    bench.feed(30)
    troubled.fails = lambda call: "before" if call == "save" else ""
    bench.checkpoint()
    bench.feed(70)
    troubled.fails = lambda call: ""
    bench.checkpoint()

    first, again, advanced = troubled.calls
    assert first == again
    assert advanced[1] <= 30
    assert recovered(troubled, bench.log, 100) == undisturbed(bench.log, 100)


def test_users_leave_memory_only_once_they_are_acknowledged(bench: Bench, troubled: Troubled):
    windows = bench.partition.windows
    bench.feed(100)
    held = windows.users
    assert windows.evict(0) == 0  # changed

    troubled.gate.clear()
    bench.checkpointer.begin([bench.partition])
    assert windows.evict(0) == 0  # copied, not acknowledged
    troubled.gate.set()
    troubled.fails = lambda call: "before"
    bench.checkpointer.wait(DEADLINE_SECS)
    assert windows.evict(0) == 0  # refused

    troubled.fails = lambda call: ""
    bench.checkpoint()
    assert windows.evict(0) == 4
    assert windows.users == held - 4


def test_a_user_that_changed_after_the_copy_stays(bench: Bench, troubled: Troubled):
    bench.feed(100)
    troubled.gate.clear()
    bench.checkpointer.begin([bench.partition])
    assert bench.partition.unwritten is not None
    copied = set(bench.partition.unwritten.snapshot.users)
    bench.feed(100)
    changed = copied & {user for user, _ in bench.log[100:200]}
    troubled.gate.set()
    bench.checkpointer.wait(DEADLINE_SECS)

    assert changed
    bench.partition.windows.evict(0)
    assert (bench.partition.windows.find(sorted(changed)) >= 0).all()


def test_a_failing_store_is_left_alone_until_the_pause_is_over(bench: Bench, troubled: Troubled):
    bench.feed(10)
    bench.clock.now += INTERVAL_SECS
    troubled.fails = lambda call: "before"
    bench.checkpoint()

    assert not bench.checkpointer.due()
    bench.clock.now += 1
    assert bench.checkpointer.due()  # at once, not at the next interval


def test_an_idle_partitions_w_follows_its_position(bench: Bench, troubled: Troubled):
    """Records that change no user, such as dead letters, are vouched for like all others."""
    bench.feed(10)
    bench.checkpointer.complete([bench.partition], DEADLINE_SECS)
    bench.partition.advance(500, Observer())
    troubled.calls.clear()

    bench.checkpoint()

    assert troubled.calls == [("advance", 500)]
    assert bench.stored == 500


def test_a_quiet_partition_is_renewed_daily_and_no_user_that_a_window_reaches_expires(tmp_path):
    """Five payments a day for a month, nothing for seven weeks, then five a day again; each stored on its day.

    day   0 ........ 29              81 ..... 85
          payments      W is renewed   payments
    """
    start_ms = 1_750_000_000_000
    days = [*range(30), *range(81, 86)]
    log = [(b"u-%d" % (5 * day % 40 + n), start_ms + day * DAY_MS) for day in days for n in range(5)]
    at = [start_ms]
    backend = Sqlite(tmp_path)
    store = backend.open(new_namespace(), expire_after_ms=SPEC.retention_ms + 7 * DAY_MS, now_ms=lambda: at[0])
    bench = Bench(store, log, lambda: at[0])
    store.begin(1, 0)
    for day in range(86):
        at[0] = start_ms + day * DAY_MS
        if day in days:
            bench.feed(5)
        bench.checkpoint()
        bench.partition.windows.evict(0)
        store.save(1, [Row(b"another", day, b"", at[0])])  # which sweeps the file
        assert store.watermark(0).written_at_ms == at[0]

    assert store.load(0, [b"u-30"]).records == [None]  # expired, having paid in the first month alone
    found, wanted = recovered(store, log, len(log)), undisturbed(log, len(log))
    for user in {user for user, _ in log[-25:]}:
        assert found[user][2:] == wanted[user][2:]
    backend.close()
    bench.checkpointer.close()


def test_a_partition_that_waits_for_the_store_is_not_stored(bench: Bench, troubled: Troubled):
    bench.feed(10)
    bench.partition.phase = Phase.WAITING

    bench.checkpoint()

    assert troubled.calls == []


def test_completing_stores_every_slice(bench: Bench, troubled: Troubled):
    bench.feed(700)

    assert bench.checkpointer.complete([bench.partition], DEADLINE_SECS)
    assert bench.stored == 700
    assert not bench.partition.behind


def test_completing_gives_up_when_the_store_does(bench: Bench, troubled: Troubled):
    bench.feed(700)
    troubled.fails = lambda call: "before" if len(troubled.calls) > 5 else ""

    assert not bench.checkpointer.complete([bench.partition], DEADLINE_SECS)
    assert 0 < bench.stored < 700


def test_completing_tries_a_store_that_failed_before(bench: Bench, troubled: Troubled):
    bench.feed(10)
    troubled.fails = lambda call: "before"
    bench.checkpoint()
    troubled.fails = lambda call: ""
    bench.clock.now += 1

    assert bench.checkpointer.complete([bench.partition], DEADLINE_SECS)
    assert bench.stored == 10


def test_a_store_begun_anew_meanwhile_is_reported(bench: Bench, troubled: Troubled):
    bench.feed(10)
    troubled.begin(0, 0)

    assert bench.checkpoint() == [bench.partition]


def test_what_was_dropped_meanwhile_is_not_acknowledged_in_its_place(bench: Bench, troubled: Troubled):
    """The partition was recovered while its slice was being written: other windows, other users."""
    bench.feed(10)
    troubled.gate.clear()
    bench.checkpointer.begin([bench.partition])
    bench.partition.windows, bench.partition.unwritten = Windows(SPEC, FEATURES), None
    bench.partition.position = 5
    troubled.gate.set()

    assert bench.checkpointer.wait(DEADLINE_SECS) == []
    assert bench.partition.watermark is not None
    assert bench.partition.watermark.offset == 0


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def backend(request: pytest.FixtureRequest, tmp_path) -> Iterator[Backend]:
    match request.param:
        case "memory":
            found: Backend = Memory()
        case "sqlite":
            found = Sqlite(tmp_path)
        case _:
            found = Redis(request.getfixturevalue("redis"), cluster=False)
    yield found
    found.close()


def test_a_late_write_of_a_former_owner_changes_nothing(backend: Backend):
    """It copied at 100 and was suspended; another owner went on to 200 and stored; then it writes users and W."""
    namespace, log = new_namespace(), log_of(300, 20)
    former = Bench(backend.open(namespace), log)
    former.feed(100)
    late = stream.checkpoint._copy(former.partition, 4096)

    owner = backend.open(namespace)
    partition = Partition(0, Windows(SPEC, FEATURES), Phase.LIVE, position=0, watermark=owner.watermark(0))
    observe(partition.windows, log, 0, 200, lambda users: owner.load(0, users).records)
    partition.position = 200
    checkpointer = Checkpointer(owner, Observer(), former.breaker, former.clock, interval_secs=INTERVAL_SECS)
    assert checkpointer.complete([partition], DEADLINE_SECS)

    former.partition.unwritten = late
    assert former.checkpoint() == []

    assert former.stored == 200
    assert recovered(owner, log, 200) == undisturbed(log, 200)
    partition.windows = Windows(SPEC, FEATURES)
    observe(partition.windows, log, 200, 300, lambda users: owner.load(0, users).records)
    partition.position = 300
    assert checkpointer.complete([partition], DEADLINE_SECS)
    assert recovered(owner, log, 300) == undisturbed(log, 300)
    checkpointer.close()
    former.checkpointer.close()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_and_whenever_replay_from_w_gives_back_the_state(seed: int, monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(seed)
    monkeypatch.setattr(stream.checkpoint, "SLICE_USERS", rng.choice([1, 3, 8]))
    backing, namespace, log = MemoryBacking(), new_namespace(), log_of(600, 40, seed)
    store = Troubled(namespace, backing)
    store.open()
    store.fails = lambda call: rng.choice(["", "", "before", "after"])
    bench, reader = Bench(store, log), MemoryStore(namespace, backing)
    reader.open()
    while bench.partition.position < len(log):
        bench.feed(min(rng.randrange(1, 30), len(log) - bench.partition.position))
        bench.clock.now += rng.choice([0.1, 1, 10])
        if bench.checkpointer.due():
            bench.checkpointer.begin([bench.partition])
        if rng.random() < 0.7:
            bench.checkpointer.wait(DEADLINE_SECS)
        if rng.random() < 0.3:
            bench.partition.windows.evict(0)
        if rng.random() < 0.3:
            bench.checkpointer.wait(DEADLINE_SECS)  # or W rises between the reader's two reads
            committed = bench.partition.position
            assert recovered(reader, log, committed) == undisturbed(log, committed)
    bench.checkpointer.close()
