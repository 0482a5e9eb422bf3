"""The compiled forest: ranks, exit leaves, the plain walk, scores (`models/forest_bank.py` says what the arrays hold).

A row's leaf values are added in float64 in the order of the trees, on either path; so its margin has the same bits in
whatever batch and position it comes, and whichever path it takes.

Written for the vectoriser: an array is sliced before a loop over its rows, since an index it cannot prove non-negative
stops it; small integers are cast back at each step, since they widen; in the binary search all rows take each step
together, with unsigned positions.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.forest_bank import LeafBits, Ranking, Walk
from models.jit import aligned, entry, piece, section
from models.leafbits_kernel import ROWS, exit_leaves

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Arrays = tuple[npt.NDArray[Any], ...]
Ranks = npt.NDArray[Any]  # uint8 or uint16

# Beyond this, exp overflows in float64; a score is 0 or 1 long before.
MOST_LOG_ODDS = 708.0
LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693147180369123816490  # its last 32 bits are zero, so its product with a small integer is exact
LN2_LOW = 1.90821492927058770002e-10
POWERS_OF_TWO = 2.0 ** np.arange(-1023, 1024)
# 1 / k!, the last first: |r| <= ln(2) / 2, whose 14th power over 14! is below half an ULP of 1.
INVERSE_FACTORIALS = 1.0 / np.cumprod(np.array([1, *range(1, 14)], np.float64))[::-1]


class Work(NamedTuple):
    """What `margins` works in: one for each thread."""

    values: F32  # [ROWS], of one feature
    position: npt.NDArray[np.uint32]  # [ROWS], of the binary search
    found: Ranks  # [ROWS], of one feature
    ranks: Ranks  # [C + 1, ROWS]; the last column stays 0, for leaves to read
    leaf: Ranks  # [ROWS], reached in one tree
    total: F64  # [ROWS]


def new_work(ranking: Ranking) -> Work:
    """Return scratch for one thread."""
    kind = ranking.nan.dtype
    return Work(
        aligned((ROWS,), np.float32),
        aligned((ROWS,), np.uint32),
        aligned((ROWS,), kind),
        aligned((len(ranking.feature) + 1, ROWS), kind),
        aligned((ROWS,), kind),
        aligned((ROWS,), np.float64),
    )


@entry
def margins(
    x: F32, base: float, crossover: int, ranking_: Arrays, bits_: Arrays, walk_: Arrays, work_: Arrays, out: F64
) -> None:
    """Write the log-odds out float64[n] of x float32[n, k]: by leaf bits where a block has `crossover` rows or more.

    Takes its named tuples as plain ones, whose types Numba looks up faster: by 5 us a call of some 10.
    """
    ranking, bits, walk, work = Ranking(*ranking_), LeafBits(*bits_), Walk(*walk_), Work(*work_)
    total = work.total
    for first in range(0, x.shape[0], ROWS):
        block = x[first : first + ROWS]
        n = block.shape[0]
        rank_block(block, ranking, work)
        for i in range(ROWS):
            total[i] = base
        if n >= crossover:
            add_exit_leaves(n, bits, walk, work)
        else:
            walk_forest(n, work.ranks, walk, total)
        own = out[first : first + ROWS]
        for i in range(n):
            own[i] = total[i]


@section
def rank_block(x: F32, ranking: Ranking, work: Work) -> None:
    """Write the ranks of at most ROWS rows; what stands beyond them is of no account."""
    values, found = work.values, work.found
    n = x.shape[0]
    last = -1
    for c in range(ranking.feature.shape[0]):
        if ranking.feature[c] != last:
            last = ranking.feature[c]
            for i in range(n):
                values[i] = x[i, last]
            own_thresholds = ranking.thresholds[ranking.starts[last] : ranking.starts[last + 1]]
            rank_feature(values[:n], own_thresholds, work.position, found)
        own = work.ranks[c]
        nan, flip = ranking.nan[c], ranking.flip[c]
        for i in range(n):
            own[i] = (found[i] if values[i] == values[i] else nan) ^ flip  # a NaN does not equal itself


@section
def rank_feature(values: F32, thresholds: F32, position: npt.NDArray[np.uint32], found: Ranks) -> None:
    """found[i] = how many of the thresholds, ascending and at least one, are <= values[i]; none for a NaN."""
    kind = found.dtype.type
    n = values.shape[0]
    for i in range(n):
        position[i] = np.uint32(0)
    size = thresholds.shape[0]
    while size > 1:
        half = size >> 1
        probe = thresholds[half - 1 :]
        step = np.uint32(half)
        for i in range(n):
            position[i] += step if probe[position[i]] <= values[i] else np.uint32(0)
        size -= half
    for i in range(n):
        found[i] = kind(position[i] + (np.uint32(1) if thresholds[position[i]] <= values[i] else np.uint32(0)))


@section
def add_exit_leaves(n: int, bits: LeafBits, walk: Walk, work: Work) -> None:
    """Add each tree's leaf to the total of every row of a block, by leaf bits where the tree has words."""
    total, leaf = work.total, work.leaf
    for t in range(bits.word_starts.shape[0] - 1):
        first, last = bits.word_starts[t], bits.word_starts[t + 1]
        if first == last:
            walk_tree(n, t, work.ranks, walk, total)
            continue
        exit_leaves(work.ranks, bits.column, bits.bound, bits.mask, bits.step_starts, first, last, leaf)
        value = bits.value[bits.leaf_starts[t] : bits.leaf_starts[t + 1]]
        for i in range(ROWS):
            total[i] += value[leaf[i]]


