"""Benchmark of the windows alone: few and many users, uniform and by Zipf's law, short and long windows.

A stream of payments is replayed until the horizon is full; then batches are timed while as many payments expire as
arrive. Each round fills windows of its own, so that rounds differ in where memory lies. Inside the run the features of
a sample of users are compared with the naive recomputation, bit for bit, and those of all rounds with each other.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "state"))
from figures import Row
from oracle import Oracle, Payment
from spread import claim, spread
from state.events import Events
from state.features import DAY_MS, StateSpec, default_feature_set, parse_feature_set
from state.windows import Windows, warm

BATCH = 2048
BATCHES = 100  # timed, each round
ROUNDS = 5
MANY_ROUNDS = 3  # of a million users, who take most of the time
EXPONENTS = {"Zipf": 0.8, "uniform": 0.0}
WINDOWS = ("1h", "24h", "7d", "30d")
WINDOWS_BOUND = "≤ 1.2"  # all of 30 days, times all of 1 hour
BYTES_A_USER, BYTES_AN_EVENT = 400, 48
SAMPLE_USERS = 12
START_MS = 1_700_000_000_000


class Size(NamedTuple):
    """How many users, how many payments of each in 30 days, and the most ns an event may take with its look-up."""

    users: int
    payments: int
    bound: str
    rounds: int


SIZES = (
    Size(1_000, 40, "≤ 150 ns", ROUNDS),
    Size(100_000, 40, "≤ 400 ns", ROUNDS),
    Size(1_000_000, 10, "≤ 800 ns", MANY_ROUNDS),  # with 40 a month, stream and windows would take 8 GB
)


class Timed(NamedTuple):
    """ns an event; users and bytes at the end, payments kept then; features float32[n, K] of the timed payments."""

    kernel: float
    look_up: float
    filling: float
    users: int
    size_bytes: int
    features: np.ndarray


@dataclass
class Stream:
    keys: np.ndarray  # object[n]: the user's key of each payment
    user: np.ndarray  # int64[n]: its number
    events: Events
    warm_rows: int

    def rows(self, first, end):
        return self.keys[first:end].tolist(), self.events[first:end]


def make_stream(users, payments, exponent, timed=BATCHES * BATCH, seed=7):
    """Payments of so many users: the horizon of 31 days and an eighth of it more, then `timed` payments."""
    rng = np.random.default_rng(seed)
    warm_rows = users * payments * 35 // 30 // BATCH * BATCH
    n = warm_rows + timed
    weights = 1.0 / np.arange(1, users + 1) ** exponent
    user = rng.choice(users, n, p=weights / weights.sum())
    gap_ms = 30 * DAY_MS / (users * payments)
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
        user,
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
    """Time the rest of the stream; return ns an event of kernel and look-up, and the features."""
    end = len(stream.keys)
    absent = set(stream.keys[stream.warm_rows :]) - set(stream.keys[: stream.warm_rows])
    windows.add(sorted(absent), [None] * len(absent))
    kernel = look_up = 0
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
        look_up += found - start
        kernel += done - found
        features[first - stream.warm_rows : first - stream.warm_rows + BATCH] = rows
    return kernel / len(features), look_up / len(features), features


def live(stream, spec):
    """How many payments the retention holds: those it has let go may still lie in memory, but are not counted."""
    newest = np.zeros(stream.user.max() + 1, np.int64)
    newest[stream.user] = stream.events.time_ms  # times only rise
    return int((stream.events.time_ms > newest[stream.user] - spec.retention_ms).sum())


def check(stream, spec, feature_set, features):
    """Compare the features of some users with the naive recomputation."""
    numbers, counts = np.unique(stream.user[stream.warm_rows :], return_counts=True)
    sample = numbers[np.argsort(counts, kind="stable")][len(numbers) // 2 :][:SAMPLE_USERS]
    events, compared = stream.events, 0
    for number in sample:
        oracle = Oracle(spec, feature_set)
        for row in np.flatnonzero(stream.user == number):
            name = stream.keys[row]
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


def steady(stream, feature_set):
    """Fill windows and time them once."""
    spec = StateSpec()
    windows = Windows(spec, feature_set)
    started = time.perf_counter_ns()
    fill(windows, stream)
    filling = (time.perf_counter_ns() - started) / stream.warm_rows
    kernel, look_up, features = run(windows, stream)
    return Timed(kernel, look_up, filling, windows.users, windows.bytes, features)


def rounds(stream, feature_sets, count):
    """Time each feature set in turn, so many rounds; the answers are checked."""
    found: dict[str, list[Timed]] = defaultdict(list)
    for number in range(count):
        for name, feature_set in feature_sets.items():
            warm(StateSpec(), feature_set)
            timed = steady(stream, feature_set)
            if number == 0:
                check(stream, StateSpec(), feature_set, timed.features)
            else:
                assert timed.features.tobytes() == found[name][0].features.tobytes(), name
            found[name].append(timed)
    return found


def sizes() -> Iterator[Row]:
    """Rows of the default feature set."""
    for size in SIZES:
        for law, exponent in EXPONENTS.items():
            stream = make_stream(size.users, size.payments, exponent)
            held = live(stream, StateSpec())
            timed = rounds(stream, {"default": default_feature_set()}, size.rounds)["default"]
            name = f"windows, {size.users:,} users, {law}"
            whole = [one.kernel + one.look_up for one in timed]
            yield Row(
                f"{name}: ns an event, with look-up", claim(whole, size.bound, 0), size.bound, whole, "ns an event"
            )
            for part in ("kernel", "look_up", "filling"):
                values = [getattr(one, part) for one in timed]
                yield Row(f"  {part.replace('_', '-')}, {size.users:,}, {law}", spread(values, 0), "", values)
            users, size_bytes = timed[0].users, timed[0].size_bytes
            share = size_bytes / (BYTES_A_USER * users + BYTES_AN_EVENT * held)
            yield Row(
                f"  bytes, {users:,} users with {held / users:.0f} payments each, {law}: share of the bound",
                f"{claim([share], '≤ 1')}, {size_bytes / users:.0f} B a user",
                f"≤ {BYTES_A_USER} B a user + {BYTES_AN_EVENT} B an event",
                [share],
            )


def lengths() -> Iterator[Row]:
    """Rows of feature sets whose windows are all of one length, on 1,000 users."""
    size = SIZES[0]
    stream = make_stream(size.users, size.payments, EXPONENTS["Zipf"])
    found = rounds(stream, {window: uniform_set(window) for window in WINDOWS}, size.rounds)
    ns = {window: [one.kernel for one in found[window]] for window in WINDOWS}
    ratios = [month / hour for month, hour in zip(ns["30d"], ns["1h"], strict=True)]
    name = f"windows, {size.users:,} users: all of 30 days / all of 1 hour, kernel"
    yield Row(name, claim(ratios, WINDOWS_BOUND), WINDOWS_BOUND, ratios)
    for window in WINDOWS:
        yield Row(f"  all of {window}: ns an event, kernel", spread(ns[window], 0), "", ns[window], "ns an event")


def table() -> Iterator[Row]:
    yield from sizes()
    yield from lengths()


if __name__ == "__main__":
    for row in table():
        print(*row[:3], sep=" | ", flush=True)
