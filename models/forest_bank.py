"""One library's forest laid out for the kernel: ranks instead of values, leaf bits instead of branches.

**Ranks.** The rank of x among a feature's distinct thresholds is how many of them are <= x. `x < threshold i` is then
exactly `rank < i + 1`: one byte a value up to 255 thresholds, two bytes up to 65,535.

**First and second.** A tree's leaves are numbered so that of a node's two subtrees the one with fewer leaves comes
first. "Goes to the second" is then the only question there is to a node, and always `rank >= bound`, for what differs
between nodes is folded into the ranks they read. A feature has up to four columns of them:

    where a NaN goes left, its rank is 0; where it goes right, the greatest number there is
    where the second subtree is the left one, a rank is the greatest number less its plain rank (a flip of all bits),
    and the bound the greatest number + 1 less the plain bound

**Leaf bits** (QuickScorer, Lucchese et al., SIGIR 2015; over blocks of rows as in RapidScorer, Ye et al., KDD 2018).
Each row starts with one bit for each leaf of a tree. A node whose row goes to the second subtree clears the bits of the
first; when all nodes have spoken, in any order, the lowest bit left is the leaf reached. Bits lie in words as wide as a
rank; since the first subtree is the smaller, a node touches few words.

**Walk.** The same questions from the root down, for few rows, and for trees of so many leaves that most nodes would
speak for nothing.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.errors import EngineError
from models.forest import Forest

MAX_BYTE_THRESHOLDS = 255
MAX_THRESHOLDS = 65_535
MAX_COLUMNS = 65_535
# Beyond as many leaves, a tree's nodes take longer to evaluate one and all than a row takes to walk down.
MAX_LEAVES = 256


class Ranking(NamedTuple):
    """How a block of rows becomes ranks; M thresholds in all, C columns, sorted by feature."""

    thresholds: npt.NDArray[np.float32]  # [M], ascending within a feature
    starts: npt.NDArray[np.int32]  # [k + 1], where a feature's thresholds begin
    feature: npt.NDArray[np.int32]  # [C]
    nan: npt.NDArray[Any]  # uint8 or uint16[C]: what a NaN ranks
    flip: npt.NDArray[Any]  # uint8 or uint16[C]: 0, or the greatest number where the column is reversed


class LeafBits(NamedTuple):
    """Steps by word, words by tree; P steps, W words, T trees, L leaves. A tree without words is walked."""

    column: npt.NDArray[np.int32]  # [P]
    bound: npt.NDArray[Any]  # uint8 or uint16[P]
    mask: npt.NDArray[Any]  # uint8 or uint16[P]
    step_starts: npt.NDArray[np.int32]  # [W + 1]
    word_starts: npt.NDArray[np.int32]  # [T + 1]
    leaf_starts: npt.NDArray[np.int32]  # [T + 1]
    value: npt.NDArray[np.float64]  # [L]


class Walk(NamedTuple):
    """The nodes by tree and depth, the two children of a node side by side; N nodes.

    A node is `first child << 32 | column << 16 | bound`. A leaf is its own first child and asks for 1 in the column
    after the last, which holds zeros: whoever steps on stays.
    """

    roots: npt.NDArray[np.int32]  # [T]
    depth: npt.NDArray[np.int32]  # [T], of the deepest leaf
    node: npt.NDArray[np.uint64]  # [N]
    value: npt.NDArray[np.float64]  # [N]


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """A forest as the kernel takes it."""

    base: float
    ranking: Ranking
    bits: LeafBits
    walk: Walk


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """What follows from the trees' form alone; the children of a leaf mean nothing."""

    tree: npt.NDArray[np.int64]  # [N]
    levels: list[npt.NDArray[np.int64]]  # the nodes at each depth
    leaves: npt.NDArray[np.int64]  # [N], leaves below a node; of a leaf 1
    left_first: npt.NDArray[np.bool_]  # [N]
    one: npt.NDArray[np.int32]  # [N], the root of the first subtree
    other: npt.NDArray[np.int32]  # [N], of the second
    number: npt.NDArray[np.int64]  # [N], number within its tree of a node's first leaf


@dataclass(frozen=True, slots=True, eq=False)
class _Questions:
    """What each inner node asks."""

    node: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    bound: npt.NDArray[np.int64]
    columns: int  # how many there are


