"""Trained forests in one plain form, equal leaf for leaf to the library that trained them.

XGBoost and LightGBM disagree on how a row goes left. Every rule of both is folded, once and here, into a single one:

    go left if x < threshold; a NaN goes where `nan_left` says

Engines and exporters then need to know no library's rules.
"""

import json
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import BundleError
from models.lightgbm_text import Columns, read_lightgbm

# LightGBM's kZeroThreshold, a float32 widened to float64: its predictor takes any |x| up to and including it for 0.
LIGHTGBM_ZERO = float(np.float32(1e-35))
# From here on a threshold is LightGBM's infinity, which a split between known and missing values has; where it writes
# finite numbers only, it writes this. Its predictor compares with the infinity itself, so that an infinite value goes
# left there, too.
LIGHTGBM_INFINITY = 1e300


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Binary trees as flat arrays over all N nodes; a tree's nodes are contiguous and begin with its root.

    `margin(x) = base + sum of the values of the leaves reached`, in log-odds. In a leaf, left and right are -1.
    Infinities, -0.0 and denormal inputs follow from plain float32 comparison.
    """

    n_features: int
    base: float
    roots: npt.NDArray[np.int32]  # [T]
    feature: npt.NDArray[np.int32]  # [N], 0 in a leaf
    threshold: npt.NDArray[np.float32]  # [N], 0 in a leaf
    nan_left: npt.NDArray[np.bool_]  # [N]
    left: npt.NDArray[np.int32]  # [N]
    right: npt.NDArray[np.int32]  # [N]
    value: npt.NDArray[np.float64]  # [N], 0 in an inner node
    leaf_id: npt.NDArray[np.int32]  # [N], the library's own number of the leaf, -1 in an inner node
    # [N], how much of the training data came by: XGBoost's sum of hessians, LightGBM's number of rows, as each library
    # itself weighs the ways a missing feature could have gone.
    cover: npt.NDArray[np.float64]

    @property
    def n_trees(self) -> int:
        """Number of trees T."""
        return len(self.roots)

    def leaves(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Return the node index of the leaf reached, int32[n, T], for x float32[n, n_features]: the reference."""
        node = np.repeat(self.roots[None, :], len(x), axis=0)
        rows = np.arange(len(x))[:, None]
        while (inner := self.left[node] >= 0).any():
            seen = x[rows, self.feature[node]]
            left = np.where(np.isnan(seen), self.nan_left[node], seen < self.threshold[node])
            node = np.where(inner, np.where(left, self.left[node], self.right[node]), node)
        return node

    def slice(self, first: int, last: int) -> "Forest":
        """Return the trees first to last - 1 as a forest of their own, with base 0."""
        ends = np.append(self.roots, len(self.left))
        begin, end = int(ends[first]), int(ends[last])
        inner = self.left[begin:end] >= 0
        return Forest(
            n_features=self.n_features,
            base=0.0,
            roots=self.roots[first:last] - np.int32(begin),
            feature=self.feature[begin:end],
            threshold=self.threshold[begin:end],
            nan_left=self.nan_left[begin:end],
            left=np.where(inner, self.left[begin:end] - np.int32(begin), np.int32(-1)),
            right=np.where(inner, self.right[begin:end] - np.int32(begin), np.int32(-1)),
            value=self.value[begin:end],
            leaf_id=self.leaf_id[begin:end],
            cover=self.cover[begin:end],
        )

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the log-odds float64[n] of x float32[n, n_features]."""
        return np.asarray(self.base + self.value[self.leaves(x)].sum(axis=1), np.float64)


def parse_xgboost(raw: bytes) -> Forest:
    """Read what `Booster.save_raw("json")` gives for a binary:logistic model. Raises BundleError."""
    try:
        learner = _parts(_parts(raw)["learner"])
        booster = _parts(learner["gradient_booster"])
        name = msgspec.json.decode(booster["name"])
        param = msgspec.json.decode(learner["learner_model_param"])
        _check_xgboost(name, msgspec.json.decode(learner["objective"])["name"], param)
        # DART keeps the trees as they were trained, and beside them the weight that dropping has left to each.
        model = _parts(_parts(booster["gbtree"])["model"] if name == "dart" else booster["model"])
        each = msgspec.json.decode(model["trees"], type=list[msgspec.Raw])
        trees = [msgspec.json.decode(tree, type=_XgboostTree) for tree in each]
        weights = msgspec.json.decode(booster["weight_drop"]) if name == "dart" else [1.0] * len(trees)
        return _xgboost_forest(trees, weights, int(param["num_feature"]), _xgboost_base(param["base_score"]))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise BundleError(f"The XGBoost model is not readable ({error!r}); save it again as JSON.") from error


def _parts(raw: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object, each to be read when its turn comes.

    Reading the whole at once would keep every thread waiting; tree by tree, a worker that scores meanwhile goes on.
    """
    return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])


