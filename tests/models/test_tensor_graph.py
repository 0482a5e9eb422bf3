"""The forest as plain tensor operators reaches the same leaves and sums them alike in any batch, by any strategy."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forests import awkward_rows, both_kinds, forest_of, random_forest
from models.bundle import open_bundle
from models.ensemble import OnnxEngine, read_forests, session_options
from models.forest import parse_lightgbm, parse_xgboost
from models.gate_parity import lightgbm_leaves, xgboost_leaves
from models.meta import MetaModel
from models.onnx_graph import INPUT, MARGINS, SCORE
from models.tensor_engine import CPU, TensorEngine
from models.tensor_graph import LEAVES, tensor_graph
from models.tensor_trees import MATRIX_DEPTH, PERFECT_DEPTH, STRATEGIES, parts_missing, strategy_of, tree_depths

META = MetaModel(-0.3, 0.6, 0.5)

#: What ONNX Runtime's table of CUDA kernels lists at opset 17 for float32, int32 and bool, and nothing that cuDNN
#: computes or that sums in an order of its own.
ON_CUDA = {
    *("Add", "Cast", "Concat", "Div", "Equal", "Exp", "Gather", "GatherElements", "GreaterOrEqual", "IsNaN", "MatMul"),
    *("Mul", "Neg", "Reshape", "Split", "Transpose", "Where"),
}

#: How deep a tree each strategy can be made to take in a test: beyond, its tables no longer fit.
DEEPEST = {"matrix": 6, "perfect": 12, "traversal": 400}


def run(graph, x, *outputs):
    session = onnxruntime.InferenceSession(graph, session_options(), providers=["CPUExecutionProvider"])
    return session.run(list(outputs), {INPUT: x})


def bits(scores):
    return scores.view(np.uint32)


def forced(name):
    """Take one strategy wherever it can be."""
    return lambda depth: name if depth <= DEEPEST[name] else "traversal"


@pytest.fixture(scope="module")
def stump():
    return forest_of("xgboost stumps")[1]


@pytest.mark.parametrize("name", both_kinds())
def test_every_strategy_reaches_the_leaves_of_the_libraries(name, stump):
    _, forest = forest_of(name)
    x = awkward_rows(forest, seed=1, n=1500)
    expected = forest.leaves(x)
    deepest = tree_depths(forest).max()
    for strategy in STRATEGIES:
        if deepest <= DEEPEST[strategy]:
            graph = tensor_graph(stump, forest, META, leaves=True, choose=forced(strategy))
            np.testing.assert_array_equal(run(graph, x, LEAVES[1])[0], expected, strategy)


def test_every_strategy_is_tried_on_more_than_one_kind_of_forest():
    deepest = [tree_depths(forest_of(name)[1]).max() for name in both_kinds()]
    assert all(sum(depth <= limit for depth in deepest) > 1 for limit in DEEPEST.values())
    assert max(deepest) > DEEPEST["perfect"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_features=st.integers(1, 9),
    n_trees=st.integers(1, 9),
    most_leaves=st.sampled_from([1, 2, 6, 20, 60]),
    mixed=st.booleans(),
)
def test_random_forests_keep_their_leaves(seed, n_features, n_trees, most_leaves, mixed):
    rng = np.random.default_rng(seed)
    first, second = (random_forest(rng, n_features, n_trees, most_leaves, distinct=12) for _ in range(2))
    names = list(STRATEGIES)

    def any_of_them(depth):
        return forced(names[(depth + seed) % 3])(depth) if mixed else strategy_of(depth)

    graph = tensor_graph(first, second, META, leaves=True, choose=any_of_them)
    for forest, name in zip((first, second), LEAVES, strict=True):
        x = awkward_rows(forest, seed, n=150)
        np.testing.assert_array_equal(run(graph, x, name)[0], forest.leaves(x))


def test_a_tree_s_depth_is_that_of_its_deepest_leaf():
    rng = np.random.default_rng(5)
    forest = random_forest(rng, 3, 30, 40, distinct=9)

    def depth(node):
        return 0 if forest.left[node] < 0 else 1 + max(depth(forest.left[node]), depth(forest.right[node]))

    assert tree_depths(forest).tolist() == [depth(root) for root in forest.roots.tolist()]
    assert {strategy_of(d) for d in (0, MATRIX_DEPTH)} == {"matrix"}
    assert {strategy_of(d) for d in (MATRIX_DEPTH + 1, PERFECT_DEPTH)} == {"perfect"}
    assert strategy_of(PERFECT_DEPTH + 1) == "traversal"


@pytest.fixture(scope="module")
def forests():
    return forest_of("xgboost depth-6")[1], forest_of("lightgbm deep")[1]


@pytest.mark.parametrize("size", [1, 7, 512])
def test_a_score_does_not_depend_on_its_batch(forests, size):
    x = awkward_rows(forests[0], seed=3, n=4096)
    graph = tensor_graph(*forests, META)
    session = onnxruntime.InferenceSession(graph, session_options(), providers=["CPUExecutionProvider"])
    whole, margins = session.run([SCORE, MARGINS], {INPUT: x})
    for at in [*range(0, 256, size), 4096 - size]:
        part, own = session.run([SCORE, MARGINS], {INPUT: x[at : at + size]})
        np.testing.assert_array_equal(bits(part), bits(whole[at : at + size]))
        np.testing.assert_array_equal(bits(own), bits(margins[at : at + size]))


def test_a_score_does_not_depend_on_the_strategies():
    forests = forest_of("xgboost stumps")[1], forest_of("lightgbm stumps")[1]
    x = awkward_rows(forests[1], seed=3, n=500)
    scores = [run(tensor_graph(*forests, META, choose=forced(name)), x, SCORE)[0] for name in STRATEGIES]
    np.testing.assert_array_equal(bits(scores[1]), bits(scores[0]))
    np.testing.assert_array_equal(bits(scores[2]), bits(scores[0]))


def test_margins_and_scores_are_those_of_the_graph_of_trees(bundle, history):
    forests = parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm)
    x = history.features[:2000]
    scores, margins = run(tensor_graph(*forests, bundle.meta), x, SCORE, MARGINS)
    onnx_engine = OnnxEngine(bundle)
    np.testing.assert_allclose(margins, np.column_stack([f.margins(x) for f in forests]), rtol=0, atol=5e-6)
    np.testing.assert_allclose(margins, onnx_engine.margins(x), rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, onnx_engine.score(x), rtol=1e-5)


def test_the_graph_holds_only_plain_operators_that_a_gpu_has(forests):
    shallow = forest_of("lightgbm stumps")[1]
    for pair in (forests, (shallow, forests[1]), (shallow, shallow)):
        nodes = onnx.load_from_string(tensor_graph(*pair, META, leaves=True)).graph.node
        assert {node.domain for node in nodes} == {""}
        assert {node.op_type for node in nodes} <= ON_CUDA


def test_equal_forests_give_equal_bytes(forests):
    assert tensor_graph(*forests, META) == tensor_graph(*forests, META)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_split_between_missing_values_and_all_numbers_is_exact_with_infinities(stump, strategy):
    inner = stump.left >= 0
    low = np.where(inner, np.float32(-np.inf), stump.threshold)
    x = awkward_rows(stump, seed=2, n=300)
    assert np.isneginf(x).any()
    assert np.isnan(x).any()
    for nan_left in (inner, np.zeros_like(inner), inner & (np.arange(len(inner)) % 2 == 0)):
        odd = replace(stump, threshold=low, nan_left=nan_left)
        for pair, name in (((odd, stump), LEAVES[0]), ((stump, odd), LEAVES[1])):
            graph = tensor_graph(*pair, META, leaves=True, choose=forced(strategy))
            np.testing.assert_array_equal(run(graph, x, name)[0], odd.leaves(x))


def test_a_model_trained_where_devices_are_missing_reaches_the_libraries_leaves(model_bundle):
    """LightGBM parts "no device" from all numbers there, as `first_seen_device_30d` is missing without one."""
    trained = open_bundle(model_bundle)
    forests = read_forests(trained)
    column = trained.feature_names.index("first_seen_device_30d")
    assert any(parts_missing(forest).any() for forest in forests)
    assert {int(c) for forest in forests for c in forest.feature[parts_missing(forest)]} >= {column}
    rng = np.random.default_rng(4)
    x = np.concatenate([awkward_rows(forest, seed=4, n=1500) for forest in forests])
    x[:, column] = rng.choice(np.array([np.nan, 0, 1, -np.inf, np.inf], np.float32), len(x))
    found = run(tensor_graph(*forests, trained.meta, leaves=True), x, *LEAVES, MARGINS)
    np.testing.assert_array_equal(ids(forests[0], found[0]), xgboost_leaves(trained.xgboost, x))
    np.testing.assert_array_equal(ids(forests[1], found[1]), lightgbm_leaves(trained.lightgbm, x))
    engine = TensorEngine(*forests, trained.meta, provider=CPU)
    for margins in (found[2], engine.margins(x)):
        apart = trained.meta.log_odds(margins) - trained.meta.log_odds(OnnxEngine(trained).margins(x))
        assert np.abs(apart).max() <= 1e-5


def ids(forest, nodes):
    """The libraries' own numbers of these leaves."""
    return forest.leaf_id[nodes]
