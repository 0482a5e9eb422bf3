"""Windows against tables of arrivals, and against a naive recomputation after every event.

          t - W                        t
────●──────┼────●───────●─────────●────●──────▶ event time
    out    │    └───── in the window ──┘
           └ a payment exactly here is out
"""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import Payment
from state.events import AMOUNT_LIMIT_MINOR, currency_code, hash_field, hash_transaction
from state.features import StateSpec, default_feature_set, parse_feature_set
from state.history import compute
from state.windows import Flag, Windows
from streams import Pair, bits, columns, feature_set, observe, streams

LATE, DUPLICATE, CONFLICT, TRUNCATED, SKIPPED = Flag
NOTHING = Flag(0)
EVERY = feature_set("5s", "20s", "60s")
SPEC = StateSpec(fields=("merchant_id", "country"), retention_ms=70_000)


def small(aggregates, field=""):
    """Features over a window of 10 s."""
    lines = ['name = "small"']
    for aggregate in aggregates:
        lines.append(f'[[feature]]\nname = "{aggregate}"\naggregate = "{aggregate}"\ntext = "{{value}}"')
        if aggregate != "value":
            lines.append('window = "10s"')
        if aggregate in ("distinct", "first_seen"):
            lines.append(f'field = "{field}"')
    return parse_feature_set("\n".join(lines).encode())


def play(arrivals, aggregates, *, field="", fields=("merchant_id",), retention_ms=15_000, max_events=4096):
    """Feed (transaction, seconds, amount, merchant) of one user; return the features' rows and the flags."""
    spec = StateSpec(fields=fields, retention_ms=retention_ms, max_events=max_events)
    payments = [
        Payment(round(seconds * 1000), offset, transaction, amount, 978, (merchant,))
        for offset, (transaction, seconds, amount, merchant) in enumerate(arrivals)
    ]
    windows = Windows(spec, small(aggregates, field), reserve_bytes=1)
    features, flags = observe(windows, [b"user"] * len(payments), payments)
    return features.tolist(), [Flag(int(flag)) for flag in flags]


def test_a_window_starts_just_after_t_minus_w_and_ends_with_t():
    #  arrival        0 s   0.001   10 s   10.001   20.001
    #  in the window  {0}   {0,1}   {1,2}  {2,3}    {4}: 10.001 lies exactly at 20.001 - 10
    rows, flags = play(
        [(1, 0, 5, 0), (2, 0.001, 7, 0), (3, 10, 11, 0), (4, 10.001, 13, 0), (5, 20.001, 17, 0)], ["count", "sum"]
    )
    assert rows == [[1, 5], [2, 12], [2, 18], [2, 24], [1, 17]]
    assert set(flags) == {NOTHING}


def test_equal_times_stand_in_order_of_arrival():
    rows, _ = play([(1, 1, 5, 0), (2, 1, 7, 0), (3, 1, 11, 0)], ["count", "seconds_since_last", "max", "min"])
    assert rows[0][0] == 1
    assert math.isnan(rows[0][1])
    assert rows[1:] == [[2, 0, 7, 5], [3, 0, 11, 5]]


def test_an_event_out_of_order_is_inserted_and_sees_nothing_later_than_itself():
    rows, flags = play([(1, 1, 5, 0), (2, 8, 7, 0), (3, 4, 100, 0), (4, 9, 1, 0)], ["count", "max", "sum"])
    assert rows == [[1, 5, 5], [2, 7, 12], [2, 100, 105], [4, 100, 113]]
    assert set(flags) == {NOTHING}


def test_a_late_event_is_scored_with_itself_but_not_kept():
    #  after 20 s the payment of 5 s (= 20 - 15) is dropped: floor 5 s
    rows, flags = play([(1, 5, 1, 0), (2, 20, 2, 0), (3, 5, 4, 0), (4, 21, 8, 0), (5, 15.5, 16, 0)], ["count", "sum"])
    assert rows == [[1, 1], [1, 2], [1, 4], [2, 10], [1, 16]]
    assert flags == [NOTHING, NOTHING, LATE | TRUNCATED, NOTHING, NOTHING]


