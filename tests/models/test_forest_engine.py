"""The compiled forest reaches the very leaves its library reaches, and adds them up the same way on every path."""

import math
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from forests import MAX, awkward_rows, both_kinds, forest_of, random_forest
from models.errors import EngineError
from models.forest import Forest
from models.forest_bank import MAX_BYTE_THRESHOLDS, MAX_LEAVES, MAX_THRESHOLDS, build_bank
from models.forest_engine import ForestEngine, ForestMargins
from models.forest_kernel import exp
from models.leafbits_kernel import ROWS
from models.meta import MetaModel

# By leaf bits however few the rows are, or never.
BITS, WALK = 1, 2 * ROWS
META = MetaModel(bias=-0.3, xgboost=0.4, lightgbm=0.7)


def reached(forest, x, crossover):
    """Return the nodes int64[n, T] reached by x: tree after tree is asked for its leaf, the others add nothing."""
    tree = np.repeat(np.arange(forest.n_trees), np.diff(forest.roots, append=len(forest.left)))
    columns = []
    for number in range(forest.n_trees):
        names = np.where(tree == number, np.arange(len(tree)), 0).astype(np.float64)
        kernel = ForestMargins(replace(forest, base=0.0, value=names), crossover)
        columns.append(kernel.margins(x))
    return np.stack(columns, axis=1).astype(np.int64)


def own_leaves(booster, x):
    """Return the library's own numbers of the leaves reached, int[n, T]."""
    if isinstance(booster, xgboost.Booster):
        # XGBoost names no leaves for infinities; the largest finite numbers stand on the same side of every threshold.
        data = xgboost.DMatrix(np.clip(x, -MAX, MAX))
        return booster.predict(data, pred_leaf=True).reshape(len(x), -1)
    return booster.predict(x, pred_leaf=True, num_threads=1).reshape(len(x), -1)


@pytest.mark.parametrize("crossover", [BITS, WALK], ids=["bits", "walk"])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", both_kinds())
def test_every_leaf_is_the_one_the_library_reaches(name, seed, crossover):
    booster, forest = forest_of(name, seed)
    x = awkward_rows(forest, seed, n=1500)
    leaves = reached(forest, x, crossover)
    np.testing.assert_array_equal(leaves, forest.leaves(x))
    np.testing.assert_array_equal(forest.leaf_id[leaves], own_leaves(booster, x))


def test_the_forests_tried_bring_out_each_layout():
    """Otherwise the leaf tests would prove nothing about them."""
    banks = [build_bank(forest_of(name)[1]) for name in both_kinds()]
    assert {bank.bits.bound.dtype.itemsize for bank in banks} == {1, 2}
    walked = [(np.diff(bank.bits.word_starts) == 0).any() for bank in banks]
    assert {True, False} == set(walked)
    assert any(bank.walk.depth.min() == 0 for bank in banks)
    flips = [bank.ranking.flip.any() and not bank.ranking.flip.all() for bank in banks]
    assert any(flips)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_features=st.integers(1, 5),
    n_trees=st.integers(1, 9),
    most_leaves=st.sampled_from([1, 2, 8, 9, 31, 64, MAX_LEAVES, MAX_LEAVES + 40]),
    distinct=st.sampled_from([1, 3, MAX_BYTE_THRESHOLDS, 2000]),
)
def test_random_trees_lead_to_the_same_leaf_by_bits_and_on_foot(seed, n_features, n_trees, most_leaves, distinct):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, n_features, n_trees, most_leaves, distinct)
    x = awkward_rows(forest, seed, n=ROWS + 17)
    reference = forest.leaves(x)
    for crossover in (BITS, WALK):
        np.testing.assert_array_equal(reached(forest, x, crossover), reference)


def stumps(thresholds):
    """Return a forest that asks one feature for 0, 1, 2 ..., every other time with NaN going left."""
    inner = np.tile([True, False, False], thresholds)
    at = np.arange(3 * thresholds)
    return Forest(
        1,
        0.0,
        at[::3].astype(np.int32),
        np.zeros(len(at), np.int32),
        np.repeat(np.arange(thresholds, dtype=np.float32), 3),
        np.repeat(np.arange(thresholds) % 2 == 0, 3),
        np.where(inner, at + 1, -1).astype(np.int32),
        np.where(inner, at + 2, -1).astype(np.int32),
        at.astype(np.float64),
        at.astype(np.int32),
        np.ones(len(at)),
    )


