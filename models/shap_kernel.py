"""The compiled contributions: `models/shap_bank.py` says what is computed, from what, and why it is right.

A tree is gone through three times for sixteen rows at once: down for what each row answers, up for U, down for P and
the contributions. Sums within a few trees are float32, over all trees float64.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.jit import aligned, entry, section
from models.lanes_kernel import WIDTH, below, choose, fused, load, mask, minus, splat, store, times, unknown
from models.shap_bank import ShapBank, ShapNodes, ShapTrees

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U16 = npt.NDArray[np.uint16]
Arrays = tuple[npt.NDArray[Any], ...]

# Trees whose contributions are summed in float32 before they join the rest.
TREES_A_SUM = 8
ALL = np.uint16(0xFFFF)


class ShapWork(NamedTuple):
    """What `contributions` works in: one for each thread. k features, m nodes in the largest tree, Q points."""

    values: F32  # [k, WIDTH]
    missing: U16  # [k], a bit for each row whose value is NaN
    left: U16  # [m], the rows that go left
    held: U16  # [m], the rows that satisfy what was asked of the feature above
    more: F32  # [m, WIDTH], d
    below: F32  # [m, Q, WIDTH], U
    reach: F32  # [m, Q, WIDTH], P
    part: F32  # [k, WIDTH], contributions of a few trees
    total: F64  # [k, WIDTH]


def new_work(bank: ShapBank) -> ShapWork:
    """Return scratch for one thread."""
    k, m, q = bank.n_features, max(bank.most_nodes, 1), bank.trees.gain.shape[1]
    return ShapWork(
        aligned((k, WIDTH), np.float32),
        aligned((k,), np.uint16),
        aligned((m,), np.uint16),
        aligned((m,), np.uint16),
        aligned((m, WIDTH), np.float32),
        aligned((m, q, WIDTH), np.float32),
        aligned((m, q, WIDTH), np.float32),
        aligned((k, WIDTH), np.float32),
        aligned((k, WIDTH), np.float64),
    )


@entry
def contributions(x: F32, nodes_: Arrays, trees_: Arrays, work_: Arrays, out: F64) -> None:
    """Write each feature's part in the log-odds, out float64[n, k], of x float32[n, k]."""
    nodes, trees, work = ShapNodes(*nodes_), ShapTrees(*trees_), ShapWork(*work_)
    n_trees = trees.points.shape[0]
    for first in range(0, x.shape[0], WIDTH):
        rows = x[first : first + WIDTH]
        read(rows, work)
        work.total[:] = 0.0
        work.part[:] = np.float32(0.0)
        for t in range(n_trees):
            explain_tree(nodes, trees, t, work)
            if (t + 1) % TREES_A_SUM == 0 or t + 1 == n_trees:
                for f in range(work.total.shape[0]):
                    for i in range(WIDTH):
                        work.total[f, i] += np.float64(work.part[f, i])
                        work.part[f, i] = np.float32(0.0)
        for i in range(rows.shape[0]):
            for f in range(rows.shape[1]):
                out[first + i, f] = work.total[f, i]


@section
def read(rows: F32, work: ShapWork) -> None:
    """Turn at most WIDTH rows on their side; lanes without a row repeat what was there."""
    for f in range(rows.shape[1]):
        for i in range(rows.shape[0]):
            work.values[f, i] = rows[i, f]
        work.missing[f] = unknown(load(work.values, f * WIDTH))


@section
def explain_tree(nodes: ShapNodes, trees: ShapTrees, t: int, work: ShapWork) -> None:
    """Add one tree's contributions to `work.part`."""
    first, last, points = trees.starts[t], trees.starts[t + 1], trees.points[t]
    if first == last:
        return
    own = ShapNodes(
        nodes.feature[first:last],
        nodes.threshold[first:last],
        nodes.nan_left[first:last],
        nodes.share[first:last],
        nodes.above[first:last],
        nodes.above_right[first:last],
        nodes.children[first:last],
        nodes.leaves[first:last],
        nodes.factors[first:last],
    )
    answer(own, work)
    climb(own, trees, points, work)
    for q in range(points):
        store(work.reach, q * WIDTH, splat(trees.weight[points, q]))
    descend(own, trees, points, work)


