"""Writes the ensemble as one ONNX graph that ONNX Runtime scores without any further code.

    x float32[n, k] ─┬─ trees of XGBoost  ─┬─ · weight ─┐
                     │                     │            ├─ + bias ─ sigmoid ─ score float32[n]
                     └─ trees of LightGBM ─┼─ · weight ─┘
                                           └─ margins float32[n, 2]

A row's score must not depend on its batch. So after the trees there are only element-wise operators that IEEE 754
rounds exactly (no matrix product, whose kernel differs by shape), and one Exp. The sigmoid is written out as
1 / (1 + exp(-z)): ONNX Runtime's Sigmoid computes p / q + 0.5 in float32, which loses the digits of small scores (about
1e-7 of absolute error, so 10 % of a score of 1e-6), and in its portable kernel a batch's last few elements take another
path than the rest.
"""

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.forest import Forest
from models.meta import MetaModel

# The versions in which ONNX Runtime's oldest release that we allow (1.20) and its newest both run these operators:
# ai.onnx.ml 5 deprecates TreeEnsembleRegressor.
OPSET = 17
ML_OPSET = 3
IR_VERSION = 8

# Trees to an operator. ONNX Runtime adds leaves up one by one in float32: over 300 trees the log-odds were off by
# 1.4e-5; with the sums of at most 64 trees added up they are off by 0.5e-5, for 3 us more on a batch of one.
TREES_PER_NODE = 64

INPUT = "x"
SCORE = "score"
MARGINS = "margins"


def ensemble_graph(xgboost: Forest, lightgbm: Forest, meta: MetaModel) -> bytes:
    """Return the serialised, checked ONNX model of the whole ensemble; equal input gives equal bytes."""
    nodes = [
        *_margin_nodes(xgboost, "xgboost"),
        *_margin_nodes(lightgbm, "lightgbm"),
        *score_nodes(),
    ]
    graph = helper.make_graph(
        nodes,
        "fraudstream_ensemble",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", xgboost.n_features])],
        [
            helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info(MARGINS, TensorProto.FLOAT, ["n", 2]),
        ],
        score_constants(meta),
    )
    return serialise(graph)


def score_nodes() -> list[onnx.NodeProto]:
    """Return the operators from "xgboost_margin" and "lightgbm_margin", float32[n, 1] each, to MARGINS and SCORE."""
    return [
        helper.make_node("Concat", ["xgboost_margin", "lightgbm_margin"], [MARGINS], axis=1),
        helper.make_node("Mul", ["xgboost_margin", "xgboost_weight"], ["xgboost_part"]),
        helper.make_node("Mul", ["lightgbm_margin", "lightgbm_weight"], ["lightgbm_part"]),
        helper.make_node("Add", ["xgboost_part", "lightgbm_part"], ["parts"]),
        helper.make_node("Add", ["parts", "bias"], ["log_odds"]),
        helper.make_node("Neg", ["log_odds"], ["minus_log_odds"]),
        helper.make_node("Exp", ["minus_log_odds"], ["odds_against"]),
        helper.make_node("Add", ["odds_against", "one"], ["all_odds"]),
        helper.make_node("Div", ["one", "all_odds"], ["score_column"]),
        helper.make_node("Reshape", ["score_column", "flat"], [SCORE]),
    ]


def score_constants(meta: MetaModel) -> list[onnx.TensorProto]:
    """Return the constants that `score_nodes` reads."""
    constants = {
        "xgboost_weight": np.float32(meta.xgboost),
        "lightgbm_weight": np.float32(meta.lightgbm),
        "bias": np.float32(meta.bias),
        "one": np.float32(1.0),
        "flat": np.array([-1], np.int64),
    }
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def _margin_nodes(forest: Forest, name: str) -> list[onnx.NodeProto]:
    """Return the operators whose last output, "<name>_margin" float32[n, 1], is the forest's margin."""
    firsts = range(0, forest.n_trees, TREES_PER_NODE)
    nodes = []
    for first in firsts:
        trees = forest.slice(first, min(first + TREES_PER_NODE, forest.n_trees))
        base = forest.base if first == 0 else 0.0
        nodes.append(tree_node(replace(trees, base=base), INPUT, f"{name}_trees_{first}"))
    return [*nodes, helper.make_node("Sum", [node.output[0] for node in nodes], [f"{name}_margin"])]


def serialise(graph: onnx.GraphProto) -> bytes:
    """Return the checked model of a graph, with the opsets this module writes."""
    model = helper.make_model(
        graph,
        producer_name="fraudstream",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def tree_node(forest: Forest, source: str, target: str) -> onnx.NodeProto:
    """Return the operator whose output float32[n, 1] is the forest's margin."""
    tree = np.repeat(np.arange(forest.n_trees), np.diff(forest.roots, append=len(forest.left)))
    root = forest.roots[tree]
    local = np.arange(len(forest.left)) - root
    inner = forest.left >= 0
    leaf = ~inner
    return helper.make_node(
        "TreeEnsembleRegressor",
        [source],
        [target],
        name=target,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[forest.base],
        nodes_treeids=tree.tolist(),
        nodes_nodeids=local.tolist(),
        nodes_featureids=forest.feature.tolist(),
        nodes_modes=["BRANCH_LT" if branch else "LEAF" for branch in inner.tolist()],
        nodes_values=forest.threshold.tolist(),
        nodes_truenodeids=np.where(inner, forest.left - root, 0).tolist(),
        nodes_falsenodeids=np.where(inner, forest.right - root, 0).tolist(),
        nodes_missing_value_tracks_true=forest.nan_left.astype(int).tolist(),
        target_treeids=tree[leaf].tolist(),
        target_nodeids=local[leaf].tolist(),
        target_ids=[0] * int(leaf.sum()),
        target_weights=forest.value[leaf].tolist(),
    )
