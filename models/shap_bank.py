"""A forest laid out for exact contributions (path-dependent TreeSHAP), and the mathematics the kernel relies on.

The value that TreeSHAP (Lundberg et al., 2018) gives feature j at a leaf of value v, whose path asks a set U of
distinct features, is a sum over subsets of U that equals an integral (as in Linear TreeShap, Yu et al., NeurIPS 2022,
which evaluates the same polynomials):

    phi_j = v (o_j - z_j) * integral over y in [0, 1] of product over i in U, i != j, of (o_i y + z_i (1 - y))

o_i is 1 where the row satisfies all the path's questions to feature i, else 0; z_i is the share of the training rows
that go the path's way at each of them, multiplied up. The integrand is a polynomial of degree |U| - 1, so that
Gauss-Legendre quadrature with |U| / 2 points, rounded up, is exact. At each point y the sum over leaves is a recursion
over the tree. For a node that asks feature j, whose left child has the share s of the node's training rows, and whose
nearest question to j further up (if any) kept the shares z and is satisfied or not (o; without one z = 1, o = 1):

    f     = o y + z (1 - y)                               what feature j contributes to the product so far
    d     = o ((1 where the row goes left, else 0) - s)   by how much more than its share the left child gets
    ratio = s + y / f * d                                 the factor of the left child; the right one's is 1 - ratio
    U     = U_right + ratio (U_left - U_right)            from the leaves up; U of a leaf is its value
    P     = P * ratio, P - P * ratio                      from the root down, to the left and right child
    phi_j += d * sum over y of weight P z / f^2 (U_left - U_right)

That this is so where features repeat on a path takes a page of algebra: the term that a node adds corrects what the
nearest question to the same feature above it has already added. Where o is 0, f has no part: d is 0.

Shares are those that each library uses itself: XGBoost's sums of hessians, LightGBM's counts of rows.

**Layout.** A tree's inner nodes stand so that a node comes before those below it, and last those with two leaves, half
of all, for which U_left - U_right is one number and which hand no P on. No node asks what its children are: the others
read U of a leaf from where it is spread out once a tree, and hand its P to a place that nobody reads. Node n has the
slot n + 1; slot 0 stands above those without a question to their feature further up, and is always satisfied. What a
node needs lies in one run of INTS and one of FLOATS + 2 Q numbers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.forest import Forest
from models.lanes_kernel import WIDTH

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

# The numbers of a node in `ShapNodes.ints`; places count float32 in the scratch of `shap_kernel.ShapWork`.
FEATURE = 0  # place of its values
NAN_LEFT = 1  # all bits or none
ABOVE = 2  # slot of the nearest node above with the same feature, 0 without one
ABOVE_RIGHT = 3  # all bits where the way from there leads right, else none
LEFT_U = 4  # place of the left child's U at the first point, and how far it is to the next point's; right alike
LEFT_STEP = 5
RIGHT_U = 6
RIGHT_STEP = 7
LEFT_P = 8  # place of the left child's P; right alike
RIGHT_P = 9
INTS = 10
# And in `ShapNodes.floats`; after them y / f where o = 1 for each of the tree's Q points, then z / f^2.
THRESHOLD = 0
SHARE = 1  # s
APART = 2  # of two leaves: left less right,
RIGHT_LEAF = 3  # and the right one
FLOATS = 4


class ShapNodes(NamedTuple):
    """M inner nodes by tree, in the order described above."""

    ints: npt.NDArray[np.int32]  # [M * INTS]
    floats: npt.NDArray[np.float32]  # a tree after the other, its nodes' FLOATS + 2 Q each


class ShapTrees(NamedTuple):
    """What is per tree; T trees, at most Q points."""

    starts: npt.NDArray[np.int32]  # [T + 1], where a tree's nodes begin
    above_leaves: npt.NDArray[np.int32]  # [T], how many of them, the last ones, have two leaves
    points: npt.NDArray[np.int32]  # [T], how many points it needs
    floats: npt.NDArray[np.int64]  # [T], where its floats begin
    leaf_starts: npt.NDArray[np.int32]  # [T + 1], where its spread leaves begin
    leaves: npt.NDArray[np.float32]  # the values of leaves beside an inner node
    weight: npt.NDArray[np.float32]  # [Q + 1, Q], by number of points


@dataclass(frozen=True, slots=True, eq=False)
class ShapBank:
    """A forest as the kernel takes it; `expected` is the log-odds that the contributions start from."""

    n_features: int
    expected: float
    nodes: ShapNodes
    trees: ShapTrees
    most_slots: int  # in a tree
    most_leaves: int  # spread in a tree


@dataclass(frozen=True, slots=True, eq=False)
class _Paths:
    """What the way from the root says of each node [N]; of a leaf, no more than reach and asked."""

    parent: I64  # -1 of a root
    height: I64  # 0 of a leaf
    share: F64
    above: I64  # -1 without one
    above_right: npt.NDArray[np.bool_]
    kept: F64  # z
    asked: I64  # distinct features asked on the way
    reach: F64  # share of all rows


def build_shap(forest: Forest) -> ShapBank:
    """Lay out a forest with its covers."""
    paths = _paths(forest)
    leaf = forest.left < 0
    points = (np.maximum.reduceat(np.where(leaf, paths.asked, 0), forest.roots) + 1) // 2
    tree = np.repeat(np.arange(forest.n_trees), np.diff(forest.roots, append=len(forest.left)))
    inner = np.flatnonzero(~leaf)
    order = inner[np.lexsort((-paths.height[inner], tree[inner]))]
    starts = np.searchsorted(tree[order], np.arange(forest.n_trees + 1))
    slot = np.zeros(len(leaf) + 1, np.int64)  # the last, of "none", is 0
    slot[order] = np.arange(len(order)) - starts[tree[order]] + 1
    # Leaves beside an inner node, by tree.
    spread = np.flatnonzero(leaf & (paths.parent >= 0) & (paths.height[paths.parent] > 1))
    leaf_starts = np.searchsorted(tree[spread], np.arange(forest.n_trees + 1))
    number = np.full(len(leaf), -1)
    number[spread] = np.arange(len(spread)) - leaf_starts[tree[spread]]
    most_slots = int(np.diff(starts).max()) + 1
    weight, at = _quadrature(int(points.max()))
    floats, float_starts = _floats(forest, paths, order, points[tree[order]], at)
    return ShapBank(
        n_features=forest.n_features,
        expected=forest.base + float(np.add.reduceat(paths.reach * forest.value, forest.roots).sum()),
        nodes=ShapNodes(_ints(forest, paths, order, points[tree[order]], slot, number, most_slots), floats),
        trees=ShapTrees(
            starts=starts.astype(np.int32),
            above_leaves=np.bincount(tree[order[paths.height[order] == 1]], minlength=forest.n_trees).astype(np.int32),
            points=points.astype(np.int32),
            floats=np.append(float_starts, 0)[starts[:-1]],
            leaf_starts=leaf_starts.astype(np.int32),
            leaves=forest.value[spread].astype(np.float32),
            weight=weight,
        ),
        most_slots=most_slots,
        most_leaves=int(np.diff(leaf_starts).max()),
    )


def _paths(forest: Forest) -> _Paths:
    left, right = forest.left, forest.right
    n = len(left)
    inner = np.flatnonzero(left >= 0)
    parent, is_right = np.full(n, -1), np.zeros(n, np.bool_)
    parent[left[inner]] = parent[right[inner]] = inner
    is_right[right[inner]] = True
    levels = [forest.roots.astype(np.int64)]
    while (nodes := levels[-1][left[levels[-1]] >= 0]).size:
        levels.append(np.concatenate([left[nodes], right[nodes]]).astype(np.int64))
    both = forest.cover[left] + forest.cover[right]
    share = np.divide(forest.cover[left], both, out=np.full(n, 0.5), where=both > 0.0)
    above, above_right = _nearest_above(forest, inner, parent, is_right)
    kept, reach, asked, height = np.ones(n), np.ones(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    for level in levels:
        nodes = level[left[level] >= 0]
        repeat = above[nodes] >= 0
        which = above[nodes[repeat]]
        part = np.where(above_right[nodes[repeat]], 1.0 - share[which], share[which])
        kept[nodes[repeat]] = kept[which] * part
        for children, part in ((left[nodes], share[nodes]), (right[nodes], 1.0 - share[nodes])):
            reach[children] = reach[nodes] * part
            asked[children] = asked[nodes] + ~repeat
    for level in reversed(levels):
        nodes = level[left[level] >= 0]
        height[nodes] = 1 + np.maximum(height[left[nodes]], height[right[nodes]])
    return _Paths(parent, height, share, above, above_right, kept, asked, reach)


def _nearest_above(
    forest: Forest, inner: I64, parent: I64, is_right: npt.NDArray[np.bool_]
) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Return for each node the nearest one above with its feature, or -1, and whether the way there leads right."""
    above, above_right = np.full(len(parent), -1), np.zeros(len(parent), np.bool_)
    node, low, up = inner, inner, parent[inner]
    while node.size:
        node, low, up = (column[up >= 0] for column in (node, low, up))
        met = forest.feature[up] == forest.feature[node]
        above[node[met]], above_right[node[met]] = up[met], is_right[low[met]]
        node, low, up = node[~met], up[~met], parent[up[~met]]
    return above, above_right


