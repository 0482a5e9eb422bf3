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
    first, count = trees.starts[t], trees.starts[t + 1] - trees.starts[t]
    points = trees.points[t]
    for n in range(count):
        at = first + n
        f = nodes.feature[at]
        less = below(load(work.values, f * WIDTH), splat(nodes.threshold[at]))
        work.left[n] = less | (work.missing[f] & nodes.nan_left[at])
        above = nodes.above[at]
        work.held[n] = ALL if above < 0 else work.held[above] & (work.left[above] ^ nodes.above_right[at])
    stride = work.below.shape[1] * WIDTH
    for n in range(count - 1, 0, -1):
        at = first + n
        share, more = splat(nodes.share[at]), excess(nodes, at, n, work)
        one, other = nodes.children[at, 0], nodes.children[at, 1]
        factors = trees.gain[nodes.factors[at]]
        for q in range(points):
            right = subtree(work, other, q, nodes.leaves[at, 1])
            gap = minus(subtree(work, one, q, nodes.leaves[at, 0]), right)
            store(work.below, n * stride + q * WIDTH, fused(fused(splat(factors[q]), more, share), gap, right))
    for q in range(points):
        if count > 0:
            store(work.reach, q * WIDTH, splat(trees.weight[points, q]))
    for n in range(count):
        at = first + n
        share, more = splat(nodes.share[at]), excess(nodes, at, n, work)
        one, other = nodes.children[at, 0], nodes.children[at, 1]
        gain, boost = trees.gain[nodes.factors[at]], trees.boost[nodes.factors[at]]
        total = splat(np.float32(0.0))
        for q in range(points):
            reach = load(work.reach, n * stride + q * WIDTH)
            right = subtree(work, other, q, nodes.leaves[at, 1])
            gap = minus(subtree(work, one, q, nodes.leaves[at, 0]), right)
            total = fused(times(reach, splat(boost[q])), gap, total)
            to_left = times(reach, fused(splat(gain[q]), more, share))
            if one >= 0:
                store(work.reach, one * stride + q * WIDTH, to_left)
            if other >= 0:
                store(work.reach, other * stride + q * WIDTH, minus(reach, to_left))
        f = nodes.feature[at] * WIDTH
        store(work.part, f, fused(more, total, load(work.part, f)))


@section
def excess(nodes: ShapNodes, at: int, n: int, work: ShapWork) -> Any:
    """Return d: by how much more than its share the left child gets, 0 where the feature has failed further up."""
    share = nodes.share[at]
    none = splat(np.float32(0.0))
    more = choose(mask(work.left[n]), splat(np.float32(1.0) - share), minus(none, splat(share)))
    return choose(mask(work.held[n]), more, none)


@section
def subtree(work: ShapWork, child: int, q: int, leaf: np.float32) -> Any:
    """Return U of a child at point q."""
    if child >= 0:
        return load(work.below, (child * work.below.shape[1] + q) * WIDTH)
    return splat(leaf)
