"""The compiled contributions: `models/shap_bank.py` says what is computed, from what, and why it is right.

A tree is gone through three times for sixteen rows at once: down for what each row answers, up for U, down for P and
the contributions. All rows of a call meet a tree before the next one is read. Sums within a few trees are float32, over
all trees float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.jit import aligned, entry, piece
from models.lanes_kernel import WIDTH, below, choose, fused, load, mask, minus, splat, store, times, unknown
from models.shap_bank import (
    ABOVE,
    ABOVE_RIGHT,
    APART,
    FEATURE,
    FLOATS,
    INTS,
    LEFT_P,
    LEFT_STEP,
    LEFT_U,
    NAN_LEFT,
    RIGHT_LEAF,
    RIGHT_P,
    RIGHT_STEP,
    RIGHT_U,
    SHARE,
    THRESHOLD,
    ShapBank,
    ShapNodes,
    ShapTrees,
)  # fmt: skip

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]
Arrays = tuple[npt.NDArray[Any], ...]

# Blocks of WIDTH rows that meet a tree together: what they work in stays in the second-level cache.
BLOCKS = 8
# Trees whose contributions are summed in float32 before they join the rest.
TREES_A_SUM = 8
ALL = np.uint16(0xFFFF)
LANES = np.uint64(WIDTH)


class ShapWork(NamedTuple):
    """What `contributions` works in: one for each thread. k features, S slots in the largest tree, Q points."""

    values: F32  # [BLOCKS, k, WIDTH]
    missing: U16  # [BLOCKS, k], a bit for each row whose value is NaN
    left: U16  # [S], the rows that go left
    held: U16  # [S], the rows that satisfy what was asked of the feature above
    more: F32  # [S, WIDTH], d
    below: F32  # [S, Q, WIDTH] as far as the tree has points, U; then [leaves, WIDTH], those spread out
    reach: F32  # [S, Q, WIDTH], P
    part: F32  # [BLOCKS, k, WIDTH], contributions of a few trees
    total: F64  # [BLOCKS, k, WIDTH]


def new_work(bank: ShapBank) -> ShapWork:
    """Return scratch for one thread."""
    k, slots, q = bank.n_features, bank.most_slots, bank.trees.weight.shape[0] - 1
    left, held = aligned((slots,), np.uint16), aligned((slots,), np.uint16)
    left[0] = held[0] = ALL
    return ShapWork(
        aligned((BLOCKS, k, WIDTH), np.float32),
        aligned((BLOCKS, k), np.uint16),
        left,
        held,
        aligned((slots, WIDTH), np.float32),
        aligned((slots * q + bank.most_leaves, WIDTH), np.float32),
        aligned((slots, q, WIDTH), np.float32),
        aligned((BLOCKS, k, WIDTH), np.float32),
        aligned((BLOCKS, k, WIDTH), np.float64),
    )


@entry
def contributions(x: F32, nodes_: Arrays, trees_: Arrays, work_: Arrays, out: F64) -> None:
    """Write each feature's part in the log-odds, out float64[n, k], of x float32[n, k]."""
    nodes, trees, work = ShapNodes(*nodes_), ShapTrees(*trees_), ShapWork(*work_)
    n_trees = trees.points.shape[0]
    for first in range(0, x.shape[0], BLOCKS * WIDTH):
        rows = x[first : first + BLOCKS * WIDTH]
        blocks = (rows.shape[0] + WIDTH - 1) // WIDTH
        read(rows, work)
        for t in range(n_trees):
            spread(trees, t, work.left.shape[0], work.below)
            for block in range(blocks):
                explain_tree(nodes, trees, t, work, block)
            if (t + 1) % TREES_A_SUM == 0 or t + 1 == n_trees:
                add_up(work, blocks)
        for i in range(rows.shape[0]):
            for f in range(rows.shape[1]):
                out[first + i, f] = work.total[i // WIDTH, f, i % WIDTH]


@piece
def read(rows: F32, work: ShapWork) -> None:
    """Turn the rows on their side, block by block; lanes without a row repeat what was there."""
    for i in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            work.values[i // WIDTH, f, i % WIDTH] = rows[i, f]
    for block in range((rows.shape[0] + WIDTH - 1) // WIDTH):
        for f in range(rows.shape[1]):
            work.missing[block, f] = unknown(load(work.values[block], f * WIDTH))
            for i in range(WIDTH):
                work.part[block, f, i] = np.float32(0.0)
                work.total[block, f, i] = 0.0


@piece
def add_up(work: ShapWork, blocks: int) -> None:
    """Bring the contributions of a few trees to the rest."""
    for block in range(blocks):
        part, total = work.part[block], work.total[block]
        for f in range(part.shape[0]):
            for i in range(WIDTH):
                total[f, i] += np.float64(part[f, i])
                part[f, i] = np.float32(0.0)


@piece
def spread(trees: ShapTrees, t: int, slots: int, below_: F32) -> None:
    """Write the tree's leaves beside an inner node into every lane."""
    first = np.uint64(slots * (trees.weight.shape[0] - 1))
    leaves = trees.leaves[trees.leaf_starts[t] : trees.leaf_starts[t + 1]]
    for i in range(leaves.shape[0]):
        store(below_, (first + np.uint64(i)) * LANES, splat(leaves[i]))


@piece
def explain_tree(nodes: ShapNodes, trees: ShapTrees, t: int, work: ShapWork, block: int) -> None:
    """Add one tree's contributions for one block of rows to `work.part`."""
    first, last, points = trees.starts[t], trees.starts[t + 1], trees.points[t]
    n = last - first
    if n == 0:
        return
    width = FLOATS + 2 * points
    tree = ShapNodes(
        nodes.ints[first * INTS : last * INTS],
        nodes.floats[trees.floats[t] : trees.floats[t] + n * width],
    )
    part = work.part[block]
    answer(tree, width, work.values[block], work.missing[block], work)
    for q in range(points):
        store(work.reach, np.uint64(points + q) * LANES, splat(trees.weight[points, q]))
    inner = n - trees.above_leaves[t]
    if points == 3:
        three(tree, inner, points, work, part)
    elif points == 4:
        four(tree, inner, points, work, part)
    elif points == 5:
        five(tree, inner, points, work, part)
    elif points == 2:
        two(tree, inner, points, work, part)
    elif points == 1:
        one(tree, inner, points, work, part)
    elif points == 6:
        six(tree, inner, points, work, part)
    else:
        many(tree, inner, points, work, part)


@piece
def answer(tree: ShapNodes, width: int, values: F32, missing: U16, work: ShapWork) -> None:
    """Write d of every node: by how much more than its share the left child gets, 0 where the feature failed above."""
    none, all_ = splat(np.float32(0.0)), splat(np.float32(1.0))
    for n in range(tree.ints.shape[0] // INTS):
        feature, above = np.uint64(whole(tree, n, FEATURE)), np.uint64(whole(tree, n, ABOVE))
        less = below(load(values, feature), splat(real(tree, width, n, THRESHOLD)))
        left = less | (missing[feature // LANES] & np.uint16(whole(tree, n, NAN_LEFT)))
        held = work.held[above] & (work.left[above] ^ np.uint16(whole(tree, n, ABOVE_RIGHT)))
        slot = np.uint64(n + 1)
        work.left[slot], work.held[slot] = left, held
        more = minus(choose(mask(left), all_, none), splat(real(tree, width, n, SHARE)))
        store(work.more, slot * LANES, choose(mask(held), more, none))


@piece
def whole(tree: ShapNodes, n: int, which: int) -> int:
    """Return one of a node's whole numbers."""
    return tree.ints[np.uint64(n) * np.uint64(INTS) + np.uint64(which)]


@piece
def real(tree: ShapNodes, width: int, n: int, which: int) -> np.float32:
    """Return one of a node's real numbers, of which it has `width`."""
    return tree.floats[np.uint64(n) * np.uint64(width) + np.uint64(which)]


def passes(unrolled: int) -> Callable[..., None]:
    """Return the way up and down for trees of so many points, or of any number for 0.

    With the number known, a node's loop over its points is straight code and its sums stay in registers.
    """

    @piece
    def climb(tree: ShapNodes, inner: int, points: int, work: ShapWork) -> None:
        """Write U of every node but the root, from the leaves up; the first `inner` nodes have no two leaves."""
        count = unrolled or points
        width = FLOATS + 2 * count
        stride = np.uint64(count) * LANES
        for n in range(inner, tree.ints.shape[0] // INTS):
            at = np.uint64(n + 1)
            share, more = splat(real(tree, width, n, SHARE)), load(work.more, at * LANES)
            apart, right = splat(real(tree, width, n, APART)), splat(real(tree, width, n, RIGHT_LEAF))
            for q in range(count):
                ratio = fused(splat(real(tree, width, n, FLOATS + q)), more, share)
                store(work.below, at * stride + np.uint64(q) * LANES, fused(ratio, apart, right))
        for back in range(1, inner):
            n = inner - back
            at = np.uint64(n + 1)
            share, more = splat(real(tree, width, n, SHARE)), load(work.more, at * LANES)
            left_at, left_step = np.uint64(whole(tree, n, LEFT_U)), np.uint64(whole(tree, n, LEFT_STEP))
            right_at, right_step = np.uint64(whole(tree, n, RIGHT_U)), np.uint64(whole(tree, n, RIGHT_STEP))
            for q in range(count):
                left = load(work.below, left_at + np.uint64(q) * left_step)
                right = load(work.below, right_at + np.uint64(q) * right_step)
                ratio = fused(splat(real(tree, width, n, FLOATS + q)), more, share)
                store(work.below, at * stride + np.uint64(q) * LANES, fused(ratio, minus(left, right), right))

    @piece
    def descend(tree: ShapNodes, inner: int, points: int, work: ShapWork, part: F32) -> None:
        """Hand P down from the root and add every node's contribution."""
        count = unrolled or points
        width = FLOATS + 2 * count
        stride = np.uint64(count) * LANES
        for n in range(inner):
            at = np.uint64(n + 1)
            share, more = splat(real(tree, width, n, SHARE)), load(work.more, at * LANES)
            left_at, left_step = np.uint64(whole(tree, n, LEFT_U)), np.uint64(whole(tree, n, LEFT_STEP))
            right_at, right_step = np.uint64(whole(tree, n, RIGHT_U)), np.uint64(whole(tree, n, RIGHT_STEP))
            left_to, right_to = np.uint64(whole(tree, n, LEFT_P)), np.uint64(whole(tree, n, RIGHT_P))
            total = splat(np.float32(0.0))
            for q in range(count):
                step = np.uint64(q) * LANES
                reach = load(work.reach, at * stride + step)
                left = load(work.below, left_at + np.uint64(q) * left_step)
                right = load(work.below, right_at + np.uint64(q) * right_step)
                boost = splat(real(tree, width, n, FLOATS + count + q))
                total = fused(times(reach, boost), minus(left, right), total)
                to_left = times(reach, fused(splat(real(tree, width, n, FLOATS + q)), more, share))
                store(work.reach, left_to + step, to_left)
                store(work.reach, right_to + step, minus(reach, to_left))
            feature = np.uint64(whole(tree, n, FEATURE))
            store(part, feature, fused(more, total, load(part, feature)))
        for n in range(inner, tree.ints.shape[0] // INTS):
            at = np.uint64(n + 1)
            total = splat(np.float32(0.0))
            for q in range(count):
                reach = load(work.reach, at * stride + np.uint64(q) * LANES)
                total = fused(reach, splat(real(tree, width, n, FLOATS + count + q)), total)
            total = times(total, splat(real(tree, width, n, APART)))
            feature = np.uint64(whole(tree, n, FEATURE))
            store(part, feature, fused(load(work.more, at * LANES), total, load(part, feature)))

    @piece
    def up_and_down(tree: ShapNodes, inner: int, points: int, work: ShapWork, part: F32) -> None:
        climb(tree, inner, points, work)
        descend(tree, inner, points, work, part)

    return up_and_down


one, two, three, four, five, six, many = (passes(number) for number in (1, 2, 3, 4, 5, 6, 0))