def _ints(
    forest: Forest, paths: _Paths, order: I64, points: I64, slot: I64, number: I64, most_slots: int
) -> npt.NDArray[np.int32]:
    leaves_at = most_slots * int(points.max(initial=0)) * WIDTH
    ints = np.empty((len(order), INTS), np.int32)
    ints[:, FEATURE] = forest.feature[order] * WIDTH
    ints[:, NAN_LEFT] = np.where(forest.nan_left[order], 0xFFFF, 0)
    ints[:, ABOVE] = slot[paths.above[order]]
    ints[:, ABOVE_RIGHT] = np.where(paths.above_right[order], 0xFFFF, 0)
    for children, u, step, p in (
        (forest.left, LEFT_U, LEFT_STEP, LEFT_P),
        (forest.right, RIGHT_U, RIGHT_STEP, RIGHT_P),
    ):
        child = children[order]
        is_leaf = forest.left[child] < 0
        own = slot[child] * points * WIDTH
        ints[:, u] = np.where(is_leaf, leaves_at + number[child] * WIDTH, own)
        ints[:, step] = np.where(is_leaf, 0, WIDTH)
        ints[:, p] = own  # a leaf's is slot 0
    return ints.ravel()


def _floats(forest: Forest, paths: _Paths, order: I64, points: I64, at: F64) -> tuple[npt.NDArray[np.float32], I64]:
    """Return the nodes' floats, and where those of each node begin."""
    sizes = FLOATS + 2 * points
    starts = np.cumsum(sizes) - sizes
    floats = np.empty(int(sizes.sum()), np.float32)
    left, right = forest.value[forest.left[order]], forest.value[forest.right[order]]
    for place, column in (
        (THRESHOLD, forest.threshold[order]),
        (SHARE, paths.share[order]),
        (APART, left - right),
        (RIGHT_LEAF, right),
    ):
        floats[starts + place] = column
    kept = paths.kept[order]
    for q in range(at.shape[1]):
        own = np.flatnonzero(points > q)
        y = at[points[own], q]
        f = y + kept[own] * (1.0 - y)
        floats[starts[own] + FLOATS + q] = y / f
        floats[starts[own] + FLOATS + points[own] + q] = kept[own] / f**2
    return floats, starts


def _quadrature(most: int) -> tuple[npt.NDArray[np.float32], F64]:
    """Return weights float32[Q + 1, Q] and places float64[Q + 1, Q] in [0, 1], by number of points."""
    weight, at = np.zeros((most + 1, max(most, 1)), np.float32), np.ones((most + 1, max(most, 1)))
    for count in range(1, most + 1):
        nodes, weights = np.polynomial.legendre.leggauss(count)
        at[count, :count] = (nodes + 1.0) / 2.0
        weight[count, :count] = weights / 2.0
    return weight, at
