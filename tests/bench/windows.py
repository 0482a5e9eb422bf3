"""Benchmark of the windows alone: `python tests/bench/windows.py`.

A stream of payments whose users follow Zipf's law, some 40 payments a user in 30 days, is replayed until the horizon
is full; then batches are timed one by one while as many payments expire as arrive. Inside the run the features of a
sample of users are compared with the naive recomputation, bit for bit.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "state"))
from oracle import Oracle, Payment
from state.events import Events
from state.features import DAY_MS, StateSpec, default_feature_set, parse_feature_set
from state.windows import Windows, warm

BATCH = 2048
PAYMENTS_A_USER = 40  # in 30 days, on average
ZIPF = 0.8
SAMPLE_USERS = 12
START_MS = 1_700_000_000_000


@dataclass
class Stream:
    keys: np.ndarray  # object[n]: the user's key of each payment
    events: Events
    warm_rows: int

    def rows(self, first, end):
        return self.keys[first:end].tolist(), self.events[first:end]


def make_stream(users, timed, seed=7):
    """Payments of so many users: the horizon of 31 days and an eighth of it more, then `timed` payments."""
    rng = np.random.default_rng(seed)
    warm_rows = users * PAYMENTS_A_USER * 35 // 30 // BATCH * BATCH
    n = warm_rows + timed
    weights = 1.0 / np.arange(1, users + 1) ** ZIPF
    user = rng.choice(users, n, p=weights / weights.sum())
    gap_ms = 30 * DAY_MS / (users * PAYMENTS_A_USER)
    times = START_MS + np.cumsum(rng.exponential(gap_ms, n)).astype(np.int64)
    habit = (rng.pareto(1.2, n) * 2).astype(np.uint64)  # a few merchants often, many once
    merchant = mix(user.astype(np.uint64) * np.uint64(1 << 20) + habit)
    country = np.where(rng.random(n) < 0.97, user % 40, rng.integers(0, 60, n)).astype(np.uint64)
    device = user.astype(np.uint64) * np.uint64(4) + (rng.random(n) < 0.1)
    fields = np.stack([merchant, mix(country + np.uint64(1 << 60)), mix(device + np.uint64(1 << 61))], axis=1)
    fields[rng.random(n) < 0.05, 2] = 0
    names = np.array([f"user-{number:09d}".encode() for number in range(users)], object)
    return Stream(
        names[user],
        Events(
            times,
            np.arange(n, dtype=np.int64),
            mix(np.arange(n, dtype=np.uint64)),
            rng.lognormal(8, 1, n).astype(np.int64),
            np.full(n, 978, np.uint16),
            np.ascontiguousarray(fields),
        ),
        warm_rows,
    )


def mix(numbers):
    """Spread numbers over 64 bits, one to one (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))


def fill(windows, stream):
    """Replay the stream up to the rows to be timed."""
    for first in range(0, stream.warm_rows, 32 * BATCH):
        keys, events = stream.rows(first, min(first + 32 * BATCH, stream.warm_rows))
        slots = windows.find(keys)
        if (slots < 0).any():
            unknown = list(dict.fromkeys(key for key, slot in zip(keys, slots, strict=True) if slot < 0))
            windows.add(unknown, [None] * len(unknown))
            slots = windows.find(keys)
        windows.replay(slots, events)


def run(windows, stream):
    """Time the rest of the stream batch by batch; return the median ns an event of kernel and look-up, and features."""
    end = len(stream.keys)
    absent = set(stream.keys[stream.warm_rows :]) - set(stream.keys[: stream.warm_rows])
    windows.add(sorted(absent), [None] * len(absent))
    kernel, look_up = [], []
    features = np.empty((end - stream.warm_rows, len(windows.feature_set.features)), np.float32)
    for first in range(stream.warm_rows, end, BATCH):
        keys, events = stream.rows(first, first + BATCH)
        # New objects and arrays just written, as from a consumer and a decoder.
        keys = [bytes(bytearray(key)) for key in keys]
        events = Events(*(getattr(events, column).copy() for column in Events.__slots__))
        start = time.perf_counter_ns()
        slots = windows.find(keys)
        found = time.perf_counter_ns()
        rows, _ = windows.observe(slots, events)
        done = time.perf_counter_ns()
        look_up.append((found - start) / len(keys))
        kernel.append((done - found) / len(keys))
        features[first - stream.warm_rows : first - stream.warm_rows + BATCH] = rows
    return float(np.median(kernel)), float(np.median(look_up)), features


