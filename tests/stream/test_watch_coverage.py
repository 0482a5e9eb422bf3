"""Which offsets no telemetry covers: ranges from any worker, in any order, compared with a naive set of offsets."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.watch_coverage import MAX_GAPS, Coverage

GRACE_MS, KEPT_MS = 5_000, 3_600_000


def cover(coverage, first, following, at_ms=1_000, partition="0", **how):
    return coverage.cover({partition: [(first, following)]}, at_ms, **how)


def uncovered(coverage, now_ms=60_000):
    return [(gap.first, gap.next) for gap in coverage.gaps(now_ms).get(0, [])]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40)), min_size=1, max_size=40))
def test_gaps_equal_a_naive_set_whatever_the_order(ranges):
    coverage, naive = Coverage(GRACE_MS, KEPT_MS), set()
    for first, length in ranges:
        cover(coverage, first, first + length)
        naive |= set(range(first, first + length))
    left = {offset for first, following in uncovered(coverage) for offset in range(first, following)}
    if not naive:
        assert coverage.gaps(60_000) == {}
        return
    assert left == set(range(min(naive), max(naive) + 1)) - naive
    assert coverage.next_offsets() == {0: max(naive) + 1}


def test_touching_ranges_of_two_workers_in_a_rebalance_leave_no_gap():
    coverage = Coverage(GRACE_MS, KEPT_MS)
    for first, following in ((0, 50), (50, 50), (50, 90), (90, 200)):
        cover(coverage, first, following)
    assert uncovered(coverage) == []
    assert coverage.totals(60_000) == {0: 0}


def test_a_gap_counts_once_it_has_outlasted_the_grace_and_a_late_record_fills_it():
    coverage = Coverage(GRACE_MS, KEPT_MS)
    cover(coverage, 0, 500, 1_000)
    cover(coverage, 620, 900, 2_000)
    assert uncovered(coverage, 2_000 + GRACE_MS - 1) == []
    assert uncovered(coverage, 2_000 + GRACE_MS) == [(500, 620)]
    cover(coverage, 520, 600, 1_000, late=True)
    assert uncovered(coverage) == [(500, 520), (600, 620)]
    cover(coverage, 500, 620, 1_000, late=True)
    assert uncovered(coverage) == []
    assert coverage.totals(60_000) == {0: 0}


def test_an_old_gap_is_settled_and_counted_for_ever():
    coverage = Coverage(GRACE_MS, KEPT_MS)
    cover(coverage, 0, 10, 1_000)
    cover(coverage, 30, 40, 2_000)
    coverage.settle(2_000 + KEPT_MS)
    assert uncovered(coverage, 2_000 + KEPT_MS) == []
    assert coverage.totals(2_000 + KEPT_MS) == {0: 20}
    cover(coverage, 10, 30, 2_000, late=True)  # too late to be taken back
    assert coverage.totals(2_000 + KEPT_MS) == {0: 20}
    assert coverage.next_offsets() == {0: 40}


def test_a_topic_made_anew_begins_anew():
    coverage = Coverage(GRACE_MS, KEPT_MS)
    cover(coverage, 1_000, 2_000, 1_000)
    cover(coverage, 0, 10, 60_000)
    cover(coverage, 10, 30, 61_000)
    assert coverage.next_offsets() == {0: 30}
    assert uncovered(coverage, 120_000) == []


def test_memory_stays_flat_when_every_other_record_is_lost_for_days():
    coverage = Coverage(GRACE_MS, KEPT_MS)
    for number in range(20_000):
        cover(coverage, 20 * number, 20 * number + 10, number)
        if number % 100 == 0:
            coverage.settle(number)
    assert len(coverage.gaps(10**9)[0]) <= MAX_GAPS + 100
    assert coverage.totals(10**9) == {0: 10 * 19_999}


@pytest.mark.parametrize("entry", [{"x": [(0, 5)]}, {"0": [(9, 3)]}, {"-1": [(0, 5)]}])
def test_entries_that_are_no_ranges_are_counted_and_ignored(entry):
    coverage = Coverage(GRACE_MS, KEPT_MS)
    assert coverage.cover(entry, 1_000) == 1
    assert coverage.totals(60_000) == {}


def test_partitions_that_move_between_workers_in_random_order_leave_exactly_what_was_never_written():
    rng = random.Random(3)
    batches = [(batch * 7, batch * 7 + 7) for batch in range(300)]
    lost = set(rng.sample(batches[1:-1], 30))
    told = [batch for batch in batches if batch not in lost]
    rng.shuffle(told)
    coverage = Coverage(GRACE_MS, KEPT_MS)
    for first, following in told:
        cover(coverage, first, following)
    assert coverage.totals(60_000) == {0: 30 * 7}
