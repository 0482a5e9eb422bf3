"""The offsets recorded with commits: from where on the log covers the retention in event time."""

import random

from hypothesis import given
from hypothesis import strategies as st

from stream.coverage import MAX_SAMPLES, Coverage

RETENTION = 1000
FLOOR = st.none() | st.integers(-(2**41), 2**41)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(0, 2**32))
def test_everything_before_a_covered_offset_is_older_than_the_retention(steps, seed):
    rng = random.Random(seed)
    coverage, times, now = Coverage(), [], 0
    for step in steps:
        now += step
        times.append(now - rng.choice([0, 0, 0, 30, 400]))  # some come late
        coverage.observe(len(times), times[-1], RETENTION)
        at = coverage.covered_from(RETENTION)
        if at is not None:
            assert max(times[:at]) <= max(times) - RETENTION


def test_a_long_stream_is_covered_from_close_to_its_retention():
    coverage = Coverage()
    for offset in range(100_000):
        coverage.observe(offset + 1, offset, RETENTION)

    at = coverage.covered_from(RETENTION)

    assert at is not None
    assert 99_999 - RETENTION - RETENTION / 8 <= at <= 100_000 - RETENTION
    assert len(coverage.samples) <= MAX_SAMPLES
    assert len(coverage.text()) < 1024


def test_nothing_before_where_a_state_was_rebuilt_is_newer_than_its_floor():
    rng, coverage, times = random.Random(5), Coverage(), []
    for offset in range(3_000):
        times.append(10 * offset - rng.choice([0, 0, 0, 300, 40_000]))
        coverage.observe(offset + 1, times[-1], 10 * RETENTION)

    for offset in (coverage.covered_from(10 * RETENTION), coverage.samples[-3][0] - 7):
        coverage.rebuilt_from(offset)
        assert max(times[:offset]) <= coverage.floor_ms < times[-1]
    coverage.rebuilt_from(0)
    assert coverage.floor_ms is None


def test_a_young_stream_proves_nothing():
    coverage = Coverage()
    for offset in range(RETENTION):
        coverage.observe(offset + 1, offset, RETENTION)

    assert coverage.covered_from(RETENTION) is None


@given(
    st.lists(st.tuples(st.integers(0, 2**60), st.integers(-(2**40), 2**40)), max_size=40), st.integers(-9, 2**41), FLOOR
)
def test_what_a_commit_carries_reads_back_equal(samples, newest, floor):
    coverage = Coverage(list(samples), newest, floor)

    assert Coverage.parse(coverage.text()) == coverage


@given(st.text(max_size=80))
def test_a_foreign_tools_metadata_never_raises(text):
    Coverage.parse(text)


def test_metadata_of_another_tool_proves_nothing():
    assert Coverage.parse("set by kafka-consumer-groups").covered_from(RETENTION) is None
    assert Coverage.parse("").covered_from(RETENTION) is None
