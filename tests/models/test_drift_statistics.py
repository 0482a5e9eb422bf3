"""Statistics over histograms equal SciPy's, or a naive computation, on the raw values; nothing divides by zero."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from models.drift_statistics import (
    ChiSquared,
    KolmogorovSmirnov,
    chi_squared,
    jensen_shannon,
    kolmogorov_smirnov,
    kullback_leibler,
    missing_shift,
    psi,
    psi_by_chance,
    significant,
    superiority,
)

VALUES = st.lists(st.integers(0, 6), min_size=2, max_size=120)
COUNTS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=25)
BINS = 7


def counted(values):
    return np.bincount(values, minlength=BINS)


def shares(before, after):
    """Half an event a bin, evenly before, and in the proportions of before afterwards."""
    p = [(sum(value == number for value in before) + 0.5) / (len(before) + 0.5 * BINS) for number in range(BINS)]
    held = [sum(value == number for value in after) for number in range(BINS)]
    return p, [(count + 0.5 * BINS * share) / (len(after) + 0.5 * BINS) for count, share in zip(held, p, strict=True)]


@given(VALUES, VALUES)
def test_distances_equal_a_naive_computation_and_scipys(before, after):
    p, q = shares(before, after)
    reference, current = counted(before), counted(after)
    naive = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert psi(reference, current) == pytest.approx(naive, abs=1e-12)
    assert kullback_leibler(reference, current) == pytest.approx(stats.entropy(q, p), abs=1e-12)
    assert jensen_shannon(reference, current) == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-12)


@settings(max_examples=40)
@given(VALUES, VALUES)
def test_rank_statistics_equal_scipys_on_the_raw_values_where_each_has_its_own_bin(before, after):
    reference, current = counted(before), counted(after)
    found = kolmogorov_smirnov(reference, current)
    raw = stats.ks_2samp(before, after, method="asymp")
    assert found.statistic == pytest.approx(raw.statistic, abs=1e-12)
    limit = math.sqrt(len(before) * len(after) / (len(before) + len(after)))
    assert found.p_value == pytest.approx(stats.kstwobign.sf(limit * raw.statistic), abs=1e-9)
    above = stats.mannwhitneyu(after, before).statistic / (len(before) * len(after))
    assert superiority(reference, current) == pytest.approx(above, abs=1e-12)


def test_binning_makes_the_ks_statistic_smaller_and_its_p_value_larger_never_the_reverse():
    rng = np.random.default_rng(5)
    for shift in (0.0, 0.05, 0.3):
        before, after = rng.normal(size=900), rng.normal(shift, 1, size=700)
        edges = np.quantile(before, np.arange(1, 20) / 20)
        found = kolmogorov_smirnov(*(np.bincount(np.searchsorted(edges, x), minlength=20) for x in (before, after)))
        raw = stats.ks_2samp(before, after, method="asymp")
        assert found.statistic <= raw.statistic
        assert found.p_value >= raw.pvalue * 0.98  # the limit is a little below the finite distribution


@given(COUNTS)
def test_chi_squared_equals_scipys_over_merged_bins_which_all_expect_five(pairs):
    reference, current = np.array(pairs).T
    found = chi_squared(reference, current)
    if not reference.sum() or not current.sum():
        assert found == ChiSquared()
        return
    share = min(reference.sum(), current.sum()) / (reference.sum() + current.sum())
    merged = [[0, 0]]
    for pair in pairs:  # a bin is closed once it expects 5; what is left over joins the last one
        if sum(merged[-1]) * share >= 5 - 1e-9:
            merged.append([0, 0])
        merged[-1] = [merged[-1][0] + pair[0], merged[-1][1] + pair[1]]
    if len(merged) > 1 and sum(merged[-1]) * share < 5 - 1e-9:
        last = merged.pop()
        merged[-1] = [merged[-1][0] + last[0], merged[-1][1] + last[1]]
    if len(merged) < 2:
        assert found == ChiSquared()
        return
    raw = stats.chi2_contingency(np.array(merged).T, correction=False)
    assert raw.expected_freq.min() >= 5 - 1e-9
    assert found.degrees == raw.dof
    assert found.statistic == pytest.approx(raw.statistic, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(raw.pvalue, abs=1e-9)


@given(st.integers(0, 500), st.integers(1, 500), st.integers(0, 500), st.integers(1, 500))
def test_the_test_of_missing_shares_equals_scipys_of_a_two_by_two_table(missing, known, missing_now, known_now):
    found = missing_shift(missing, missing + known, missing_now, missing_now + known_now)
    assert found.difference == pytest.approx(missing_now / (missing_now + known_now) - missing / (missing + known))
    table = np.array([[missing, known], [missing_now, known_now]])
    if table.sum(axis=0).min() == 0 or stats.contingency.expected_freq(table).min() < 5 - 1e-9:
        assert found.p_value == 1.0
    else:
        assert found.p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=40), st.sampled_from([0.01, 0.05, 0.3]))
def test_the_correction_equals_scipys(p_values, rate):
    found = significant(np.array(p_values, np.float64), rate)
    if p_values:
        adjusted = stats.false_discovery_control(p_values)
        near = np.isclose(adjusted, rate, rtol=1e-9)
        np.testing.assert_array_equal(found[~near], (adjusted <= rate)[~near])
    else:
        assert found.tolist() == []


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        ([0, 0, 0], [0, 0, 0]),
        ([0, 0, 0], [5, 9, 1]),
        ([50, 90, 10], [0, 0, 0]),
        ([1_000], [7]),
        ([0], [0]),
        ([900, 0], [1, 0]),
    ],
)
def test_empty_windows_and_constant_features_are_no_drift(reference, current):
    p, q = np.array(reference), np.array(current)
    for distance in (psi, kullback_leibler, jensen_shannon):
        assert distance(p, q) < 1e-3
    assert superiority(p, q) == 0.5
    assert chi_squared(p, q).p_value == 1.0
    assert kolmogorov_smirnov(p, q) == KolmogorovSmirnov()
    assert missing_shift(0, 0, 0, 0).p_value == missing_shift(9, 9, 4, 4).p_value == 1.0


def test_half_an_event_in_each_bin_moves_an_index_of_a_thousand_events_by_less_than_a_hundredth():
    p = np.full(20, 5_000)
    q = np.linspace(15, 85, 20).round().astype(int)
    raw = sum((b / q.sum() - a / p.sum()) * math.log(b / q.sum() / (a / p.sum())) for a, b in zip(p, q, strict=True))
    assert 0.15 < raw < 0.3
    assert abs(psi(p, q) - raw) < 0.01


def test_of_many_comparisons_without_drift_few_find_anything():
    rng = np.random.default_rng(11)
    shares_of = np.full(20, 1 / 20)
    false = 0
    for _ in range(400):
        tests = [
            chi_squared(rng.multinomial(50_000, shares_of), rng.multinomial(2_000, shares_of)).p_value
            for _ in range(25)
        ]
        false += significant(np.array(tests), 0.05).any()
    assert 4 <= false <= 36  # 20 expected: with nothing to find, a false discovery is any discovery


@pytest.mark.parametrize(("before", "now"), [(2_000, 500), (500, 500), (50_000, 1_000)])
def test_without_drift_the_index_is_on_average_what_chance_makes_of_so_few_events(before, now):
    rng = np.random.default_rng(5)
    shares = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    drawn = [(rng.multinomial(before, shares), rng.multinomial(now, shares)) for _ in range(2_000)]
    found = np.mean([psi(*pair) for pair in drawn])
    assert found == pytest.approx(psi_by_chance(*drawn[0]), rel=0.1)


def test_bins_that_neither_has_anything_in_and_empty_windows_add_nothing_by_chance():
    some = np.array([40, 0, 60, 0])
    assert psi_by_chance(some, some) == pytest.approx(0.02)
    assert psi_by_chance(some, 0 * some) == psi_by_chance(0 * some, some) == 0.0
