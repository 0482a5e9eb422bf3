"""Whatever the libraries are told to train, every way through their trees ends in the leaves that they name."""

import lightgbm
import numpy as np
import onnxruntime
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from forests import awkward_rows
from models.forest import parse_lightgbm, parse_xgboost
from models.gate_parity import leaves_apart, lightgbm_leaves, xgboost_leaves
from models.meta import MetaModel
from models.onnx_graph import INPUT
from models.onnx_session import session_options
from models.tensor_graph import LEAVES, tensor_graph

META = MetaModel(-0.3, 0.6, 0.5)
ROUNDS = 3

XGBOOST = st.fixed_dictionaries(
    {
        "booster": st.sampled_from(["gbtree", "dart"]),
        "tree_method": st.sampled_from(["hist", "exact"]),
        "max_depth": st.integers(1, 8),
        "max_bin": st.sampled_from([2, 16, 256]),
        "min_child_weight": st.sampled_from([0.0, 1.0, 5.0]),
        "base_score": st.sampled_from([0.02, 0.5]),
    }
)
LIGHTGBM = st.fixed_dictionaries(
    {
        "boosting": st.sampled_from(["gbdt", "dart"]),
        "num_leaves": st.sampled_from([2, 7, 40]),
        "max_depth": st.sampled_from([-1, 2, 5]),
        "max_bin": st.sampled_from([3, 16, 255]),
        "use_missing": st.booleans(),
        "min_data_in_leaf": st.sampled_from([1, 20]),
    }
)
SPECIAL = np.array([np.nan, 0.0, -0.0, 1e-45, -1e-45, 1e-40, 5e-36, -1e-35, 3e38, -3e38], np.float32)


def drawn_data(seed, missing):
    """Rows float32[300, 5] and labels: numbers, counts, flags that are often missing, special values, huge ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    x[:, 1] = rng.poisson(2, 300)
    x[:, 2] = rng.integers(0, 2, 300)
    x[:, 3] = np.where(rng.random(300) < 0.5, rng.choice(SPECIAL[1:], 300), x[:, 3])
    x[:, 4] *= np.float32(1e36)
    x[:, :3][rng.random((300, 3)) < missing] = np.nan
    risk = np.nan_to_num(x[:, 0]) + np.isnan(x[:, 2]) + x[:, 4] / 1e36 + np.sign(x[:, 3])
    return x, (risk + rng.normal(size=300) > 1.0).astype(np.int8)


@settings(max_examples=25, deadline=None)
@given(
    chosen=st.one_of(st.tuples(st.just("xgboost"), XGBOOST), st.tuples(st.just("lightgbm"), LIGHTGBM)),
    missing=st.sampled_from([0.0, 0.1, 0.7]),
    seed=st.integers(0, 2**31 - 1),
)
def test_leaves_are_those_that_the_library_names(chosen, missing, seed):
    library, params = chosen
    x, y = drawn_data(seed, missing)
    if library == "xgboost":
        params = {"objective": "binary:logistic", "nthread": 1, "seed": seed, "verbosity": 0, **params}
        raw = bytes(xgboost.train(params, xgboost.DMatrix(x, y, nthread=1), ROUNDS).save_raw("json"))
        forest, named = parse_xgboost(raw), lambda rows: xgboost_leaves(raw, rows)
    else:
        params = {"objective": "binary", "num_threads": 1, "seed": seed, "verbose": -1, **params}
        text = lightgbm.train(params, lightgbm.Dataset(x, y, params=params), ROUNDS).model_to_string()
        forest, named = parse_lightgbm(text), lambda rows: lightgbm_leaves(text, rows)

    # Thresholds, their neighbours one ULP away, NaN, infinities, both zeros, denormals; and what was learned from.
    rows = np.concatenate([awkward_rows(forest, seed, n=200), x[:100]])
    expected = named(rows)
    np.testing.assert_array_equal(forest.leaf_id[forest.leaves(rows)], expected)
    assert leaves_apart(forest, expected, rows, np.random.default_rng(seed)) == 0  # both paths of the compiled kernel
    graph = tensor_graph(forest, forest, META, leaves=True)
    session = onnxruntime.InferenceSession(graph, session_options(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(forest.leaf_id[session.run([LEAVES[1]], {INPUT: rows})[0]], expected)
