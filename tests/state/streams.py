"""Random streams of payments, and the state driven beside its oracle."""

import numpy as np
from hypothesis import strategies as st

from oracle import Oracle, Payment
from state.events import Events
from state.features import parse_feature_set
from state.windows import Flag, Windows


def feature_set(*windows, fields=("merchant_id", "country"), aggregates=None):
    """Every aggregate over every window."""
    lines = ['name = "every"']
    number = 0
    for window in windows:
        for aggregate in ("value", "count", "sum", "mean", "std", "min", "max", "ratio", "seconds_since_last"):
            lines.append(f'[[feature]]\nname = "f{number}"\naggregate = "{aggregate}"\ntext = "{{value}}"')
            if aggregate != "value":
                lines.append(f'window = "{window}"')
            number += 1
        for aggregate in ("distinct", "first_seen"):
            for field in fields:
                lines.append(f'[[feature]]\nname = "f{number}"\naggregate = "{aggregate}"\ntext = "{{value}}"')
                lines.append(f'window = "{window}"\nfield = "{field}"')
                number += 1
    return parse_feature_set("\n".join(lines).encode())


def columns(payments, fields):
    """The columns of a list of payments."""
    return Events(
        np.array([p.time for p in payments], np.int64),
        np.array([p.offset for p in payments], np.int64),
        np.array([p.transaction for p in payments], np.uint64),
        np.array([p.amount for p in payments], np.int64),
        np.array([p.currency for p in payments], np.uint16),
        np.array([p.values for p in payments], np.uint64).reshape(len(payments), fields),
    )


def bits(features):
    """float32 as bits, so that NaN equals NaN and -0 differs from 0."""
    return np.asarray(features, np.float32).view(np.uint32)


def admit(windows: Windows, names):
    unknown = [name for name in dict.fromkeys(names) if windows.find([name])[0] < 0]
    windows.add(unknown, [None] * len(unknown))


def observe(windows: Windows, names, payments):
    """Apply payments to a Windows that may not know their users."""
    admit(windows, names)
    return windows.observe(windows.find(names), columns(payments, len(windows.spec.fields)))


class Pair:
    """A Windows and its oracle; every event goes to both and every feature must be the same to the last bit."""

    def __init__(self, spec, feature_set, windows=None):
        self.windows = windows or Windows(spec, feature_set, reserve_bytes=1)
        self.oracle = Oracle(spec, feature_set)

    def feed(self, names, payments):
        features, flags = observe(self.windows, names, payments)
        for row, (name, payment) in enumerate(zip(names, payments, strict=True)):
            expected, flag = self.oracle.observe(name, payment)
            assert Flag(int(flags[row])) == flag, (row, payment)
            if expected is not None:
                differing = np.flatnonzero(bits(features[row]) != bits(expected))
                assert not len(differing), [
                    (self.windows.feature_set.features[i], features[row, i], expected[i]) for i in differing
                ]

    def check_state(self):
        """What is kept, and the floor, are the oracle's."""
        kept = 0
        for name, user in self.oracle.users.items():
            held = self.windows.events_of(name)
            assert held.applied_offset == user.applied
            assert held.floor_ms == user.floor
            assert held.time_ms.tolist() == [p.time for p in user.kept]
            assert held.transaction.tolist() == [p.transaction for p in user.kept]
            assert held.amount_minor.tolist() == [p.amount for p in user.kept]
            assert held.currency.tolist() == [p.currency for p in user.kept]
            assert [tuple(row) for row in held.fields.tolist()] == [p.values for p in user.kept]
            kept += len(user.kept)
        assert self.windows.events == kept
        assert self.windows.users == len(self.oracle.users)


# Hashes of different fields never coincide; one has the sign bit of a word.
VALUES = [(1, 2, 3, (1 << 64) - 200), (11, 12, 13, 14), (21, 22), (31, 32, 33)]
AMOUNTS = st.one_of(
    st.integers(-50, 50),
    st.sampled_from([(1 << 43) - 1, -(1 << 43) + 1, 1 << 40, 12345678901]),
    st.integers(-(1 << 43) + 1, (1 << 43) - 1),
)


@st.composite
def streams(draw, *, users=3, spread=60_000, size=60, fields=2):
    """Payments of a few users: mostly forward in time, with ties, gaps, late, out of order, repeats and conflicts."""
    names, payments, clock = [], [], draw(st.sampled_from([0, -(10**9), 1_700_000_000_000]))
    for offset in range(draw(st.integers(1, size))):
        names.append(f"user-{draw(st.integers(0, users - 1))}".encode())
        step = draw(st.sampled_from(["tie", "step", "step", "step", "gap", "jump", "back", "repeat", "conflict"]))
        if step in ("repeat", "conflict") and payments:
            old = draw(st.sampled_from(payments))
            change = draw(st.sampled_from(["time", "amount", "currency", "values"])) if step == "conflict" else ""
            payments.append(
                Payment(
                    old.time + (draw(st.integers(-spread, spread)) if change == "time" else 0),
                    offset,
                    old.transaction,
                    old.amount + (1 if change == "amount" and old.amount < (1 << 43) - 1 else 0),
                    old.currency + (change == "currency"),
                    tuple((v + 100 * (change == "values")) % (1 << 64) for v in old.values),
                )
            )
            continue
        time = clock
        if step == "step":
            time = clock = clock + draw(st.integers(1, spread // 20))
        elif step == "gap":
            time = clock = clock + draw(st.sampled_from([spread // 6, spread // 3, spread // 2]))
        elif step == "jump":
            time = clock = clock + 2 * spread
        elif step == "back":
            time = clock - draw(st.integers(0, spread))
        values = tuple(draw(st.sampled_from([0, *VALUES[field]])) for field in range(fields))
        payments.append(Payment(time, offset, 1000 + offset, draw(AMOUNTS), 100, values))
    return names, payments