def build_bank(forest: Forest) -> Bank:
    """Lay out a forest. Raises EngineError where a feature's thresholds or the columns are too many for two bytes."""
    shape = _shape(forest)
    inner = np.flatnonzero(forest.left >= 0)
    own = _keys(forest)[inner]
    keys, representative = np.unique(own, return_index=True)
    starts = np.searchsorted(keys, np.arange(forest.n_features + 1) << 32)
    most = int(np.diff(starts).max())
    kind: np.dtype[Any] = np.dtype(np.uint8 if most <= MAX_BYTE_THRESHOLDS else np.uint16)
    greatest = (1 << 8 * kind.itemsize) - 1

    feature, swapped = forest.feature[inner], ~shape.left_first[inner]
    columns, column = np.unique(4 * feature + 2 * swapped + ~forest.nan_left[inner], return_inverse=True)
    if most > MAX_THRESHOLDS or len(columns) > MAX_COLUMNS:
        raise EngineError(
            f"The model has a feature with {most} thresholds and needs {len(columns)} columns of ranks, more than the "
            f"{MAX_THRESHOLDS} and {MAX_COLUMNS} of the engine forest; choose engine onnx.",
        )
    rank = np.searchsorted(keys, own) - starts[feature] + 1
    questions = _Questions(inner, column, np.where(swapped, greatest + 1 - rank, rank), len(columns))
    ranking = Ranking(
        thresholds=forest.threshold[inner[representative]],
        starts=starts.astype(np.int32),
        feature=(columns // 4).astype(np.int32),
        nan=np.where(columns & 1, greatest, 0).astype(kind),
        flip=np.where(columns & 2, greatest, 0).astype(kind),
    )
    return Bank(forest.base, ranking, _leaf_bits(forest, shape, questions, kind), _walk(forest, shape, questions))


def _keys(forest: Forest) -> npt.NDArray[np.int64]:
    """Return for each node [N] a number that orders by feature, then by threshold; the same for -0 and 0."""
    bits = forest.threshold.view(np.int32).astype(np.int64)
    ordered = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    return (forest.feature.astype(np.int64) << 32) + ordered + (1 << 31)


def _shape(forest: Forest) -> _Shape:
    tree = np.repeat(np.arange(forest.n_trees), np.diff(forest.roots, append=len(forest.left)))
    levels = [forest.roots.astype(np.int64)]
    while (nodes := levels[-1][forest.left[levels[-1]] >= 0]).size:
        levels.append(np.concatenate([forest.left[nodes], forest.right[nodes]]).astype(np.int64))
    leaves = np.ones(len(forest.left), np.int64)
    for level in reversed(levels):
        nodes = level[forest.left[level] >= 0]
        leaves[nodes] = leaves[forest.left[nodes]] + leaves[forest.right[nodes]]
    left_first = leaves[forest.left] <= leaves[forest.right]
    one = np.where(left_first, forest.left, forest.right)
    other = np.where(left_first, forest.right, forest.left)
    number = np.zeros(len(forest.left), np.int64)
    for level in levels:
        nodes = level[forest.left[level] >= 0]
        number[one[nodes]] = number[nodes]
        number[other[nodes]] = number[nodes] + leaves[one[nodes]]
    return _Shape(tree, levels, leaves, left_first, one, other, number)


def _leaf_bits(forest: Forest, shape: _Shape, questions: _Questions, kind: np.dtype[Any]) -> LeafBits:
    width = 8 * kind.itemsize
    total = shape.leaves[forest.roots]
    words = np.where(total <= MAX_LEAVES, -(-total // width), 0)
    word_starts = np.concatenate([[0], np.cumsum(words)])
    asked = np.flatnonzero(words[shape.tree[questions.node]] > 0)
    step, word, mask = _steps(shape, questions.node[asked], width)
    question = asked[step]
    word += word_starts[shape.tree[questions.node[question]]]
    order = np.lexsort((questions.bound[question], questions.column[question], word))
    leaf = np.flatnonzero(forest.left < 0)
    leaf = leaf[np.lexsort((shape.number[leaf], shape.tree[leaf]))]
    return LeafBits(
        column=questions.column[question[order]].astype(np.int32),
        bound=questions.bound[question[order]].astype(kind),
        mask=mask[order].astype(kind),
        step_starts=np.searchsorted(word[order], np.arange(word_starts[-1] + 1)).astype(np.int32),
        word_starts=word_starts.astype(np.int32),
        leaf_starts=np.concatenate([[0], np.cumsum(total)]).astype(np.int32),
        value=forest.value[leaf],
    )


def _steps(shape: _Shape, nodes: npt.NDArray[np.int64], width: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Return for each step which of the nodes takes it, the word within the tree, and the mask that it ANDs in."""
    begin = shape.number[nodes]
    end = begin + shape.leaves[shape.one[nodes]]
    touched = (end - 1) // width - begin // width + 1
    step = np.repeat(np.arange(len(nodes)), touched)
    word = begin[step] // width + np.arange(len(step)) - np.repeat(np.cumsum(touched) - touched, touched)
    low = np.maximum(begin[step] - word * width, 0)
    high = np.minimum(end[step] - word * width, width)
    return step, word, ~((1 << high) - (1 << low)) & ((1 << width) - 1)


def _walk(forest: Forest, shape: _Shape, questions: _Questions) -> Walk:
    depth = np.zeros(forest.n_trees, np.int32)
    for level, nodes in enumerate(shape.levels):
        depth[shape.tree[nodes]] = level
    order = [forest.roots.astype(np.int64)]
    while (nodes := order[-1][forest.left[order[-1]] >= 0]).size:
        order.append(np.stack([shape.one[nodes], shape.other[nodes]], axis=1).ravel().astype(np.int64))
    by_depth = np.concatenate(order)
    by_tree = by_depth[np.argsort(shape.tree[by_depth], kind="stable")]
    place = np.empty(len(by_tree), np.uint64)
    place[by_tree] = np.arange(len(by_tree))
    node = (place << np.uint64(32)) | np.uint64(questions.columns << 16 | 1)
    question = np.uint64(questions.column << 16 | questions.bound)
    node[questions.node] = (place[shape.one[questions.node]] << np.uint64(32)) | question
    return Walk(place[forest.roots].astype(np.int32), depth, node[by_tree], forest.value[by_tree])