@pytest.mark.parametrize("thresholds", [MAX_BYTE_THRESHOLDS, MAX_BYTE_THRESHOLDS + 1, MAX_THRESHOLDS])
def test_ranks_hold_at_their_type_s_greatest(thresholds):
    """The greatest rank must not be taken for a NaN's, nor overflow when reversed."""
    forest = stumps(thresholds)
    x = np.array([[-np.inf], [-1], [0], [thresholds - 2], [thresholds - 1], [np.inf], [np.nan]], np.float32)
    for crossover in (BITS, WALK):
        np.testing.assert_array_equal(ForestMargins(forest, crossover).margins(x), forest.margins(x))


def test_more_thresholds_than_two_bytes_can_rank_are_refused():
    with pytest.raises(EngineError, match="has a feature with 65536 thresholds"):
        ForestMargins(stumps(MAX_THRESHOLDS + 1))


@pytest.fixture(scope="module")
def forests():
    return forest_of("xgboost depth-6")[1], forest_of("lightgbm 31-leaves")[1]


@pytest.fixture(scope="module")
def x(forests):
    return np.concatenate([awkward_rows(forest, seed, n=2048) for seed, forest in enumerate(forests)])


def test_a_score_has_the_same_bits_on_every_path_in_every_batch_and_position(forests, x):
    expected = ForestEngine(*forests, META).score(x)
    for crossover in (BITS, 100, WALK):
        engine = ForestEngine(*forests, META, crossover)
        for size in (1, 7, 512, 4096):
            rows = len(x) if size > 1 else 300
            scores = np.concatenate([engine.score(x[at : at + size]) for at in range(0, rows, size)])
            np.testing.assert_array_equal(scores.view(np.uint32), expected[:rows].view(np.uint32))
    turned = np.arange(len(x))[::-1]
    np.testing.assert_array_equal(ForestEngine(*forests, META).score(x[turned]), expected[turned])


def test_leaf_values_are_added_in_the_order_of_the_trees(forests, x):
    for forest in forests:
        expected = np.full(len(x), forest.base)
        for values in forest.value[forest.leaves(x)].T:
            expected += values
        for crossover in (BITS, WALK):
            np.testing.assert_array_equal(ForestMargins(forest, crossover).margins(x), expected)


def test_engines_side_by_side_in_threads_do_not_disturb_each_other(forests, x):
    expected = ForestEngine(*forests, META).score(x)
    engines = [ForestEngine(*forests, META) for _ in range(4)]
    found = [[] for _ in engines]

    def work(engine, mine):
        mine.extend(engine.score(x) for _ in range(20))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(engines, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((scores == expected).all() for mine in found for scores in mine)
    assert [len(mine) for mine in found] == [20] * 4


SCORE = """
import sys
import numpy as np
from models.bundle import open_bundle
from models.ensemble import load_engine
from pathlib import Path
x = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(-1, 6)
sys.stdout.buffer.write(load_engine(open_bundle(Path(sys.argv[1])), "forest").score(x).tobytes())
"""


def test_another_process_gives_the_same_bits(bundle, history):
    from models.ensemble import load_engine

    rows = history.features[:1000]
    command = [sys.executable, "-c", SCORE, str(bundle.directory)]
    done = subprocess.run(command, input=rows.tobytes(), capture_output=True, check=True, timeout=120)
    assert done.stdout == load_engine(bundle, "forest").score(rows).tobytes()


def test_a_score_is_the_sigmoid_of_the_weighted_margins(forests, x):
    engine = ForestEngine(*forests, META)
    margins = np.column_stack([forest.margins(x) for forest in forests])
    np.testing.assert_allclose(engine.margins(x), margins, rtol=0, atol=1e-12)
    expected = 1.0 / (1.0 + np.exp(-META.log_odds(margins)))
    np.testing.assert_allclose(engine.score(x), expected.astype(np.float32), rtol=2e-7)


@given(st.floats(-700, 700))
def test_the_exponential_is_right_to_the_last_digits(t):
    assert exp(t) == pytest.approx(math.exp(t), rel=1e-15)


@pytest.mark.parametrize(("bias", "score"), [(-1e300, 0.0), (-200.0, 0.0), (-30.0, 9.357623e-14), (1e300, 1.0)])
def test_extreme_log_odds_neither_overflow_nor_lose_their_digits(forests, x, bias, score):
    far = ForestEngine(*forests, MetaModel(bias, 0.0, 0.0))
    np.testing.assert_allclose(far.score(x[:3]), score, rtol=1e-6)


def test_rows_in_another_order_of_memory_are_scored_too(forests, x):
    engine = ForestEngine(*forests, META)
    np.testing.assert_array_equal(engine.score(np.asfortranarray(x)), engine.score(x))
    np.testing.assert_array_equal(engine.score(x[::2]), engine.score(x)[::2])
