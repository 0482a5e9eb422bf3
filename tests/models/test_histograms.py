"""Reference histograms count every value once, over edges that occurred, and read back as they were written."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.errors import BundleError
from models.histograms import Histogram, Histograms, histogram, read_histograms, reference, render_histograms

FLOATS = arrays.arrays(np.float32, st.integers(0, 80), elements=st.floats(width=32))


def naive_counts(values, edges):
    counts, missing = [0] * (len(edges) + 1), 0
    for value in values.tolist():
        if math.isnan(value):
            missing += 1
        else:
            counts[sum(edge <= value for edge in edges)] += 1
    return counts, missing


@given(FLOATS, FLOATS)
def test_counts_equal_a_naive_count_on_the_values_and_on_others(values, others):
    found = histogram(values)
    assert (found.counts, found.missing) == naive_counts(values, found.edges)
    assert found.events == len(values)
    assert set(found.edges) <= set(values.tolist())
    later = found.count(others)
    assert later.edges == found.edges
    assert (later.counts, later.missing) == naive_counts(others, found.edges)


def test_bins_hold_about_equally_many_of_a_smooth_feature():
    values = np.random.default_rng(3).lognormal(size=10_000).astype(np.float32)
    assert all(490 <= count <= 510 for count in histogram(values).counts)


def test_a_value_that_is_most_of_a_feature_has_a_bin_of_its_own():
    values = np.array([0] * 90 + [1] * 5 + [2] * 5, np.float32)
    found = histogram(values)
    assert found.edges == [1.0]
    assert found.counts[0] == 90


def test_they_read_back_as_written():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 2)).astype(np.float32)
    x[::7, 1] = np.nan
    made = reference(x, ["a", "b"], rng.random(99).astype(np.float32))
    assert read_histograms(render_histograms(made), ["a", "b"]) == made
    assert made.features["b"].missing == 72
    assert made.score.events == 99
    with pytest.raises(BundleError, match="not of this model's features"):
        read_histograms(render_histograms(made), ["a", "c"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"features": {}, "score": {"edges": [1, 1], "counts": [0, 0, 0], "missing": 0}}',
        b'{"features": {}, "score": {"edges": [1], "counts": [0], "missing": 0}}',
        b'{"features": {}, "score": {"edges": [1], "counts": [0, -1], "missing": 0}}',
    ],
)
def test_histograms_that_are_none_are_an_error_of_ours(content):
    with pytest.raises(BundleError, match="not readable"):
        read_histograms(content, [])


def test_features_counted_over_different_numbers_of_events_are_refused():
    one = Histogram([1.0], [3, 4], 0)
    other = Histogram([1.0], [3, 5], 0)
    with pytest.raises(BundleError, match="not of this model's features"):
        read_histograms(render_histograms(Histograms({"a": one, "b": other}, one)), ["a", "b"])


def test_a_score_that_is_rounded_otherwise_stays_in_its_bin():
    rng = np.random.default_rng(5)
    leaves = np.sort(rng.beta(0.3, 20, 40)).astype(np.float32)  # trees give many payments one score
    scores = rng.choice(leaves, 20_000, p=rng.dirichlet(np.full(40, 0.3)))
    made = reference(rng.normal(size=(10, 1)).astype(np.float32), ["a"], scores).score
    for error in (-2e-5, 2e-5):
        assert made.count((scores * (1 + error)).astype(np.float32)) == made


@given(FLOATS)
def test_edges_in_gaps_are_edges_that_count_as_naively(values):
    found = histogram(values, apart=1e-4)
    assert (found.counts, found.missing) == naive_counts(values, found.edges)
