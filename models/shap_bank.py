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
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.forest import Forest


class ShapNodes(NamedTuple):
    """The inner nodes, by tree and from the root down; M nodes, E pairs of tree depth and z, at most Q points."""

    feature: npt.NDArray[np.int32]  # [M]
    threshold: npt.NDArray[np.float32]  # [M]
    nan_left: npt.NDArray[np.uint16]  # [M], all bits or none
    share: npt.NDArray[np.float32]  # [M], s
    above: npt.NDArray[np.int32]  # [M], within the tree: the nearest node above with the same feature, or -1
    above_right: npt.NDArray[np.uint16]  # [M], all bits where the way from there leads right, else none
    children: npt.NDArray[np.int32]  # [M, 2], within the tree; -1 for a leaf
    leaves: npt.NDArray[np.float32]  # [M, 2], values of children that are leaves
    factors: npt.NDArray[np.int32]  # [M], in 0..E-1


class ShapTrees(NamedTuple):
    """What is per tree, and per pair of a tree's points and z."""

    starts: npt.NDArray[np.int32]  # [T + 1], where a tree's nodes begin
    points: npt.NDArray[np.int32]  # [T], how many of the Q it needs
    weight: npt.NDArray[np.float32]  # [Q + 1, Q], by number of points
    gain: npt.NDArray[np.float32]  # [E, Q]: y / f where o = 1
    boost: npt.NDArray[np.float32]  # [E, Q]: z / f^2


@dataclass(frozen=True, slots=True, eq=False)
class ShapBank:
    """A forest as the kernel takes it; `expected` is the log-odds that the contributions start from."""

    n_features: int
    expected: float
    nodes: ShapNodes
    trees: ShapTrees
    most_nodes: int


@dataclass(slots=True)
class _Tree:
    """One tree while it is laid out: a list for each column of ShapNodes, z instead of the factors."""

    order: list[int]
    share: list[float]
    above: list[int]
    above_right: list[bool]
    kept: list[float]
    children: list[list[int]]
    leaves: list[list[float]]
    expected: float = 0.0
    most_features: int = 0


def build_shap(forest: Forest) -> ShapBank:
    """Lay out a forest with its covers."""
    trees = [_lay_out(forest, root) for root in forest.roots.tolist()]
    points = [(tree.most_features + 1) // 2 for tree in trees]
    pairs = {
        pair: number
        for number, pair in enumerate(
            sorted({(p, z) for p, tree in zip(points, trees, strict=True) for z in tree.kept} | {(0, 1.0)})
        )
    }
    weight, gain, boost = _factors(list(pairs), max(points))
    order = np.array([node for tree in trees for node in tree.order], np.int64)
    nodes = ShapNodes(
        feature=forest.feature[order],
        threshold=forest.threshold[order],
        nan_left=np.where(forest.nan_left[order], 0xFFFF, 0).astype(np.uint16),
        share=np.array([share for tree in trees for share in tree.share], np.float32),
        above=np.array([above for tree in trees for above in tree.above], np.int32),
        above_right=np.where([right for tree in trees for right in tree.above_right], 0xFFFF, 0).astype(np.uint16),
        children=np.array([pair for tree in trees for pair in tree.children], np.int32).reshape(-1, 2),
        leaves=np.array([pair for tree in trees for pair in tree.leaves], np.float32).reshape(-1, 2),
        factors=np.array([pairs[p, z] for p, tree in zip(points, trees, strict=True) for z in tree.kept], np.int32),
    )
    sizes = [len(tree.order) for tree in trees]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return ShapBank(
        n_features=forest.n_features,
        expected=forest.base + sum(tree.expected for tree in trees),
        nodes=nodes,
        trees=ShapTrees(starts, np.array(points, np.int32), weight, gain, boost),
        most_nodes=max(sizes),
    )


def _lay_out(forest: Forest, root: int) -> _Tree:
    tree = _Tree([], [], [], [], [], [], [])
    left, right, cover = forest.left, forest.right, forest.cover
    # A node to lay out, the parent's place and side, its share of all rows, and by feature the nearest question above:
    # its place, its side and z.
    todo: list[tuple[int, int, int, float, dict[int, tuple[int, bool, float]]]] = [(root, -1, 0, 1.0, {})]
    while todo:
        node, parent, side, reach, asked = todo.pop()
        if left[node] < 0:
            value = float(forest.value[node])
            tree.expected += reach * value
            tree.most_features = max(tree.most_features, len(asked))
            if parent >= 0:
                tree.leaves[parent][side] = value
            continue
        place = len(tree.order)
        if parent >= 0:
            tree.children[parent][side] = place
        both = float(cover[left[node]]) + float(cover[right[node]])
        share = float(cover[left[node]]) / both if both > 0.0 else 0.5
        feature = int(forest.feature[node])
        above, above_right, kept = asked.get(feature, (-1, False, 1.0))
        tree.order.append(node)
        tree.share.append(share)
        tree.above.append(above)
        tree.above_right.append(above_right)
        tree.kept.append(kept)
        tree.children.append([-1, -1])
        tree.leaves.append([0.0, 0.0])
        for child, number, part in ((int(right[node]), 1, 1.0 - share), (int(left[node]), 0, share)):
            below = {**asked, feature: (place, bool(number), kept * part)}
            todo.append((child, place, number, reach * part, below))
    return tree


def _factors(pairs: list[tuple[int, float]], most: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Return weight [Q + 1, Q], gain [E, Q] and boost [E, Q] for these pairs of points and z."""
    wide = max(most, 1)
    weight = np.zeros((most + 1, wide))
    at = np.ones((most + 1, wide))
    for count in range(1, most + 1):
        nodes, weights = np.polynomial.legendre.leggauss(count)
        at[count, :count] = (nodes + 1.0) / 2.0
        weight[count, :count] = weights / 2.0
    counts, kept = np.array([count for count, _ in pairs]), np.array([z for _, z in pairs])
    y = at[counts]
    f = y + kept[:, None] * (1.0 - y)
    return tuple(table.astype(np.float32) for table in (weight, y / f, kept[:, None] / f**2))
