"""The plain form reaches the very leaf that the training library's own `pred_leaf` names."""

import json
import re
from dataclasses import replace

import lightgbm
import numpy as np
import onnxruntime
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from forests import (
    LIGHTGBM_KINDS,
    MAX,
    XGBOOST_KINDS,
    awkward_data,
    awkward_rows,
    both_kinds,
    forest_of,
    train_lightgbm,
    train_xgboost,
)
from models.ensemble import session_options
from models.errors import BundleError
from models.forest import LIGHTGBM_ZERO, parse_lightgbm, parse_xgboost, strict_thresholds
from models.forest_engine import ForestMargins
from models.onnx_graph import serialise, tree_node


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", XGBOOST_KINDS)
def test_every_leaf_is_the_one_xgboost_reaches(kind, seed):
    booster = train_xgboost(kind, seed)
    forest = parse_xgboost(bytes(booster.save_raw("json")))
    x = awkward_rows(forest, seed)
    # XGBoost names no leaves for infinities; the largest finite numbers stand on the same side of every threshold.
    truth = booster.predict(xgboost.DMatrix(np.clip(x, -MAX, MAX)), pred_leaf=True).reshape(len(x), -1)
    np.testing.assert_array_equal(forest.leaf_id[forest.leaves(x)], truth)
    margins = booster.inplace_predict(x, predict_type="margin")
    np.testing.assert_allclose(forest.margins(x), margins, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", LIGHTGBM_KINDS)
def test_every_leaf_is_the_one_lightgbm_reaches(kind, seed):
    booster = train_lightgbm(kind, seed)
    forest = parse_lightgbm(booster.model_to_string())
    x = awkward_rows(forest, seed)
    truth = booster.predict(x, pred_leaf=True, num_threads=1).reshape(len(x), -1)
    np.testing.assert_array_equal(forest.leaf_id[forest.leaves(x)], truth)
    np.testing.assert_allclose(forest.margins(x), booster.predict(x, raw_score=True), rtol=0, atol=1e-9)


def test_the_training_data_brings_out_each_missing_value_rule():
    """Otherwise the leaf tests would prove nothing about it."""
    dumped = json.dumps(train_lightgbm("31-leaves").dump_model())
    assert '"missing_type": "NaN"' in dumped
    assert '"missing_type": "None"' in dumped
    forest = parse_lightgbm(train_lightgbm("no-missing").model_to_string())
    inner = forest.left >= 0
    np.testing.assert_array_equal(forest.nan_left[inner], forest.threshold[inner] > 0)
    assert len(set(forest.nan_left[inner])) == 2


def only_tree(forest, tree):
    """Return one tree whose leaves hold their own numbers, so that a sum of leaves names the leaf."""
    alone = forest.slice(tree, tree + 1)
    return replace(alone, value=np.maximum(alone.leaf_id, 0).astype(np.float64))


@pytest.mark.parametrize("name", both_kinds())
def test_the_exported_trees_reach_the_same_leaves(name):
    _, forest = forest_of(name)
    x = awkward_rows(forest, seed=9, n=2000)
    leaves = forest.leaf_id[forest.leaves(x)]
    outputs = [f"tree_{tree}" for tree in range(forest.n_trees)]
    graph = helper.make_graph(
        [tree_node(only_tree(forest, tree), "x", name) for tree, name in enumerate(outputs)],
        "leaves",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", forest.n_features])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in outputs],
    )
    session = onnxruntime.InferenceSession(serialise(graph), session_options(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(np.concatenate(session.run(outputs, {"x": x}), axis=1).astype(int), leaves)


@given(
    st.floats(allow_nan=False, allow_infinity=False) | st.floats(-2e-35, 2e-35),
    st.floats(width=32, allow_nan=False) | st.floats(np.float32(-2e-35), np.float32(2e-35), width=32),
)
def test_a_strict_threshold_answers_as_lightgbm_does(threshold, value):
    """LightGBM: an |x| up to its zero is 0; then x <= t in float64."""
    strict = strict_thresholds(np.array([threshold]))[0]
    for x in (np.float32(value), strict, np.nextafter(strict, np.float32(-MAX)), np.nextafter(strict, np.float32(MAX))):
        seen = 0.0 if abs(float(x)) <= LIGHTGBM_ZERO else float(x)
        assert (x < strict) == (seen <= threshold)


def test_a_split_between_known_and_missing_sends_even_infinity_with_the_known():
    """LightGBM gives it an infinite threshold, which its dump does not show."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 2)).astype(np.float32)
    x[:, 0] = np.where(rng.random(2_000) < 0.5, np.nan, 1.0)
    y = (np.isnan(x[:, 0]) & (x[:, 1] > 0)).astype(np.int8)
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 5)
    text = booster.model_to_string()
    assert " inf " in text or "=inf" in text
    forest = parse_lightgbm(text)
    rows = awkward_rows(forest, 1, n=500)
    rows[:9, 0] = [np.inf, -np.inf, np.nan, MAX, -MAX, 0.0, 1.0, np.nextafter(np.float32(1), np.float32(2)), -0.0]
    truth = lightgbm.Booster(model_str=text).predict(rows, pred_leaf=True).reshape(len(rows), -1)
    np.testing.assert_array_equal(forest.leaf_id[forest.leaves(rows)], truth)
    for crossover in (1, 1 << 20):
        np.testing.assert_array_equal(ForestMargins(forest, crossover).margins(rows), forest.margins(rows))


@pytest.mark.parametrize(("text", "probability"), [("5E-1", 0.5), ("[2.5E-1]", 0.25), ("0.03", 0.03)])
def test_the_base_score_is_read_as_older_and_newer_xgboost_write_it(text, probability):
    model = json.loads(bytes(train_xgboost("stumps").save_raw("json")))
    model["learner"]["learner_model_param"]["base_score"] = text
    forest = parse_xgboost(json.dumps(model).encode())
    assert forest.base == pytest.approx(np.log(probability / (1 - probability)))


def altered_xgboost(path, value):
    model = json.loads(bytes(train_xgboost("stumps").save_raw("json")))
    *way, last = path
    at = model["learner"]
    for step in way:
        at = at[step]
    at[last] = value
    return json.dumps(model).encode()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("gradient_booster", "name"), "gblinear", "train with booster gbtree or dart"),
        (("objective", "name"), "multi:softprob", "train with binary:logistic"),
        (("learner_model_param", "num_target"), "2", "train it with one"),
        (("learner_model_param", "base_score"), "[0E0]", "between 0 and 1"),
        (("learner_model_param", "num_feature"), "1", "beyond its 1"),
        (("gradient_booster", "model", "trees", 0, "split_type"), [1, 0, 0], "numbers only"),
        (("gradient_booster", "model", "trees"), [], "no trees"),
        (("gradient_booster",), {}, "not readable"),
    ],
)
def test_an_xgboost_model_of_another_kind_is_refused_by_name(path, value, words):
    with pytest.raises(BundleError, match=words):
        parse_xgboost(altered_xgboost(path, value))


def train_other_lightgbm(params, categorical="auto"):
    x, y = awkward_data(0)
    params = {"num_threads": 1, "verbose": -1, "objective": "binary", "min_data_per_group": 1, **params}
    data = lightgbm.Dataset(x[:, [0, 2]], y, params=params, categorical_feature=categorical)
    return lightgbm.train(params, data, 3).model_to_string()


@pytest.mark.parametrize(
    ("params", "categorical", "words"),
    [
        ({"objective": "regression"}, "auto", "train with binary"),
        ({"objective": "binary", "sigmoid": 2.0}, "auto", "sigmoid 1"),
        ({"zero_as_missing": True}, "auto", "zero_as_missing=false"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "auto", "boosting gbdt"),
        ({}, [1], "numbers only"),
        ({"linear_tree": True}, "auto", "linear_tree=false"),
    ],
)
def test_a_lightgbm_model_of_another_kind_is_refused_by_name(params, categorical, words):
    text = train_other_lightgbm(params, categorical)
    with pytest.raises(BundleError, match=words):
        parse_lightgbm(text)


@pytest.mark.parametrize("text", ["", "tree\nversion=v4\n"])
def test_what_is_no_lightgbm_model_is_an_error_of_ours(text):
    with pytest.raises(BundleError, match="not readable"):
        parse_lightgbm(text)


def first_tree(text, name, change):
    """Return a LightGBM model's text with one row of its first tree changed."""
    before, row, after = re.split(rf"(?m)^{name}=(.*)$", text, maxsplit=1)
    return f"{before}{name}={change(row)}{after}"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("threshold", lambda row: row.rsplit(" ", 1)[0]),
        ("leaf_value", lambda row: "x" + row),
        ("left_child", lambda row: "0" + row[row.index(" ") :]),
        ("left_child", lambda row: "99" + row[row.index(" ") :]),
        ("leaf_count", lambda _: ""),
        ("num_leaves", lambda _: "1"),
        ("num_leaves", lambda _: "-3"),
    ],
)
def test_a_lightgbm_text_whose_trees_are_none_is_an_error_of_ours(name, change):
    text = train_lightgbm("31-leaves").model_to_string()
    with pytest.raises(BundleError, match="not readable"):
        parse_lightgbm(first_tree(text, name, change))


def test_a_lightgbm_text_that_is_cut_off_is_an_error_of_ours():
    text = train_lightgbm("stumps").model_to_string()
    for at in range(1, text.index("end of trees"), 97):
        with pytest.raises(BundleError):
            parse_lightgbm(text[:at])


@pytest.mark.parametrize(("side", "child"), [("left_children", 0), ("right_children", 1), ("left_children", 99)])
def test_an_xgboost_model_whose_trees_are_none_is_an_error_of_ours(side, child):
    way = ("gradient_booster", "model", "trees", 0, side)
    with pytest.raises(BundleError, match="not readable"):
        parse_xgboost(altered_xgboost(way, [child, -1, -1]))
