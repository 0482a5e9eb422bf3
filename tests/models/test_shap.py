"""Compiled contributions are Shapley values by their definition, and the libraries' own."""

from dataclasses import replace
from itertools import combinations
from math import factorial

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from forests import MAX, awkward_data, awkward_rows, both_kinds, forest_of, random_forest
from models.errors import ModelError
from models.lanes_kernel import WIDTH
from models.shap import Contributions
from models.shap_bank import ABOVE, INTS, build_shap


def conditional(forest, row, known):
    """Return the log-odds expected of a row of which only some features are known, tree by tree from the root."""

    def at(node):
        if forest.left[node] < 0:
            return forest.value[node]
        left, right = forest.left[node], forest.right[node]
        if forest.feature[node] in known:
            seen = row[forest.feature[node]]
            goes_left = forest.nan_left[node] if np.isnan(seen) else seen < forest.threshold[node]
            return at(left if goes_left else right)
        return (forest.cover[left] * at(left) + forest.cover[right] * at(right)) / forest.cover[node]

    return forest.base + sum(at(root) for root in forest.roots)


def shapley(forest, row):
    """Return each feature's Shapley value float64[k]: the definition, over all subsets of the others."""
    k = forest.n_features
    worth = {
        subset: conditional(forest, row, set(subset))
        for size in range(k + 1)
        for subset in combinations(range(k), size)
    }
    values = np.zeros(k)
    for feature in range(k):
        for subset, alone in worth.items():
            if feature not in subset:
                weight = factorial(len(subset)) * factorial(k - len(subset) - 1) / factorial(k)
                values[feature] += weight * (worth[tuple(sorted((*subset, feature)))] - alone)
    return values


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_features=st.integers(1, 6),
    n_trees=st.integers(1, 4),
    most_leaves=st.sampled_from([1, 2, 5, 16, 40]),
)
def test_contributions_are_shapley_values_by_definition(seed, n_features, n_trees, most_leaves):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, n_features, n_trees, most_leaves, distinct=20)
    x = awkward_rows(forest, seed, n=3)
    explained = Contributions(forest)
    expected = np.array([shapley(forest, row) for row in x])
    np.testing.assert_allclose(explained.of(x), expected, rtol=0, atol=2e-6)
    assert explained.expected == pytest.approx(conditional(forest, x[0], set()), abs=1e-12)


def own_contributions(booster, x):
    """Return the library's contributions float64[n, k] and its bias float64[n]."""
    if isinstance(booster, xgboost.Booster):
        # XGBoost refuses infinities; the largest finite numbers stand on the same side of every threshold.
        parts = booster.predict(xgboost.DMatrix(np.clip(x, -MAX, MAX)), pred_contribs=True).astype(np.float64)
    else:
        parts = booster.predict(x, pred_contrib=True, num_threads=1)
    return parts[:, :-1], parts[:, -1]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", both_kinds())
def test_contributions_are_those_of_the_library(name, seed):
    booster, forest = forest_of(name, seed)
    x = np.concatenate([awkward_rows(forest, seed, n=300), awkward_data(seed)[0][:300]])
    explained = Contributions(forest)
    contributions, bias = own_contributions(booster, x)
    np.testing.assert_allclose(explained.of(x), contributions, rtol=0, atol=1e-5)
    np.testing.assert_allclose(explained.expected, bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", both_kinds())
def test_contributions_add_up_to_the_log_odds(name):
    _, forest = forest_of(name)
    x = awkward_rows(forest, seed=3, n=500)
    explained = Contributions(forest)
    np.testing.assert_allclose(explained.of(x).sum(axis=1) + explained.expected, forest.margins(x), rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [1, 2, WIDTH - 1, WIDTH, WIDTH + 1, 100])
def test_a_row_is_explained_the_same_in_whatever_batch(size):
    _, forest = forest_of("lightgbm 31-leaves")
    x = awkward_rows(forest, seed=4, n=200)
    explained = Contributions(forest)
    parts = [explained.of(x[at : at + size]) for at in range(0, len(x), size)]
    np.testing.assert_array_equal(np.concatenate(parts), Contributions(forest).of(x))


def test_features_repeat_on_paths_in_what_is_tried():
    """Otherwise the comparisons would prove nothing about the correction for them."""
    for name in ("xgboost depth-6", "lightgbm deep"):
        ints = build_shap(forest_of(name)[1]).nodes.ints
        assert 0 < np.count_nonzero(ints[ABOVE::INTS]) < len(ints) // INTS


def test_a_node_that_no_training_row_came_by_is_halved():
    _, forest = forest_of("xgboost depth-6")
    x = awkward_rows(forest, seed=5, n=50)
    explained = Contributions(replace(forest, cover=np.zeros_like(forest.cover)))
    total = explained.of(x).sum(axis=1) + explained.expected
    np.testing.assert_allclose(total, forest.margins(x), rtol=0, atol=5e-6)


def test_no_rows_have_no_contributions():
    _, forest = forest_of("xgboost stumps")
    assert Contributions(forest).of(np.empty((0, 8), np.float32)).shape == (0, 8)


def test_rows_of_another_width_are_refused():
    _, forest = forest_of("xgboost stumps")
    with pytest.raises(ModelError, match="takes rows of 8 features"):
        Contributions(forest).of(np.zeros((3, 7), np.float32))