@section
def walk_forest(n: int, ranks: Ranks, walk: Walk, total: F64) -> None:
    """Add each tree's leaf to the totals of n rows.

    Four trees go down together, as many steps as the deepest of them has: no branch depends on the data, and while one
    waits for its node the others go on.
    """
    roots, depth, node, value = walk.roots, walk.depth, walk.node, walk.value
    trees = roots.shape[0]
    whole = trees - trees % 4
    for t in range(0, whole, 4):
        steps = max(depth[t], depth[t + 1], depth[t + 2], depth[t + 3])
        for i in range(n):
            a, b, c, d = np.uint64(roots[t]), np.uint64(roots[t + 1]), np.uint64(roots[t + 2]), np.uint64(roots[t + 3])
            for _ in range(steps):
                a = child(node[a], ranks, i)
                b = child(node[b], ranks, i)
                c = child(node[c], ranks, i)
                d = child(node[d], ranks, i)
            total[i] = (((total[i] + value[a]) + value[b]) + value[c]) + value[d]
    for t in range(whole, trees):
        walk_tree(n, t, ranks, walk, total)


@section
def walk_tree(n: int, t: int, ranks: Ranks, walk: Walk, total: F64) -> None:
    """Add to the totals of n rows the values of the leaves that they reach in tree t."""
    roots, depth, node, value = walk.roots, walk.depth, walk.node, walk.value
    for i in range(n):
        at = np.uint64(roots[t])
        for _ in range(depth[t]):
            at = child(node[at], ranks, i)
        total[i] += value[at]


@piece
def child(node: np.uint64, ranks: Ranks, row: int) -> np.uint64:
    """Return the place of the node's child where the row goes."""
    rank = np.uint64(ranks[(node >> np.uint64(16)) & np.uint64(0xFFFF), np.uint64(row)])
    return (node >> np.uint64(32)) + np.uint64(rank >= (node & np.uint64(0xFFFF)))


@entry
def scores(first: F64, second: F64, bias: float, first_weight: float, second_weight: float, out: F32) -> None:
    """Write the scores float32[n] of two libraries' margins float64[n]: sigmoid of their weighted sum and the bias."""
    for i in range(out.shape[0]):
        log_odds = bias + (first_weight * first[i] + second_weight * second[i])
        out[i] = np.float32(1.0 / (1.0 + exp(-log_odds)))


@section
def exp(t: float) -> float:
    """Return e to the power t within an ULP or two, limited where it would leave float64.

    Written out, so that it is the same bits everywhere: a library's exp differs by version, by processor, and, where
    loops over it are vectorised, by position.
    """
    t = min(max(t, -MOST_LOG_ODDS), MOST_LOG_ODDS)
    k = np.floor(t * LOG2_E + 0.5)
    r = (t - k * LN2_HIGH) - k * LN2_LOW
    power = INVERSE_FACTORIALS[0]
    for i in range(1, INVERSE_FACTORIALS.shape[0]):
        power = power * r + INVERSE_FACTORIALS[i]
    return power * POWERS_OF_TWO[np.int64(k) + 1023]
