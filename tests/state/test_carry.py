"""Users carried over to another feature set's windows: from then on as if these had seen every payment."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.carry import Former
from state.features import StateSpec
from state.history import compute
from state.windows import Windows
from streams import bits, columns, feature_set, observe, streams

FIELDS = ("merchant_id", "country")
ONE = feature_set("10s", "60s")
OTHER = feature_set("25s", "60s", "5s", fields=("country",))
SPECS = [StateSpec(FIELDS, retention_ms=60_000), StateSpec(FIELDS, retention_ms=90_000, max_events=4)]


class Worker:
    """Windows, those before them, and a store, as a worker has them."""

    def __init__(self, spec):
        self.spec, self.store, self.former = spec, {}, None
        self.windows = Windows(spec, ONE, reserve_bytes=1)

    def observe(self, users, events):
        """Bring unknown users in from the former windows, else from the store, and see the events."""
        unknown = [user for user in dict.fromkeys(users) if self.windows.find([user])[0] < 0]
        records = self.former.take(unknown) if self.former else [None] * len(unknown)
        found = [record or self.store.get(user) for user, record in zip(unknown, records, strict=True)]
        self.windows.add(unknown, found)
        return self.windows.observe(self.windows.find(users), events)

    def change(self, features):
        """Store everything, then begin with windows of another feature set."""
        snapshot = self.windows.changed(1 << 20)
        self.store.update(zip(snapshot.users, snapshot.records, strict=True))
        self.windows.stored(snapshot)
        self.former, self.windows = Former(self.windows), Windows(self.spec, features, reserve_bytes=1)


@pytest.mark.parametrize("spec", SPECS, ids=["roomy", "capped"])
@given(stream=streams(), cuts=st.lists(st.integers(0, 60), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_features_after_each_change_equal_those_of_windows_that_saw_everything(spec, stream, cuts):
    users, payments = stream
    events = columns(payments, len(FIELDS))
    wanted = [compute(spec, features, users, events) for features in (ONE, OTHER)]
    worker, turn = Worker(spec), 0
    for first, last in pairwise([0, *sorted(min(cut, len(users)) for cut in cuts), len(users)]):
        features, flags = worker.observe(users[first:last], events[first:last])
        np.testing.assert_array_equal(bits(features), bits(wanted[turn][0][first:last]))
        np.testing.assert_array_equal(flags, wanted[turn][1][first:last])
        turn = 1 - turn
        worker.change((ONE, OTHER)[turn])


@pytest.fixture
def three():
    """Windows that hold three users, and these."""
    windows = Windows(SPECS[0], ONE, reserve_bytes=1)
    users = [b"a", b"b", b"c"]
    windows.add(users, [None] * 3)
    return windows, users


def test_a_user_is_carried_over_once(three):
    windows, users = three
    former = Former(windows)
    assert former.left == 3
    first, nobody = former.take([users[0], b"nobody"])
    assert first is not None
    assert nobody is None
    assert former.take([users[0]]) == [None], "its state lives elsewhere and may have moved on"
    assert former.left == 2
    assert None not in former.take(users[1:])
    assert former.left == 0
    assert former.take([]) == []
    assert former.size_bytes == windows.bytes


@given(stream=streams())
@settings(deadline=None, max_examples=20)
def test_what_is_carried_over_is_what_the_store_has(stream):
    users, payments = stream
    worker = Worker(SPECS[1])
    observe(worker.windows, users, payments)
    worker.change(OTHER)
    assert dict(zip(worker.store, worker.former.take(list(worker.store)), strict=True)) == worker.store
