"""Writes the ensemble as one ONNX graph of plain tensor operators, for devices that have no operator for trees.

    x float32[n, k] ─ sides ─┬─ leaf values of XGBoost  ─ sum ─┐
                             │                                 ├─ margins ─ score, as in models.onnx_graph
                             └─ leaf values of LightGBM ─ sum ─┘

ONNX Runtime has no CUDA kernel for trees and silently computes them on the CPU; every operator here has one. Trees are
shared out among three strategies by their depth (models.tensor_trees). Their leaves' values are then put back in the
trees' own order and added pairwise by element-wise additions: the order of a sum is written down in the graph, so a
score depends neither on its batch nor on the strategies (a reduction's order is the kernel's own).
"""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from models.forest import Forest
from models.meta import MetaModel
from models.onnx_graph import INPUT, MARGINS, SCORE, score_constants, score_nodes, serialise
from models.tensor_trees import STRATEGIES, GraphBuilder, parts_missing, strategy_of, tree_depths

__all__ = ["LEAVES", "tensor_graph"]

#: Outputs with the leaf reached in each tree, int32[n, T], as Forest.leaves names it: XGBoost's, LightGBM's.
LEAVES = ("xgboost_leaves", "lightgbm_leaves")


def tensor_graph(
    xgboost: Forest,
    lightgbm: Forest,
    meta: MetaModel,
    *,
    leaves: bool = False,
    choose: Callable[[int], str] = strategy_of,
) -> bytes:
    """Return the serialised, checked ONNX model; equal input gives equal bytes.

    Its outputs are SCORE and MARGINS, and with `leaves` also LEAVES. choose: a tree's strategy by its depth.
    """
    builder = GraphBuilder()
    sides = _sides(builder, missing_parted=any(parts_missing(forest).any() for forest in (xgboost, lightgbm)))
    for name, forest in (("xgboost", xgboost), ("lightgbm", lightgbm)):
        values = _leaf_values(builder, forest, sides, choose, f"{name}_leaves" if leaves else "")
        total = _pairwise_sum(builder, values, forest.n_trees)
        builder.op_named("Add", f"{name}_margin", total, builder.constant([[forest.base]], np.float32))
    builder.nodes.extend(score_nodes())
    outputs = [
        helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info(MARGINS, TensorProto.FLOAT, ["n", 2]),
    ]
    if leaves:
        outputs += [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["n", forest.n_trees])
            for name, forest in zip(LEAVES, (xgboost, lightgbm), strict=True)
        ]
    graph = helper.make_graph(
        builder.nodes,
        "fraudstream_tensor_ensemble",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", xgboost.n_features])],
        outputs,
        [*builder.constants, *score_constants(meta)],
    )
    return serialise(graph)


def _sides(builder: GraphBuilder, *, missing_parted: bool) -> str:
    """Return the name of float32[n, 2k]: x with -infinity for NaN, then x with +infinity for NaN.

    missing_parted: float32[n, 3k], with 1 for a number and 0 for NaN behind; left out where no node reads it.
    """
    missing = builder.op("IsNaN", INPUT)
    parts = [
        builder.op("Where", missing, builder.constant(infinity, np.float32), INPUT) for infinity in (-np.inf, np.inf)
    ]
    if missing_parted:
        ends = builder.constant(0.0, np.float32), builder.constant(1.0, np.float32)
        parts.append(builder.op("Where", missing, *ends))
    return str(builder.op("Concat", *parts, axis=1))


def _leaf_values(builder: GraphBuilder, forest: Forest, sides: str, choose: Callable[[int], str], leaves: str) -> str:
    """Return the name of float32[n, T], the values of the leaves reached; their nodes become the output `leaves`."""
    chosen = np.array([choose(depth) for depth in tree_depths(forest).tolist()])
    order, values, nodes = [], [], []
    for name, find in STRATEGIES.items():
        trees = np.flatnonzero(chosen == name).tolist()
        if not trees:
            continue
        order += trees
        place, node_of = find(builder, forest, trees, sides)
        values.append(builder.op("Gather", builder.constant(forest.value[node_of], np.float32), place, axis=0))
        if leaves:
            nodes.append(builder.op("Gather", builder.constant(node_of, np.int32), place, axis=0))
    back = builder.constant(np.argsort(order), np.int32)
    if leaves:
        builder.op_named("Gather", leaves, builder.op("Concat", *nodes, axis=1), back, axis=1)
    return str(builder.op("Gather", builder.op("Concat", *values, axis=1), back, axis=1))


def _pairwise_sum(builder: GraphBuilder, values: str, width: int) -> str:
    """Return the name of float32[n, 1], the sum of float32[n, width]: first half plus second half, again and again."""
    while width > 1:
        half, odd = divmod(width, 2)
        sizes = [half, half, *[1] * odd]
        parts = builder.op("Split", values, builder.constant(sizes, np.int64), outputs=len(sizes), axis=1)
        values = builder.op("Add", parts[0], parts[1])
        if odd:
            values = builder.op("Concat", values, parts[2], axis=1)
        width = half + odd
    return values
