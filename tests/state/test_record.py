"""Durable records: pinned to the byte, complete, and never read when anything about them is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import Payment
from state import record
from state.errors import DamagedRecord
from state.features import StateSpec
from state.windows import Windows
from streams import Pair, admit, columns, feature_set, observe, streams

SPEC = StateSpec(fields=("merchant_id", "country"), retention_ms=100_000, max_events=8)
FEATURES = feature_set("5s", "60s")
GOLDEN = (
    "4653555201000200f6e464895e3ded4b090000000000000000000000000000c003000000030000000300000000000000"
    "0b000000000000000400000000000000e803000000000000dc05000000000000d0070000000000004d00000000000000"
    "4f000000000000004e00000000000000d203d2040000000048030a0000000000d2030cfeffffffff0100000001000200"
    "0300020000000000c798f42a7b4efb8a"
)


def stored(user=b"user-1"):
    """One user after three payments: a missing field, a refund, a repeated merchant."""
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    payments = [
        Payment(1_000, 5, 77, 1_234, 978, (3, 0)),
        Payment(2_000, 6, 78, -500, 978, (4, 11)),
        Payment(1_500, 9, 79, 10, 840, (3, 11)),
    ]
    observe(windows, [user] * 3, payments)
    return windows.changed(1).records[0]


def test_the_format_is_pinned():
    """A change here must raise the version: stored users are read by the next release."""
    assert stored().hex() == GOLDEN


def test_a_record_reads_back_as_what_was_kept():
    start = record.header_start(2, SPEC.hash)
    user = record.decode(record.unseal(stored(), b"user-1", start, "key"))
    assert (user.applied_offset, user.floor_ms) == (9, None)
    assert user.time_ms.tolist() == [1_000, 1_500, 2_000]
    assert user.transaction.tolist() == [77, 79, 78]
    assert user.amount_minor.tolist() == [1_234, 10, -500]
    assert user.currency.tolist() == [978, 840, 978]
    assert user.fields.tolist() == [[3, 0], [3, 11], [4, 11]]


def test_every_flipped_byte_and_every_cut_is_a_damaged_record_that_names_its_key():
    whole = stored()
    damaged = [whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole[:length] for length in range(len(whole))] + [whole + b"\0"]
    for bad in damaged:
        windows = Windows(SPEC, FEATURES, reserve_bytes=1)
        with pytest.raises(DamagedRecord) as error:
            windows.add([b"before", b"user-1"], [None, bad], ["k:before", "k:user-1"])
        assert error.value.key == "k:user-1"
        assert windows.users == 0


def test_a_record_of_another_state_is_refused_and_says_so():
    other = Windows(StateSpec(fields=SPEC.fields, retention_ms=200_000, max_events=8), FEATURES, reserve_bytes=1)
    with pytest.raises(DamagedRecord, match=f"belongs to the state {SPEC.hash}, not to {other.spec.hash}"):
        other.add([b"user-1"], [stored()], ["key"])


def test_a_record_under_another_users_key_is_refused():
    windows = Windows(SPEC, FEATURES, reserve_bytes=1)
    with pytest.raises(DamagedRecord, match="belongs to another user"):
        windows.add([b"user-2"], [stored()], ["key"])


def test_a_record_of_a_later_version_is_refused_and_says_so():
    later = stored()[:4] + b"\x02" + stored()[5:]
    with pytest.raises(DamagedRecord, match="has format version 2, and this program reads 1"):
        Windows(SPEC, FEATURES, reserve_bytes=1).add([b"user-1"], [later], ["key"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(streams(users=2), st.integers(0, 60), st.sampled_from([1, 2, 5, 100]))
def test_a_user_stored_and_loaded_continues_as_one_never_stored(stream, cut, cap):
    names, payments = stream
    spec = StateSpec(fields=("merchant_id", "country"), retention_ms=70_000, max_events=cap)
    features = feature_set("5s", "20s", "60s")
    pair = Pair(spec, features)
    pair.feed(names[:cut], payments[:cut])
    snapshot = pair.windows.changed(10)
    stayed = pair.windows
    pair.windows = Windows(spec, features, reserve_bytes=1)
    pair.windows.add(snapshot.users, snapshot.records)
    pair.feed(names[cut:], payments[cut:])
    pair.check_state()
    observe(stayed, names[cut:], payments[cut:])
    after = dict(zip(*everyone(pair.windows, snapshot), strict=True))
    assert after == dict(zip(*everyone(stayed, snapshot), strict=True))


def everyone(windows, snapshot):
    """The users of an earlier snapshot with their records as they stand now."""
    admit(windows, snapshot.users)
    last = [windows.applied_offset(user) for user in snapshot.users]
    for user, offset in zip(snapshot.users, last, strict=True):
        probe = Payment(0, offset + 1_000, 999_999, 1, 1, (0, 0))  # late or not, it makes the user changed
        windows.observe(windows.find([user]), columns([probe], 2))
    found = windows.changed(100)
    return found.users, found.records