def live(stream, spec):
    """How many payments the retention holds: those it has let go may still lie in memory, but are not counted."""
    names, user = np.unique(stream.keys.astype("S"), return_inverse=True)
    newest = np.zeros(len(names), np.int64)
    np.maximum.at(newest, user, stream.events.time_ms)
    return int((stream.events.time_ms > newest[user] - spec.retention_ms).sum())


def check(stream, spec, feature_set, features):
    """Compare the features of some users with the naive recomputation."""
    timed_keys = stream.keys[stream.warm_rows :]
    names, counts = np.unique(timed_keys, return_counts=True)
    sample = names[np.argsort(counts, kind="stable")][len(names) // 2 :][:SAMPLE_USERS]
    events, compared = stream.events, 0
    for name in sample:
        oracle = Oracle(spec, feature_set)
        for row in np.flatnonzero(stream.keys == name):
            payment = Payment(
                int(events.time_ms[row]),
                int(events.offset[row]),
                int(events.transaction[row]),
                int(events.amount_minor[row]),
                int(events.currency[row]),
                tuple(int(value) for value in events.fields[row]),
            )
            expected, _ = oracle.observe(name, payment)
            if row >= stream.warm_rows:
                assert expected.tobytes() == features[row - stream.warm_rows].tobytes(), (name, row)
                compared += 1
    assert compared


def uniform_set(window):
    """The default features, all over one window."""
    features = default_feature_set().features
    lines = [f'name = "all {window}"']
    for number, feature in enumerate(features):
        lines.append(f'[[feature]]\nname = "f{number}"\naggregate = "{feature.aggregate}"\ntext = "{{value}}"')
        if feature.window_ms:
            lines.append(f'window = "{window}"')
        if feature.field not in ("", "amount"):
            lines.append(f'field = "{feature.field}"')
    return parse_feature_set("\n".join(lines).encode())


def steady(users, batches, feature_set):
    stream = make_stream(users, batches * BATCH)
    spec = StateSpec()
    warm(spec, feature_set)
    windows = Windows(spec, feature_set)
    started = time.perf_counter()
    fill(windows, stream)
    fill_ns = (time.perf_counter() - started) / stream.warm_rows * 1e9
    kernel, look_up, features = run(windows, stream)
    check(stream, spec, feature_set, features)
    return windows, live(stream, spec), kernel, look_up, fill_ns


def table():
    """Rows of (figure, measured, bound)."""
    rows = []
    for users, batches, bound in ((1_000, 100, 200), (100_000, 100, 600)):
        windows, held, kernel, look_up, fill_ns = steady(users, batches, default_feature_set())
        name = f"{users:,} users"
        rows.append((f"windows, {name}, kernel", f"{kernel:.0f} ns an event", ""))
        rows.append((f"windows, {name}, with look-up", f"{kernel + look_up:.0f} ns an event", f"≤ {bound} ns"))
        rows.append((f"windows, {name}, filling from empty", f"{fill_ns:.0f} ns an event", ""))
        allowed = 400 * windows.users + 48 * held
        rows.append(
            (
                f"windows, {name}, {held / windows.users:.0f} events each",
                f"{windows.bytes / windows.users:.0f} B a user, {windows.bytes / allowed:.2f} of the bound",
                "≤ 400 B a user + 48 B an event",
            )
        )
    month, hour = (steady(1_000, 100, uniform_set(window))[2] for window in ("30d", "1h"))
    rows.append(("windows, all of 30 days over all of 1 hour", f"{month / hour:.2f}", "≤ 1.2"))
    return rows


if __name__ == "__main__":
    for figure, measured, bound in table():
        print(f"{figure:<50} {measured:<45} {bound}")