class _XgboostTree(msgspec.Struct):
    """What is read of a tree; all arrays are of its nodes, those that pruning has deleted among them."""

    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]
    split_type: list[int]
    default_left: list[Any]
    sum_hessian: list[float]


def _check_xgboost(booster: str, objective: str, param: dict[str, Any]) -> None:
    if booster not in ("gbtree", "dart"):
        raise BundleError(f"The XGBoost booster {booster!r} is not supported; train with booster gbtree or dart.")
    if objective != "binary:logistic":
        raise BundleError(f"The XGBoost objective {objective!r} is not supported; train with binary:logistic.")
    if int(param.get("num_target", "1")) != 1:
        raise BundleError("The XGBoost model has several targets; train it with one.")


def _xgboost_base(text: str) -> float:
    """Return the margin of the base score: a probability, as "0.5" up to XGBoost 3.0 and as "[0.5]" since."""
    values = json.loads(text)
    probability = float(values[0]) if isinstance(values, list) else float(values)
    if not 0.0 < probability < 1.0:
        raise BundleError(f"The XGBoost base_score {probability} is not between 0 and 1; train it on both classes.")
    return float(np.log(probability) - np.log1p(-probability))


def _xgboost_forest(trees: list[_XgboostTree], weights: list[float], n_features: int, base: float) -> Forest:
    if any(any(tree.split_type) for tree in trees):
        raise BundleError("The XGBoost model splits on categories; train it on numbers only.")
    sizes = np.array([len(tree.left_children) for tree in trees], np.int64)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)

    def column(name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        parts = [getattr(tree, name) for tree in trees]
        if [len(part) for part in parts] != sizes.tolist():
            raise ValueError(f"a tree has not as many {name} as nodes")
        return np.array(list(chain.from_iterable(parts)), kind)

    left, right = column("left_children", np.int64), column("right_children", np.int64)
    condition = column("split_conditions", np.float64)
    is_leaf = left < 0
    return _packed(
        sizes,
        n_features=n_features,
        base=base,
        feature=np.where(is_leaf, 0, column("split_indices", np.int64)),
        threshold=np.where(is_leaf, 0.0, condition),
        nan_left=~is_leaf & column("default_left", np.bool_),
        left=np.where(is_leaf, -1, left + first),
        right=np.where(is_leaf, -1, right + first),
        value=np.where(is_leaf, np.repeat(np.array(weights, np.float64), sizes) * condition, 0.0),
        leaf_id=np.where(is_leaf, np.arange(len(left)) - first, -1),
        cover=column("sum_hessian", np.float64),
    )


def parse_lightgbm(text: str) -> Forest:
    """Read what `Booster.model_to_string()` gives for a binary model. Raises BundleError."""
    try:
        return _lightgbm_forest(read_lightgbm(text))
    except (KeyError, ValueError) as error:
        raise BundleError(f"The LightGBM model is not readable ({error!r}); save it again as text.") from error


def _lightgbm_forest(trees: Columns) -> Forest:
    """Lay each tree's splits before its leaves."""
    splits = trees.leaves - 1
    sizes = splits + trees.leaves
    first = np.cumsum(sizes) - sizes
    split = np.repeat(first, splits) + _within(splits)
    leaf = np.repeat(first + splits, trees.leaves) + _within(trees.leaves)
    ends = np.repeat(first + splits, splits)
    # Above an infinite threshold there is no number: `x < t` cannot say that all go left. None is below minus infinity
    # either, so with that threshold and the children changed over, every number goes where it should.
    mirrored = trees.threshold >= LIGHTGBM_INFINITY
    threshold = np.where(mirrored, np.float32(-np.inf), strict_thresholds(trees.threshold))
    # A node trained without missing values takes a NaN for 0.
    nan_left = np.where(trees.missing_is_nan, trees.default_left, mirrored | (threshold > 0.0)) != mirrored
    one, other = (
        np.where(child >= 0, np.repeat(first, splits) + child, ends + ~child) for child in (trees.left, trees.right)
    )

    def spread(of_splits: npt.ArrayLike, of_leaves: npt.ArrayLike, kind: type[np.generic]) -> npt.NDArray[Any]:
        column = np.empty(int(sizes.sum()), kind)
        column[split], column[leaf] = of_splits, of_leaves
        return column

    return _packed(
        sizes,
        n_features=trees.n_features,
        base=0.0,
        feature=spread(trees.feature, 0, np.int64),
        threshold=spread(threshold, 0.0, np.float64),
        nan_left=spread(nan_left, np.False_, np.bool_),
        left=spread(np.where(mirrored, other, one), -1, np.int64),
        right=spread(np.where(mirrored, one, other), -1, np.int64),
        value=spread(0.0, trees.value, np.float64),
        leaf_id=spread(-1, _within(trees.leaves), np.int64),
        cover=spread(trees.split_count, trees.leaf_count, np.float64),
    )


def _within(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return 0, 1, … size - 1 for each size, joined."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def strict_thresholds(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return t' float32[n] such that, for each float32 x, `x < t'` is what LightGBM answers to `x <= t`.

    The largest float32 not above t keeps `<=` exact; the float32 after it turns `<=` into `<`. LightGBM takes an |x| up
    to `LIGHTGBM_ZERO` for 0, so a threshold inside that zone moves to its edge.
    """
    t = np.where((thresholds >= 0.0) & (thresholds < LIGHTGBM_ZERO), LIGHTGBM_ZERO, thresholds)
    in_zone_below = (t < 0.0) & (t >= -LIGHTGBM_ZERO)
    with np.errstate(over="ignore", under="ignore"):
        down = t.astype(np.float32)
        down = np.where(down.astype(np.float64) > t, np.nextafter(down, np.float32(-np.inf)), down)
        strict = np.nextafter(down, np.float32(np.inf))
    return np.where(in_zone_below, np.float32(-LIGHTGBM_ZERO), strict).astype(np.float32)


def _packed(
    sizes: npt.NDArray[np.int64],
    *,
    n_features: int,
    base: float,
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    **columns: npt.NDArray[Any],
) -> Forest:
    """Keep the nodes that a root leads to. Raises ValueError where the trees are none, BundleError as `_check` does."""
    roots = np.cumsum(sizes) - sizes
    tree = np.repeat(np.arange(len(sizes)), sizes)
    inner = np.flatnonzero(left >= 0)
    children = np.concatenate([left[inner], right[inner]])
    if children.size and not 0 <= children.min() <= children.max() < len(left):
        raise ValueError("a node has no such child")
    parents = np.bincount(children, minlength=len(left))
    if (parents > 1).any() or parents[roots].any() or (tree[children] != np.tile(tree[inner], 2)).any():
        raise ValueError("a node has two parents")
    reached, level = np.zeros(len(left), np.bool_), roots
    while level.size:
        reached[level] = True
        level = level[left[level] >= 0]
        level = np.concatenate([left[level], right[level]])
    place = np.append(np.cumsum(reached) - 1, -1).astype(np.int32)  # the last is that of no child
    kinds = {"feature": np.int32, "threshold": np.float32, "leaf_id": np.int32}
    forest = Forest(
        n_features=n_features,
        base=base,
        roots=place[roots],
        left=place[left[reached]],
        right=place[right[reached]],
        **{name: column[reached].astype(kinds.get(name, column.dtype)) for name, column in columns.items()},
    )
    _check(forest)
    return forest


def _check(forest: Forest) -> None:
    if not forest.n_trees:
        raise BundleError("The model has no trees; train it for at least one round.")
    if not np.isfinite(forest.value).all() or np.isnan(forest.threshold).any():
        raise BundleError("The model has a leaf or a threshold that is not a number; train it again.")
    if forest.feature.min() < 0 or forest.feature.max() >= forest.n_features:
        raise BundleError(f"The model splits on a feature beyond its {forest.n_features}; train it again.")