@section
def answer(nodes: ShapNodes, work: ShapWork) -> None:
    """Write d of every node: by how much more than its share the left child gets, 0 where the feature failed above."""
    none = splat(np.float32(0.0))
    for n in range(nodes.feature.shape[0]):
        f = np.uint64(nodes.feature[n])
        less = below(load(work.values, f * np.uint64(WIDTH)), splat(nodes.threshold[n]))
        left = less | (work.missing[f] & nodes.nan_left[n])
        above = nodes.above[n]
        held = ALL
        if above >= 0:
            held = work.held[np.uint64(above)] & (work.left[np.uint64(above)] ^ nodes.above_right[n])
        work.left[n], work.held[n] = left, held
        share = nodes.share[n]
        more = choose(mask(left), splat(np.float32(1.0) - share), splat(-share))
        store(work.more, n * WIDTH, choose(mask(held), more, none))


@section
def climb(nodes: ShapNodes, trees: ShapTrees, points: int, work: ShapWork) -> None:
    """Write U of every node but the root, from the leaves up."""
    stride = np.uint64(work.below.shape[1] * WIDTH)
    for back in range(1, nodes.feature.shape[0]):
        n = np.uint64(nodes.feature.shape[0] - back)
        share, more = splat(nodes.share[n]), load(work.more, n * np.uint64(WIDTH))
        one, other = nodes.children[n, 0], nodes.children[n, 1]
        left_leaf, right_leaf = splat(nodes.leaves[n, 0]), splat(nodes.leaves[n, 1])
        gain = trees.gain[np.uint64(nodes.factors[n])]
        at, left_at, right_at = n * stride, np.uint64(one) * stride, np.uint64(other) * stride
        for q in range(points):
            step = np.uint64(q * WIDTH)
            left = load(work.below, left_at + step) if one >= 0 else left_leaf
            right = load(work.below, right_at + step) if other >= 0 else right_leaf
            ratio = fused(splat(gain[q]), more, share)
            store(work.below, at + step, fused(ratio, minus(left, right), right))


@section
def descend(nodes: ShapNodes, trees: ShapTrees, points: int, work: ShapWork) -> None:
    """Hand P down from the root and add every node's contribution."""
    stride = np.uint64(work.below.shape[1] * WIDTH)
    for place in range(nodes.feature.shape[0]):
        n = np.uint64(place)
        share, more = splat(nodes.share[n]), load(work.more, n * np.uint64(WIDTH))
        one, other = nodes.children[n, 0], nodes.children[n, 1]
        left_leaf, right_leaf = splat(nodes.leaves[n, 0]), splat(nodes.leaves[n, 1])
        pair = np.uint64(nodes.factors[n])
        gain, boost = trees.gain[pair], trees.boost[pair]
        at, left_at, right_at = n * stride, np.uint64(one) * stride, np.uint64(other) * stride
        total = splat(np.float32(0.0))
        for q in range(points):
            step = np.uint64(q * WIDTH)
            reach = load(work.reach, at + step)
            left = load(work.below, left_at + step) if one >= 0 else left_leaf
            right = load(work.below, right_at + step) if other >= 0 else right_leaf
            total = fused(times(reach, splat(boost[q])), minus(left, right), total)
            to_left = times(reach, fused(splat(gain[q]), more, share))
            if one >= 0:
                store(work.reach, left_at + step, to_left)
            if other >= 0:
                store(work.reach, right_at + step, minus(reach, to_left))
        part = np.uint64(nodes.feature[n]) * np.uint64(WIDTH)
        store(work.part, part, fused(more, total, load(work.part, part)))