def test_an_event_below_the_retention_is_late_even_when_nothing_was_dropped():
    rows, flags = play([(1, 20, 2, 0), (2, 5, 4, 0), (3, 5.001, 8, 0)], ["count"])
    assert rows == [[1], [1], [1]]
    assert flags == [NOTHING, LATE | TRUNCATED, TRUNCATED]


def test_a_window_that_reaches_below_the_floor_says_truncated():
    #  a cap of 2: the third payment drops the first, floor 1 s; at 11 s the window starts exactly at the floor
    rows, flags = play(
        [(1, 1, 1, 0), (2, 2, 1, 0), (3, 3, 1, 0), (4, 10.999, 1, 0), (5, 12, 1, 0)], ["count"], max_events=2
    )
    assert rows == [[1], [2], [2], [2], [2]]
    assert flags == [NOTHING, NOTHING, TRUNCATED, TRUNCATED, TRUNCATED]
    _, flags = play([(1, 1, 1, 0), (2, 2, 1, 0), (3, 11, 1, 0)], ["count"], max_events=2)
    assert flags == [NOTHING] * 3


def test_an_event_older_than_all_of_a_user_at_its_cap_is_late():
    rows, flags = play([(1, 5, 1, 0), (2, 6, 1, 0), (3, 4, 1, 0), (4, 5, 9, 0)], ["count", "sum"], max_events=2)
    assert flags == [NOTHING, NOTHING, LATE | TRUNCATED, TRUNCATED]
    assert rows == [[1, 1], [2, 2], [1, 1], [1, 9]]


def test_a_repeated_transaction_is_not_counted_again():
    again = (1, 1, 5, 7)
    rows, flags = play(
        [again, (2, 2, 6, 8), again, (3, 3, 1, 7)],
        ["count", "sum", "seconds_since_last", "first_seen"],
        field="merchant_id",
    )
    assert flags == [NOTHING, NOTHING, DUPLICATE, NOTHING]
    assert rows[2][:2] == [1, 5]
    assert math.isnan(rows[2][2])
    assert rows[2][3] == 1.0
    assert rows[3] == [3, 12, 1, 0]


def test_a_repeat_with_other_content_is_a_conflict_and_the_first_content_stands():
    arrivals = [(1, 1, 5, 7), (2, 2, 6, 8), (1, 3, 50, 8), (3, 4, 1, 9)]
    rows, flags = play(arrivals, ["value", "count", "sum", "ratio", "distinct", "first_seen"], field="merchant_id")
    assert flags == [NOTHING, NOTHING, DUPLICATE | CONFLICT, NOTHING]
    assert rows[2] == [50, 2, 11, np.float32(100 / 11), 2, 0]
    assert rows[3][:3] == [1, 3, 12]


def test_a_conflicting_time_before_all_kept_gives_an_empty_window():
    rows, flags = play(
        [(1, 9, 5, 7), (1, 2, 5, 7)],
        ["count", "sum", "mean", "std", "min", "max", "ratio", "distinct"],
        field="merchant_id",
    )
    assert flags[1] == DUPLICATE | CONFLICT
    assert rows[1][:2] == [0, 0]
    assert all(math.isnan(value) for value in rows[1][2:7])
    assert rows[1][7] == 0


def test_a_transaction_dropped_from_the_state_is_new_again():
    _, flags = play([(1, 0, 5, 7), (2, 20, 6, 8), (1, 20, 5, 7)], ["count"])
    assert flags == [NOTHING] * 3


def test_missing_fields_are_nan_in_first_seen_and_nothing_in_distinct():
    rows, _ = play([(1, 1, 5, 0), (2, 2, 6, 8), (3, 3, 6, 0)], ["distinct", "first_seen"], field="merchant_id")
    assert [row[0] for row in rows] == [0, 1, 1]
    assert math.isnan(rows[0][1])
    assert rows[1][1] == 1.0
    assert math.isnan(rows[2][1])


def test_amounts_that_sum_to_nothing_have_no_ratio_and_a_single_payment_no_deviation():
    rows, _ = play([(1, 1, 5, 0), (2, 2, -5, 0)], ["mean", "ratio", "std"])
    assert rows[0] == [5, 1, 0]
    assert rows[1][0] == 0
    assert math.isnan(rows[1][1])
    assert rows[1][2] == 5


