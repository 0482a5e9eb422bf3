"""Decisions by segment add up, whatever is cut off."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scored_rows import Rows
from stream import segment_counts
from stream.observer import Scored, ScoredBy
from stream.segment_counts import SegmentCounts

NAMES = ("approve", "review", "decline")
BY = ScoredBy("m", "constant", "f", ("a",))


def scored(rows):
    """rows: (segment, outcome) each."""
    segments, outcomes = [segment for segment, _ in rows], np.array([outcome for _, outcome in rows], np.uint8)
    n = len(rows)
    told = Rows(segments, np.zeros(n, np.int64))
    return Scored(BY, np.zeros((n, 1), np.float32), np.zeros(n, np.float32), outcomes, NAMES, told)


ROW = st.tuples(st.sampled_from(["DE", "FR", "US", "missing", "other"]), st.integers(0, 2))


@given(st.lists(st.lists(ROW, min_size=1), max_size=4))
@settings(deadline=None)
def test_counts_equal_a_naive_count(batches):
    counts, naive = SegmentCounts(50), Counter()
    for rows in batches:
        counts.add(scored(rows))
        naive.update((segment, NAMES[outcome]) for segment, outcome in rows)
    found = counts.take()
    assert {(s, d): c for s, by in found.items() for d, c in by.items() if c} == naive
    assert counts.take() == {}


def test_the_rarer_segments_become_other_and_the_frequent_ones_keep_their_names_when_they_are_rare_for_once():
    counts = SegmentCounts(2)
    counts.add(scored([("DE", 0)] * 9 + [("FR", 0)] * 8 + [("US", 1)] * 2 + [("IT", 0)]))
    assert counts.take() == {"DE": {"approve": 9}, "FR": {"approve": 8}, "other": {"review": 2, "approve": 1}}
    counts.add(scored([("US", 0)] * 4 + [("FR", 0)] + [("DE", 2)] + [("other", 0)]))
    assert counts.take() == {"FR": {"approve": 1}, "DE": {"decline": 1}, "other": {"approve": 5}}


def test_only_so_many_names_are_told_in_all_records_together():
    counts = SegmentCounts(2)
    told = []
    for segments in (["a", "b"], ["d", "e"], ["f", "g"], ["a", "h"]):
        counts.add(scored([(segment, 0) for segment in segments]))
        told.append(counts.take())
    assert told == [
        {"a": {"approve": 1}, "b": {"approve": 1}},
        {"other": {"approve": 2}},
        {"other": {"approve": 2}},
        {"a": {"approve": 1}, "other": {"approve": 1}},
    ]


def test_a_name_passes_to_a_segment_that_is_by_far_more_frequent_and_stays_there():
    counts = SegmentCounts(2)
    told = []
    for segments in ("xy", "abx" * 10, "ab" * 100, "abyx" * 100):
        counts.add(scored([(segment, 0) for segment in segments]))
        told.append(sorted(counts.take().keys() - {"other"}))
    assert told == [["x", "y"], ["x"], ["a", "b"], ["a", "b"]]


@pytest.mark.parametrize("values", [200, 20_000])
def test_a_field_of_many_values_names_as_many_in_an_hour_as_in_a_record(values, monkeypatch):
    monkeypatch.setattr(segment_counts, "MOST_RANKED", 2_000)
    rng = np.random.default_rng(5)
    counts, names = SegmentCounts(50), set()
    records = 300
    for drawn in rng.integers(0, values, (records, 500)).tolist():
        counts.add(scored([(str(value), 0) for value in drawn]))
        found = counts.take()
        assert sum(by["approve"] for by in found.values()) == 500
        names |= found.keys()
    assert 50 <= len(names - {"other"}) <= 60
    assert len(counts._ever) <= 2_000


def test_frequent_segments_keep_their_names_among_ids(monkeypatch):
    monkeypatch.setattr(segment_counts, "MOST_RANKED", 100)
    counts = SegmentCounts(3)
    for record in range(60):
        ids = [(f"t-{record}-{at}", 0) for at in range(150)]
        counts.add(scored(ids + [("DE", 0), ("FR", 0), ("US", 0)] * 50 * (record >= 20)))
        found = counts.take()
    assert found == {"DE": {"approve": 50}, "FR": {"approve": 50}, "US": {"approve": 50}, "other": {"approve": 150}}


def test_a_segment_that_is_an_id_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(segment_counts, "MOST_NAMES", 100)
    monkeypatch.setattr(segment_counts, "MOST_RANKED", 50)
    counts = SegmentCounts(3)
    for at in range(0, 1_000, 10):
        counts.add(scored([(f"t-{at + i}", 0) for i in range(10)]))
    assert len(counts._now) <= 101
    found = counts.take()
    assert sum(by["approve"] for by in found.values()) == 1_000
    assert len(found) == 4
    assert len(counts._ever) <= 50
