"""Trees as plain tensor operators: three ways to find the leaf that a row reaches in each tree.

The strategies of Hummingbird (Nakandala et al., "A Tensor Compiler for Unified Machine Learning Prediction Serving",
OSDI 2020), written for ONNX:

    matrix      shallow trees: every test of a tree at once, then a matrix product with "which leaf is on which side"
    perfect     trees of some depth: padded to perfect ones, so that a child's place follows from its parent's
    traversal   deep trees: from node to node by tables of children

Each takes `sides` float32[n, 2k]: the features twice, a NaN replaced by -infinity in the first half and by +infinity in
the second. A node reads the half in which a NaN goes its way, and one comparison is left: `right = value >= threshold`.
A node that parts what is missing from every number, infinities too, has no such half: -infinity is a number. Where a
forest has one, `sides` is float32[n, 3k], and the third part says 1 for a number and 0 for NaN.

Values are picked by Gather, never by a product (0 · NaN is NaN). Products are of small whole numbers alone, which
float32 holds exactly whatever the order of summation.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.forest import Forest

__all__ = ["STRATEGIES", "GraphBuilder", "parts_missing", "strategy_of", "tree_depths"]

#: Depths from Hummingbird's own rule: products pay up to 3; a perfect tree doubles with each level, so up to 10.
MATRIX_DEPTH: Final = 3
PERFECT_DEPTH: Final = 10

I32 = npt.NDArray[np.int32]


class GraphBuilder:
    """Collects operators and constants under names of their own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append an operator; return its output's name, or a list of them where there are several."""
        name = f"{kind}_{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def op_named(self, kind: str, output: str, *inputs: str, **attributes: Any) -> None:
        """Append an operator whose output has this name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a constant; return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name


def tree_depths(forest: Forest) -> npt.NDArray[np.int64]:
    """Return the number of tests on the longest way through each tree, int64[T]; 0 for a single leaf."""
    depths = np.zeros(forest.n_trees, np.int64)
    trees, nodes = np.arange(forest.n_trees), forest.roots.astype(np.int64)
    while (inner := forest.left[nodes] >= 0).any():
        trees, nodes = trees[inner], nodes[inner]
        depths[np.unique(trees)] += 1
        trees, nodes = np.tile(trees, 2), np.concatenate([forest.left[nodes], forest.right[nodes]])
    return depths


def strategy_of(depth: int) -> str:
    """Return the strategy for a tree of this depth."""
    if depth <= MATRIX_DEPTH:
        return "matrix"
    return "perfect" if depth <= PERFECT_DEPTH else "traversal"


def parts_missing(forest: Forest) -> npt.NDArray[np.bool_]:
    """Return which nodes part what is missing (left) from every number (right), bool[N]."""
    return np.asarray((forest.left >= 0) & forest.nan_left & (forest.threshold == -np.inf), np.bool_)


def read_tests(forest: Forest) -> tuple[I32, npt.NDArray[np.float32]]:
    """Return the column of `sides` that each node reads, int32[N], and what it is compared with, float32[N]."""
    missing = parts_missing(forest)
    half = np.where(missing, 2, np.where(forest.nan_left | (forest.left < 0), 0, 1))
    columns = forest.feature + half * forest.n_features
    return columns.astype(np.int32), np.where(missing, np.float32(0.5), forest.threshold)


def matrix(builder: GraphBuilder, forest: Forest, trees: Sequence[int], sides: str) -> tuple[str, I32]:
    """Every test at once: leaf l is reached if all its ancestors' tests point to it.

    With r = 1 for a test that says right, the sum over l's ancestors of +r (l is on the right) and −r (on the left) is
    greatest, namely the number of ancestors it is on the right of, for the leaf reached and for no other.
    Returns (place int32[n, T], node of each place int32[P]).
    """
    paths = [_paths(forest, int(forest.roots[tree])) for tree in trees]
    tests = [sorted({node for path in leaves.values() for node in path}) for leaves in paths]
    width, most = max(1, *map(len, tests)), max(map(len, paths))
    columns = np.zeros((len(trees), width), np.int32)
    thresholds = np.zeros((len(trees), width), np.float32)
    side = np.zeros((len(trees), width, most), np.float32)
    rights = np.full((len(trees), 1, most), -1.0 - width, np.float32)  # of no leaf: a sum that cannot be
    nodes = np.zeros((len(trees), most), np.int32)
    read, bounds = read_tests(forest)
    for row, (leaves, inner) in enumerate(zip(paths, tests, strict=True)):
        columns[row, : len(inner)] = read[inner]
        thresholds[row, : len(inner)] = bounds[inner]
        for leaf, (node, path) in enumerate(leaves.items()):
            nodes[row, leaf] = node
            rights[row, 0, leaf] = sum(path.values())
            for test, right in path.items():
                side[row, inner.index(test), leaf] = 1.0 if right else -1.0
    seen = builder.op("Gather", sides, builder.constant(columns.ravel(), np.int32), axis=1)
    right = builder.op("GreaterOrEqual", seen, builder.constant(thresholds.ravel(), np.float32))
    bits = builder.op("Cast", right, to=TensorProto.FLOAT)
    table = builder.op("Reshape", bits, builder.constant([-1, len(trees), width], np.int64))
    by_tree = builder.op("Transpose", table, perm=[1, 0, 2])
    sums = builder.op("MatMul", by_tree, builder.constant(side, np.float32))
    reached = builder.op("Equal", sums, builder.constant(rights, np.float32))
    one = builder.op("Cast", reached, to=TensorProto.FLOAT)
    number = np.broadcast_to(np.arange(most, dtype=np.float32)[:, None], (len(trees), most, 1))
    leaf_of = builder.op("MatMul", one, builder.constant(number, np.float32))
    flat = builder.op("Reshape", leaf_of, builder.constant([len(trees), -1], np.int64))
    leaf = builder.op("Cast", builder.op("Transpose", flat, perm=[1, 0]), to=TensorProto.INT32)
    return builder.op("Add", leaf, builder.constant(np.arange(len(trees)) * most, np.int32)), nodes.ravel()


def _paths(forest: Forest, root: int) -> dict[int, dict[int, bool]]:
    """Return for each leaf of a tree the tests above it, and whether it is on their right."""
    leaves: dict[int, dict[int, bool]] = {}
    todo: list[tuple[int, dict[int, bool]]] = [(root, {})]
    while todo:
        node, path = todo.pop()
        if forest.left[node] < 0:
            leaves[node] = path
        else:
            todo.append((int(forest.left[node]), {**path, node: False}))
            todo.append((int(forest.right[node]), {**path, node: True}))
    return leaves


def perfect(builder: GraphBuilder, forest: Forest, trees: Sequence[int], sides: str) -> tuple[str, I32]:
    """Level by level through perfect trees: place p of a level leads to 2p or 2p + 1 of the next.

    A leaf above the last level is repeated below, so that it is reached whatever its tests say.
    Returns (place int32[n, T], node of each place int32[P]).
    """
    read, bounds = read_tests(forest)
    level = forest.roots[list(trees)].astype(np.int64)
    place = ""
    for _ in range(max(1, int(tree_depths(forest)[list(trees)].max()))):
        inner = forest.left[level] >= 0
        columns, thresholds = read[level], np.where(inner, bounds[level], np.float32(0.0))
        if place:
            right = _right(builder, sides, place, columns, thresholds)
            place = builder.op("Add", builder.op("Add", place, place), right)
        else:
            place = builder.op(
                "Add",
                _right_of_roots(builder, sides, columns, thresholds),
                builder.constant(2 * np.arange(len(trees)), np.int32),
            )
        children = np.where(inner, forest.left[level], level), np.where(inner, forest.right[level], level)
        level = np.stack(children, axis=1).ravel()
    return place, level.astype(np.int32)


def traversal(builder: GraphBuilder, forest: Forest, trees: Sequence[int], sides: str) -> tuple[str, I32]:
    """From node to node, renumbered so that a right child follows its left one; a leaf leads to itself.

    A leaf's threshold is NaN: nothing is greater or equal. Returns (place int32[n, T], node of each place int32[P]).
    """
    levels = [forest.roots[list(trees)].astype(np.int64)]
    while (inner := forest.left[levels[-1]] >= 0).any():
        above = levels[-1][inner]
        levels.append(np.stack([forest.left[above], forest.right[above]], axis=1).ravel().astype(np.int64))
    nodes = np.concatenate(levels)
    number = np.zeros(len(forest.left), np.int32)
    number[nodes] = np.arange(len(nodes))
    inner = forest.left[nodes] >= 0
    left = np.where(inner, number[forest.left[nodes]], np.arange(len(nodes))).astype(np.int32)
    read, bounds = read_tests(forest)
    thresholds = np.where(inner, bounds[nodes], np.float32(np.nan))
    columns, roots = read[nodes], slice(0, len(trees))
    right = _right_of_roots(builder, sides, columns[roots], thresholds[roots])
    place = builder.op("Add", right, builder.constant(left[roots], np.int32))
    tables = builder.constant(columns, np.int32), builder.constant(thresholds, np.float32)
    lefts = builder.constant(left, np.int32)
    for _ in levels[2:]:
        right = _compare(builder, sides, place, *tables)
        place = builder.op("Add", builder.op("Gather", lefts, place, axis=0), right)
    return place, nodes.astype(np.int32)


def _right_of_roots(
    builder: GraphBuilder, sides: str, columns: npt.NDArray[Any], thresholds: npt.NDArray[np.float32]
) -> str:
    """Return the name of int32[n, T], 1 where a root's test says right."""
    seen = builder.op("Gather", sides, builder.constant(columns, np.int32), axis=1)
    right = builder.op("GreaterOrEqual", seen, builder.constant(thresholds, np.float32))
    return str(builder.op("Cast", right, to=TensorProto.INT32))


def _right(
    builder: GraphBuilder,
    sides: str,
    place: str,
    columns: npt.NDArray[Any],
    thresholds: npt.NDArray[np.float32],
) -> str:
    tables = builder.constant(columns, np.int32), builder.constant(thresholds, np.float32)
    return _compare(builder, sides, place, *tables)


def _compare(builder: GraphBuilder, sides: str, place: str, columns: str, thresholds: str) -> str:
    """Return the name of int32[n, T], 1 where the test at that place of the tables says right."""
    seen = builder.op("GatherElements", sides, builder.op("Gather", columns, place, axis=0), axis=1)
    right = builder.op("GreaterOrEqual", seen, builder.op("Gather", thresholds, place, axis=0))
    return str(builder.op("Cast", right, to=TensorProto.INT32))


STRATEGIES: Final = {"matrix": matrix, "perfect": perfect, "traversal": traversal}
