"""What users cost and where they go: snapshots, eviction, growth, sweeping, and the kernels' own cache."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import state.windows
from oracle import Payment
from state import kernel_blocks, kernel_observe, kernel_records, kernel_users
from state.events import Events
from state.features import DAY_MS, StateSpec, default_feature_set
from state.windows import Windows, warm
from streams import Pair, feature_set, observe

SPEC = StateSpec(fields=("merchant_id", "country"), retention_ms=70_000)
FEATURES = feature_set("5s", "60s")
ROOT = Path(__file__).parents[2]


def pay(offset, time=None, values=(1, 11)):
    return Payment(1_000 * offset if time is None else time, offset, offset + 1, 10 + offset, 978, values)


def test_keys_are_compared_byte_for_byte():
    keys = [b"", b"a", b"a\0", b"\0a", b"12345678", b"12345678\0", b"123456789", b"x" * 300, "ü".encode(), b"b"]
    keys += [b"\xff", b"a\xff", b"\xff\xffa"]  # the byte that is put between keys
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    assert windows.find(keys).tolist() == [-1] * len(keys)
    windows.add(keys, [None] * len(keys))
    assert sorted(windows.find(keys).tolist()) == list(range(len(keys)))
    assert windows.find([b"aa", b"\0", b"1234567"]).tolist() == [-1] * 3
    assert windows.find([]).tolist() == []
    with pytest.raises(ValueError, match="the longest is 65535"):
        windows.add([b"x" * 65_536], [None])


def test_a_user_already_in_memory_stays_as_it_is():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    observe(windows, [b"a"], [pay(1)])
    old = windows.changed(1).records[0]
    observe(windows, [b"a"], [pay(2)])
    windows.add([b"a", b"b", b"b"], [old, None, None])
    assert windows.applied_offset(b"a") == 2
    assert windows.applied_offset(b"b") == -1
    assert windows.applied_offsets(windows.find([b"b", b"a"])).tolist() == [-1, 2]
    assert windows.applied_offset(b"c") is None
    assert windows.events_of(b"c") is None
    assert windows.users == 2


def test_changed_users_come_oldest_change_first_with_the_boundary_behind_them():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    observe(windows, [b"a", b"b", b"a", b"c"], [pay(offset) for offset in (3, 5, 7, 9)])
    first = windows.changed(2)
    assert (first.users, first.applied, first.newest_ms) == ([b"a", b"b"], [7, 5], [7_000, 5_000])
    assert first.boundary == 9
    assert windows.changed_users == 1
    observe(windows, [b"a"], [pay(11)])
    second = windows.changed(10)
    assert (second.users, second.applied, second.boundary) == ([b"c", b"a"], [9, 11], None)
    assert windows.changed(10).users == []


def test_only_clean_acknowledged_users_are_evicted():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    observe(windows, [b"a", b"b", b"c"], [pay(offset) for offset in range(3)])
    assert windows.evict(0) == 0
    first = windows.changed(2)
    assert windows.evict(0) == 0
    observe(windows, [b"a"], [pay(4)])
    assert windows.unwritten_bytes > 0
    windows.stored(first)
    assert windows.evict(0) == 1
    assert windows.find([b"a", b"b", b"c"]).tolist()[1] == -1
    second = windows.changed(2)
    third = windows.changed(2)
    windows.stored(third)
    assert windows.evict(0) == 0
    windows.stored(second)
    assert windows.unwritten_bytes == 0
    assert windows.evict(0) == 2
    assert (windows.users, windows.events) == (0, 0)


def test_the_idle_are_evicted_before_the_busy():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    names = [b"user-%d" % number for number in range(200)]
    observe(windows, names, [pay(offset) for offset in range(200)])
    windows.stored(windows.changed(200))
    windows.evict(windows.bytes - 1)  # the hand goes round once: all have been spared
    busy = [name for name in names[::2] if windows.find([name])[0] >= 0]
    observe(windows, busy, [pay(300 + offset) for offset in range(len(busy))])
    windows.stored(windows.changed(200))
    idle = windows.users - len(busy)
    before = windows.bytes
    windows.evict(before // 2 + windows._index_bytes() // 2)
    assert idle > 0
    assert (windows.find(busy) >= 0).all()


def test_users_whose_payments_all_expired_leave_memory_once_they_are_stored():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    names = [b"user-%d" % number for number in range(3_000)]
    observe(windows, names, [pay(offset, time=offset) for offset in range(3_000)])
    observe(windows, names[:1], [pay(3_000, time=4_000)])
    now = SPEC.retention_ms + 1_999
    assert windows.drop_expired(now) == 0, "not stored yet"
    windows.stored(windows.changed(3_000))
    dropped = 0
    for _ in range(state.windows.LOOKS):
        dropped += windows.drop_expired(now)
    assert dropped == 1_999
    assert windows.users == windows.events - 1 == 1_001
    assert (windows.find(names) >= 0).tolist() == [True, *[False] * 1_999, *[True] * 1_000]


def test_eviction_reaches_its_target_and_gives_the_memory_back():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    names = [b"user-%d" % number for number in range(3_000)]
    observe(windows, names, [pay(offset, time=offset) for offset in range(3_000)])
    windows.stored(windows.changed(3_000))
    target = windows.bytes * 2 // 3
    dropped = windows.evict(target)
    assert 0 < dropped < 3_000
    assert target * 0.9 < windows.bytes <= target
    assert windows.users == 3_000 - dropped == windows.events
    assert windows.evict(target) == 0


class Memory(RuleBasedStateMachine):
    """Users come, change, are stored, evicted and loaded again in any order; the oracle never notices."""

    @initialize(cap=st.sampled_from([2, 7, 4096]))
    def start(self, cap):
        self.pair = Pair(StateSpec(fields=SPEC.fields, retention_ms=60_000, max_events=cap), FEATURES)
        self.store, self.pending, self.offset, self.clock = {}, [], 0, 0

    @rule(users=st.lists(st.integers(0, 40), min_size=1, max_size=20), step=st.integers(0, 8_000), data=st.data())
    def feed(self, users, step, data):
        names, payments = [b"user-%d" % user for user in users], []
        for user in users:
            self.offset += 1
            self.clock += step
            back = data.draw(st.sampled_from([0, 0, 0, 1_000, 30_000]))
            payments.append(pay(self.offset, self.clock - back, (1 + (user + self.offset) % 9, 11 + self.offset % 2)))
        absent = [name for name in dict.fromkeys(names) if self.pair.windows.find([name])[0] < 0]
        self.pair.windows.add(absent, [self.store.get(name) for name in absent])
        self.pair.feed(names, payments)

    @rule(users=st.integers(1, 30))
    def snapshot(self, users):
        snapshot = self.pair.windows.changed(users)
        still = self.pair.windows.changed_users
        assert (snapshot.boundary is None) == (still == 0)
        self.pending.append(snapshot)

    @rule()
    def acknowledge(self):
        if self.pending:
            snapshot = self.pending.pop(0)
            self.store.update(zip(snapshot.users, snapshot.records, strict=True))
            self.pair.windows.stored(snapshot)

    @rule(share=st.sampled_from([0.0, 0.5, 0.9]))
    def evict(self, share):
        self.pair.windows.evict(int(self.pair.windows.bytes * share))

    @rule(ahead=st.integers(-60_000, 60_000))
    def drop_expired(self, ahead):
        self.pair.windows.drop_expired(self.clock + ahead)

    @invariant()
    def nothing_unstored_is_missing(self):
        windows = self.pair.windows
        for name, user in self.pair.oracle.users.items():
            offset = windows.applied_offset(name)
            assert offset == user.applied or (offset is None and name in self.store)
        if windows.changed_users == 0 and not self.pending:
            assert windows.unwritten_bytes == 0


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True)


def test_the_arena_moves_to_a_larger_one_in_the_middle_of_a_batch_and_nothing_is_lost():
    pair = Pair(SPEC, FEATURES)
    reserved = pair.windows._arena.memory.words.nbytes
    rng = np.random.default_rng(5)
    names = [b"user-%d" % number for number in rng.integers(0, 700, 60_000)]
    payments = [pay(offset, time=offset, values=(1 + offset % 500, 600)) for offset in range(60_000)]
    observe(pair.windows, names, payments)
    assert pair.windows._arena.memory.words.nbytes > reserved
    for name in dict.fromkeys(names):
        held = pair.windows.events_of(name).transaction.tolist()
        assert held == [p.transaction for n, p in zip(names, payments, strict=True) if n == name]


def test_dead_space_is_swept_together_while_events_go_on():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    rng = np.random.default_rng(6)
    shares = []
    for batch in range(200):
        names = [b"user-%d" % number for number in rng.zipf(1.3, 100) % 2_000]
        observe(windows, names, [pay(100 * batch + row, time=300 * batch + row) for row in range(100)])
        book = windows._users.book
        shares.append(book[kernel_blocks.DEAD] / book[kernel_blocks.USED])
    assert max(shares[100:]) < 0.3  # a sweep begins at a twentieth, and goes on while events are applied
    windows.stored(windows.changed(5_000))
    windows.evict(0)
    assert windows._users.book[kernel_blocks.USED] == 0


def test_users_and_events_stay_within_their_bytes():
    """At most 400 B a user and 48 B a payment that the retention holds; dead blocks, spare room, the index included."""
    windows = Windows(StateSpec(), default_feature_set(), reserve_bytes=1)
    users, each, days = 1_000, 40, 75
    rng = np.random.default_rng(8)
    names = [b"user-%09d" % number for number in range(users)]
    count = users * each * days // 30
    who = rng.integers(0, users, count)
    times = np.sort(rng.integers(0, days * DAY_MS, count))
    windows.add(names, [None] * users)
    slots, shares = windows.find(names), []
    for first in range(0, count, 500):
        rows = np.arange(first, min(first + 500, count))
        values = np.stack([1 + rng.zipf(1.5, len(rows)) % 100, np.full(len(rows), 500), 600 + rows % 2], axis=1)
        events = Events(
            times[rows],
            rows,
            rows.astype(np.uint64) + 1,
            rng.integers(1, 10**6, len(rows)),
            np.full(len(rows), 978, np.uint16),
            values.astype(np.uint64),
        )
        windows.observe(slots[who[rows]], events)
        newest = np.zeros(users, np.int64)
        np.maximum.at(newest, who[: rows[-1] + 1], times[: rows[-1] + 1])
        held = times[: rows[-1] + 1] > (newest - StateSpec().retention_ms)[who[: rows[-1] + 1]]
        shares.append(windows.bytes / (400 * windows.users + 48 * held.sum()))
    assert np.mean(shares) <= 1.0
    assert max(shares) <= 1.1  # just before a sweep ends
    assert windows.events < count / 2  # the retention has dropped the first payments


def test_users_who_grow_in_step_leave_little_dead_space():
    """Each payment of a round moves its user to a larger block then, and leaves the smaller one behind."""
    for each in (1, 3, 7, 30, 90):
        windows = Windows(StateSpec(), default_feature_set(), reserve_bytes=1)
        names = [b"user-%09d" % number for number in range(4_000)]
        for round_ in range(each):
            for first in range(0, len(names), 500):
                payments = [
                    Payment(60_000 * round_, row, row + 1, 1_000, 978, (1 + round_ % 20, 60, 61))
                    for row in range(len(names) * round_ + first, len(names) * round_ + first + 500)
                ]
                observe(windows, names[first : first + 500], payments)
        bound = 400 * windows.users + 48 * windows.events
        assert windows.bytes <= (1.0 if each == 1 else 1.5) * bound, each


def test_fields_that_meet_in_one_hash_are_forgotten_once():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    for offset in range(6):
        observe(windows, [b"a"], [pay(offset, values=(7, 7))])
    observe(windows, [b"a"], [pay(6, time=10**6, values=(7, 7))])
    assert windows.events == 1


def test_the_kernel_for_one_feature_set_computes_what_the_general_one_does(monkeypatch):
    """One has its plan's numbers as constants; both must leave the same bits, the state's included."""
    spec, features = StateSpec(), default_feature_set()
    warm(spec, features)
    special = Windows(spec, features, reserve_bytes=1)
    monkeypatch.setattr(state.windows, "_observers", {})
    general = Windows(spec, features, reserve_bytes=1)
    assert special._observe is not general._observe
    rng = np.random.default_rng(9)
    for batch in range(60):
        rows = range(200 * batch, 200 * batch + 200)
        names = [b"user-%d" % number for number in rng.zipf(1.4, len(rows)) % 40]
        payments = [
            Payment(
                (400 * row - int(rng.choice([0, 0, 0, 0, 200, 2_000, 360_000]))) * 1_000,  # 55 days
                row,
                int(rng.choice([row, row, row, max(0, row - 7)])) + 1,
                int(rng.integers(-(10**9), 10**9)),
                978,
                (int(rng.integers(0, 9)), int(rng.choice([0, 11, 12, 13])), int(rng.choice([0, 21, 22]))),
            )
            for row in rows
        ]
        (found, flags), (expected, expected_flags) = (observe(w, names, payments) for w in (special, general))
        assert found.tobytes() == expected.tobytes()
        assert flags.tolist() == expected_flags.tolist()
    assert special.changed(100).records == general.changed(100).records
    assert set(flags.tolist()) > {0}


def test_each_kernel_is_compiled_for_one_signature():
    warm()
    pair = Pair(SPEC, FEATURES)
    pair.feed([b"a"] * 3, [pay(2), pay(1), pay(3)])
    for module in (kernel_blocks, kernel_observe, kernel_records, kernel_users):
        for name, kernel in vars(module).items():
            if hasattr(kernel, "stats") and kernel.stats.cache_path and kernel.__module__ == module.__name__:
                assert len(kernel.signatures) == 1, name


def test_kernels_are_cached_and_a_change_of_any_kernel_file_recompiles_them(tmp_path):
    """Numba looks only at the file of the function itself; a stale cache would compute stale state."""
    script = (
        "from state import kernel_users; from state.features import *; from state.windows import Windows;"
        "Windows(StateSpec(), default_feature_set()).find([b'a']);"
        "print(sum(kernel_users.find.stats.cache_hits.values()))"
    )
    package = tmp_path / "state"
    package.mkdir()
    for source in (ROOT / "state").iterdir():
        if source.is_file():
            (package / source.name).write_bytes(source.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def hits():
        run = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert hits() == 0
    assert hits() == 1
    stacks = package / "kernel_stacks.py"
    stacks.write_text(stacks.read_text() + "\n# changed\n")
    assert hits() == 0
