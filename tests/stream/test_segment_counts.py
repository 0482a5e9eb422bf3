"""Decisions by segment add up, whatever is cut off."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import segment_counts
from stream.observer import Scored, ScoredBy
from stream.segment_counts import SegmentCounts

NAMES = ("approve", "review", "decline")
BY = ScoredBy("m", "constant", "f", ("a",))


def scored(parts):
    """parts: lists of (segment, outcome)."""
    outcomes = np.array([outcome for part in parts for _, outcome in part], np.uint8)
    n = len(outcomes)
    segments = [[segment for segment, _ in part] for part in parts]
    return Scored(BY, np.zeros((n, 1), np.float32), np.zeros(n, np.float32), outcomes, NAMES, segments, [])


PART = st.lists(st.tuples(st.sampled_from(["DE", "FR", "US", "missing", "other"]), st.integers(0, 2)), min_size=1)


@given(st.lists(st.lists(PART, min_size=1, max_size=3), max_size=4))
@settings(deadline=None)
def test_counts_equal_a_naive_count(batches):
    counts, naive = SegmentCounts(50), Counter()
    for parts in batches:
        counts.add(scored(parts))
        naive.update((segment, NAMES[outcome]) for part in parts for segment, outcome in part)
    found = counts.take()
    assert {(s, d): c for s, by in found.items() for d, c in by.items() if c} == naive
    assert counts.take() == {}


def test_the_rarer_segments_become_other_and_the_frequent_ones_keep_their_names_when_they_are_rare_for_once():
    counts = SegmentCounts(2)
    counts.add(scored([[("DE", 0)] * 9 + [("FR", 0)] * 8 + [("US", 1)] * 2 + [("IT", 0)]]))
    assert counts.take() == {"DE": {"approve": 9}, "FR": {"approve": 8}, "other": {"review": 2, "approve": 1}}
    counts.add(scored([[("US", 0)] * 4 + [("FR", 0)] + [("DE", 2)] + [("other", 0)]]))
    assert counts.take() == {"FR": {"approve": 1}, "DE": {"decline": 1}, "other": {"approve": 5}}


def test_a_segment_that_is_an_id_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(segment_counts, "MOST_NAMES", 100)
    counts = SegmentCounts(3)
    for at in range(0, 1_000, 10):
        counts.add(scored([[(f"t-{at + i}", 0) for i in range(10)]]))
    assert len(counts._now) <= 101
    found = counts.take()
    assert sum(by["approve"] for by in found.values()) == 1_000
    assert len(found) == 4
    assert len(counts._ever) <= 101