def test_the_largest_amounts_stay_exact():
    top = AMOUNT_LIMIT_MINOR - 1
    rows, _ = play([(n, 1, top, 0) for n in range(1, 40)] + [(99, 1, -top, 0)], ["sum", "std", "mean"])
    assert rows[38] == [np.float32(39 * top), 0, np.float32(top)]
    assert rows[39][0] == np.float32(38 * top)


def test_events_at_or_below_the_applied_offset_change_nothing():
    windows = Windows(SPEC, EVERY, reserve_bytes=1)
    payments = [Payment(1_000, 7, 1, 5, 978, (1, 11)), Payment(2_000, 9, 2, 5, 978, (1, 11))]
    observe(windows, [b"user"] * 2, payments)
    assert windows.applied_offset(b"user") == 9
    before = windows.changed(1).records
    stale = [Payment(3_000, 9, 3, 5, 978, (1, 11)), Payment(3_000, 8, 4, 5, 978, (1, 11))]
    _, flags = observe(windows, [b"user"] * 2, stale)
    assert flags.tolist() == [SKIPPED, SKIPPED]
    assert windows.changed_users == 0
    observe(windows, [b"user"], [Payment(3_000, 10, 5, 5, 978, (1, 11))])
    assert windows.changed(1).records != before


@settings(max_examples=150, deadline=None, derandomize=True)
@given(streams(), st.sampled_from([1, 2, 5, 4096]), st.sampled_from([60_000, 70_000, 200_000]), st.integers(1, 9))
def test_every_feature_equals_the_naive_recomputation_after_every_event(stream, cap, retention_ms, batch):
    names, payments = stream
    spec = StateSpec(fields=("merchant_id", "country"), retention_ms=retention_ms, max_events=cap)
    pair = Pair(spec, EVERY)
    for first in range(0, len(names), batch):
        pair.feed(names[first : first + batch], payments[first : first + batch])
    pair.check_state()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(streams(users=1, size=120), st.sampled_from([3, 50]))
def test_the_same_holds_for_one_user_with_many_kept_fields(stream, cap):
    names, payments = stream
    fields = ("a", "b", "c", "d", "e")
    spec = StateSpec(fields=fields, retention_ms=60_000, max_events=cap)
    pair = Pair(spec, feature_set("20s", "60s", fields=fields))
    for row, p in enumerate(payments):
        more = tuple(value and 100 * place + value % 7 for place, value in enumerate((*p.values, p.amount % 3), 1))
        payments[row] = dataclasses.replace(p, values=(*p.values, *more))
    pair.feed(names, payments)
    pair.check_state()


@pytest.mark.parametrize("seed", range(6))
def test_long_random_streams_equal_the_naive_recomputation(seed):
    """Thousands of events, so that rings wrap, tables grow and shrink, and values come and go."""
    rng = np.random.default_rng(seed)
    n, clock, names, payments = 1_500, 0, [], []
    for offset in range(n):
        clock += int(rng.choice([0, 5, 50, 500, 3_000], p=[0.1, 0.5, 0.2, 0.15, 0.05]))
        if offset % 500 == 499:
            clock += 100_000
        time = clock - int(rng.integers(0, 80_000)) * (rng.random() < 0.05)
        amount = int(rng.integers(-100, 1000)) if seed % 2 else -offset  # falling amounts fill the stack
        values = (int(rng.integers(0, 40)), int(100 + rng.integers(0, 3)))
        transaction = offset + 1 if rng.random() < 0.95 else max(1, offset - int(rng.integers(0, 30)))
        names.append(b"user-%d" % (rng.integers(0, 3)))
        payments.append(Payment(time, offset, transaction, amount, 978, values))
    cap = [4096, 4096, 300, 37, 8, 1][seed]
    pair = Pair(StateSpec(fields=("merchant_id", "country"), retention_ms=60_000, max_events=cap), EVERY)
    for first in range(0, n, 100):
        pair.feed(names[first : first + 100], payments[first : first + 100])
    pair.check_state()


