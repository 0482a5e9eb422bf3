"""The kernel counts every value as the reference histogram itself would, whatever the value and the batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models import bin_counts, ensemble
from models.bin_counts import BinCounts, round_up
from models.bin_kernel import ROWS
from models.histograms import Histogram, Histograms, reference

BOUNDS = (1, 10, 100)

FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4028235e38])
# An edge need not be a float32: whoever writes a bundle by hand may choose 0.1.
EDGES = st.lists(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e39, -1e39, 1e-46]),
    max_size=25,
)


def histogram_over(edges):
    edges = np.unique(np.array(edges, np.float64)).tolist()  # -0.0 and 0.0 are one
    return Histogram(edges, [0] * (len(edges) + 1), 0)


def expected(histogram, values):
    counted = histogram.count(values)
    return counted.counts, counted.missing


@given(
    EDGES,
    EDGES,
    EDGES,
    arrays.arrays(np.float32, st.tuples(st.integers(0, 70), st.just(3)), elements=FLOATS),
    st.data(),
)
@settings(deadline=None)
def test_counts_equal_those_of_the_histogram(first, second, third, values, data):
    one, other, score = map(histogram_over, (first, second, third))
    if len(values) and one.edges:  # values equal to an edge
        at = data.draw(st.integers(0, len(one.edges) - 1))
        with np.errstate(over="ignore"):
            values[data.draw(st.integers(0, len(values) - 1)), 0] = one.edges[at]
    counts = BinCounts(Histograms({"one": one, "other": other}, score), ["one", "other"], BOUNDS)
    cut = data.draw(st.integers(0, len(values)))
    for part in (values[:cut], values[cut:]):
        counts.add(part[:, :2], part[:, 2], np.zeros(len(part)))
    assert counts.events == len(values)
    found = counts.take()
    assert found[:3] == [expected(one, values[:, 0]), expected(other, values[:, 1]), expected(score, values[:, 2])]


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 7])
def test_whatever_its_size_a_batch_is_counted_whole(rows):
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(3 * ROWS, 24)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    scores = rng.random(3 * ROWS).astype(np.float32)
    references = reference(x, [f"f{at}" for at in range(24)], scores)
    latency = rng.integers(-3, 130, rows).astype(np.float64)
    counts = BinCounts(references, list(references.features), BOUNDS)
    counts.add(x[:rows], scores[:rows], latency)
    *features, score, latencies = counts.take()
    assert features == [expected(one, x[:rows, at]) for at, one in enumerate(references.features.values())]
    assert score == expected(references.score, scores[:rows])
    assert latencies == (np.bincount(np.searchsorted(BOUNDS, latency), minlength=4).tolist(), 0)


def test_a_latency_belongs_to_the_bin_whose_bound_it_meets_and_a_negative_one_to_the_first():
    counts = BinCounts(None, ["a"], BOUNDS)
    latency = np.array([-5, 0, 1, 1.5, 2, 10, 11, 100, 101, 1e12])
    counts.add(np.zeros((10, 1), np.float32), np.zeros(10, np.float32), latency)
    *_, latencies = counts.take()
    assert latencies == ([3, 3, 2, 2], 0)


def test_after_they_are_taken_counts_begin_at_zero():
    references = Histograms({"a": histogram_over([0.5])}, histogram_over([0.5]))
    counts = BinCounts(references, ["a"], BOUNDS)
    counts.add(np.ones((3, 1), np.float32), np.zeros(3, np.float32), np.zeros(3))
    assert counts.take() == [([0, 3], 0), ([3, 0], 0), ([3, 0, 0, 0], 0)]
    assert counts.take() == [([0, 0], 0), ([0, 0], 0), ([0, 0, 0, 0], 0)]


@given(st.floats(allow_nan=False, allow_infinity=False), FLOATS)
@settings(deadline=None)
def test_an_edge_rounded_up_divides_all_float32_as_before(edge, value):
    value = np.float32(value)
    assert (value >= round_up([edge])[0]) == (np.float64(value) >= edge)


def test_what_is_warmed_at_installation_counts_too(monkeypatch):
    """Else a worker's first start in a new container compiles it."""
    called = []
    monkeypatch.setattr(bin_counts, "count_above", lambda *arguments: called.append(len(arguments)))
    ensemble.warm()
    assert called == [8]