def test_hashes_that_agree_in_their_marks_are_told_apart():
    """All of them have the mark 0, which is also that of memory never used."""
    rng = np.random.default_rng(3)
    n, payments = 600, []
    for offset in range(n):
        transaction = offset + 1 if rng.random() < 0.9 else max(1, offset - int(rng.integers(0, 90)))
        values = (int(rng.integers(0, 90)) << 16, int(100 + rng.integers(0, 3)) << 16)
        payments.append(Payment(600 * offset, offset, transaction << 16, offset, 978, values))
    names = [b"user-%d" % (offset % 2) for offset in range(n)]
    pair = Pair(SPEC, EVERY)
    for first in range(0, n, 100):
        pair.feed(names[first : first + 100], payments[first : first + 100])
    pair.check_state()


def test_users_whose_payments_name_no_field_equal_the_naive_recomputation():
    """Their tables of values are never filled, and still have to be searched, grown past, stored and loaded."""
    payments = [Payment(700 * n, n, n + 1 - (n % 11 == 10), 5 * n, 978, (0, 0)) for n in range(300)]
    names = [b"user-%d" % (n % 3) for n in range(300)]
    pair = Pair(SPEC, EVERY)
    for first in range(0, 300, 50):
        pair.feed(names[first : first + 50], payments[first : first + 50])
    pair.check_state()


def test_replay_leaves_the_same_state_as_observe():
    rng = np.random.default_rng(1)
    payments = [
        Payment(int(t), n, n + 1, int(rng.integers(0, 99)), 978, (int(rng.integers(0, 5)), 11))
        for n, t in enumerate(np.sort(rng.integers(0, 300_000, 400)) - 40_000 * (rng.random(400) < 0.1))
    ]
    observed, replayed = (Windows(SPEC, EVERY, reserve_bytes=1) for _ in range(2))
    observe(observed, [b"user"] * 400, payments)
    replayed.add([b"user"], [None])
    replayed.replay(replayed.find([b"user"] * 400), columns(payments, 2))
    assert replayed.changed(1).records == observed.changed(1).records


def test_compute_is_the_windows_driven_from_memory():
    features = default_feature_set()
    payments = [Payment(n * 1_000, n, n + 1, n, 978, (n % 3, 10 + n % 2, 0)) for n in range(300)]
    names = [b"user-%d" % (n % 7) for n in range(300)]
    rows, flags = compute(StateSpec(), features, names, columns(payments, 3), chunk=41)
    pair = Pair(StateSpec(), features)
    for n, (name, payment) in enumerate(zip(names, payments, strict=True)):
        expected, flag = pair.oracle.observe(name, payment)
        assert (bits(rows[n]) == bits(expected)).all()
        assert flags[n] == flag


@pytest.mark.parametrize(
    ("slot", "time", "amount"),
    [(-1, 0, 0), (1, 0, 0), (1 << 40, 0, 0), (0, 1 << 53, 0), (0, 0, 1 << 43), (0, 0, -(1 << 43))],
)
def test_events_that_cannot_be_applied_are_refused_before_any_is(slot, time, amount):
    windows = Windows(SPEC, EVERY, reserve_bytes=1)
    windows.add([b"user"], [None])
    good, bad = Payment(1, 1, 1, 1, 978, (0, 0)), Payment(time, 2, 2, amount, 978, (0, 0))
    with pytest.raises(ValueError, match="event 1 cannot be applied"):
        windows.observe(np.array([0, slot]), columns([good, bad], 2))
    assert windows.events == 0
    with pytest.raises(ValueError, match="the state keeps 2 fields"):
        windows.observe(np.array([0]), columns([Payment(1, 1, 1, 1, 978, (0,))], 1))


def test_hashes_are_pinned_and_never_zero():
    assert hash_transaction("tx-1") == HASHES[0]
    assert [hash_field(index, "DE") for index in range(2)] == HASHES[1:]
    assert currency_code("EUR") == 5 << 10 | 21 << 5 | 18
    assert 0 < currency_code("AAA") < currency_code("ZZZ") < 1 << 15


HASHES = [9764166911060802222, 10220063329961103918, 12248906070689902850]
