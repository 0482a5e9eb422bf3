"""Trained forests in one plain form, equal leaf for leaf to the library that trained them.

XGBoost and LightGBM disagree on how a row goes left. Every rule of both is folded, once and here, into a single one:

    go left if x < threshold; a NaN goes where `nan_left` says

Engines and exporters then need to know no library's rules.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import BundleError

# LightGBM's kZeroThreshold, a float32 widened to float64: its predictor takes any |x| up to and including it for 0.
LIGHTGBM_ZERO = float(np.float32(1e-35))
# What LightGBM's dump writes for an infinite threshold, which a split between known and missing values has. Its
# predictor compares with the infinity itself, so that an infinite value goes left there, too.
LIGHTGBM_INFINITY = 1e300

# Trees that LightGBM tells of at a time: to read them takes all of Python for as long as it lasts, and a worker that
# loads a model goes on scoring meanwhile.
TREES_A_PART = 10


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


@dataclass(slots=True)
class _Node:
    """One node while a tree is read; children are indices within the tree, -1 in a leaf."""

    feature: int = 0
    threshold: float = 0.0
    nan_left: bool = False
    left: int = -1
    right: int = -1
    value: float = 0.0
    leaf_id: int = -1
    cover: float = 0.0


def parse_xgboost(raw: bytes) -> Forest:
    """Read what `Booster.save_raw("json")` gives for a binary:logistic model. Raises BundleError."""
    try:
        learner = msgspec.json.decode(raw)["learner"]
        _check_xgboost(learner)
        booster = learner["gradient_booster"]
        # DART keeps the trees as they were trained, and beside them the weight that dropping has left to each.
        model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
        weights = booster["weight_drop"] if booster["name"] == "dart" else [1.0] * len(model["trees"])
        param = learner["learner_model_param"]
        trees = [_xgboost_tree(tree, weight) for tree, weight in zip(model["trees"], weights, strict=True)]
        return _pack(trees, int(param["num_feature"]), _xgboost_base(param["base_score"]))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise BundleError(f"The XGBoost model is not readable ({error!r}); save it again as JSON.") from error


def _check_xgboost(learner: dict[str, Any]) -> None:
    booster = learner["gradient_booster"]["name"]
    if booster not in ("gbtree", "dart"):
        raise BundleError(f"The XGBoost booster {booster!r} is not supported; train with booster gbtree or dart.")
    objective = learner["objective"]["name"]
    if objective != "binary:logistic":
        raise BundleError(f"The XGBoost objective {objective!r} is not supported; train with binary:logistic.")
    if int(learner["learner_model_param"].get("num_target", "1")) != 1:
        raise BundleError("The XGBoost model has several targets; train it with one.")


def _xgboost_base(text: str) -> float:
    """Return the margin of the base score: a probability, as "0.5" up to XGBoost 3.0 and as "[0.5]" since."""
    values = json.loads(text)
    probability = float(values[0]) if isinstance(values, list) else float(values)
    if not 0.0 < probability < 1.0:
        raise BundleError(f"The XGBoost base_score {probability} is not between 0 and 1; train it on both classes.")
    return float(np.log(probability) - np.log1p(-probability))


def _xgboost_tree(tree: dict[str, Any], weight: float) -> list[_Node]:
    """Read the nodes that can be reached; pruning leaves deleted ones behind in the arrays."""
    if any(tree["split_type"]):
        raise BundleError("The XGBoost model splits on categories; train it on numbers only.")
    nodes: list[_Node] = []
    todo = [(0, -1, False)]
    while todo:
        source, parent, is_left = todo.pop()
        _attach(nodes, parent, is_left=is_left)
        if tree["left_children"][source] < 0:
            value = weight * tree["split_conditions"][source]
            nodes.append(_Node(value=value, leaf_id=source, cover=tree["sum_hessian"][source]))
            continue
        nodes.append(
            _Node(
                feature=tree["split_indices"][source],
                threshold=tree["split_conditions"][source],
                nan_left=bool(tree["default_left"][source]),
                cover=tree["sum_hessian"][source],
            ),
        )
        here = len(nodes) - 1
        todo += [(tree["right_children"][source], here, False), (tree["left_children"][source], here, True)]
    return nodes


def parse_lightgbm(text: str) -> Forest:
    """Read what `Booster.model_to_string()` gives for a binary model. Raises BundleError."""
    try:
        booster = lightgbm.Booster(model_str=text)
        parts = [booster.dump_model(TREES_A_PART, first) for first in range(0, booster.num_trees(), TREES_A_PART)]
        model = parts[0] if parts else booster.dump_model()
    except lightgbm.basic.LightGBMError as error:
        raise BundleError(f"The LightGBM model is not readable ({error}); save it again as text.") from error
    objective = model.get("objective", "none")
    if objective.split() not in (["binary"], ["binary", "sigmoid:1"]):
        raise BundleError(f"The LightGBM objective {objective!r} is not supported; train with binary and sigmoid 1.")
    if model["average_output"]:
        raise BundleError("The LightGBM model averages its trees (boosting rf); train with boosting gbdt.")
    trees = [_lightgbm_tree(tree["tree_structure"]) for part in parts for tree in part["tree_info"]]
    return _pack(trees, model["max_feature_idx"] + 1, 0.0)


def _lightgbm_tree(root: dict[str, Any]) -> list[_Node]:
    nodes: list[_Node] = []
    todo = [(root, -1, False)]
    while todo:
        source, parent, is_left = todo.pop()
        _attach(nodes, parent, is_left=is_left)
        if "leaf_value" in source:
            nodes.append(_lightgbm_leaf(source))
            continue
        nodes.append(_lightgbm_split(source))
        here, mirrored = len(nodes) - 1, _is_mirrored(source)
        todo += [(source["right_child"], here, mirrored), (source["left_child"], here, not mirrored)]
    return nodes


def _lightgbm_leaf(source: dict[str, Any]) -> _Node:
    if "leaf_const" in source:
        raise BundleError("The LightGBM model has linear leaves; train with linear_tree=false.")
    # A tree that never split is one leaf without a number; pred_leaf calls it 0.
    return _Node(
        value=source["leaf_value"],
        leaf_id=source.get("leaf_index", 0),
        cover=source.get("leaf_count", 0),
    )


def _lightgbm_split(source: dict[str, Any]) -> _Node:
    if source["decision_type"] != "<=":
        raise BundleError("The LightGBM model splits on categories; train it on numbers only.")
    missing = source["missing_type"]
    if missing == "Zero":
        raise BundleError("The LightGBM model takes zero for missing; train with zero_as_missing=false.")
    mirrored = _is_mirrored(source)
    threshold = -np.inf if mirrored else float(strict_thresholds(np.array([source["threshold"]]))[0])
    # A node trained without missing values takes a NaN for 0.
    nan_left = bool(source["default_left"]) if missing == "NaN" else mirrored or threshold > 0.0
    return _Node(
        feature=source["split_feature"],
        threshold=threshold,
        nan_left=nan_left != mirrored,
        cover=source["internal_count"],
    )


def _is_mirrored(source: dict[str, Any]) -> bool:
    """Tell whether every number goes left, for which `x < threshold` has no threshold: none is above infinity.

    None is below minus infinity either, so with that threshold and the children changed over, every number goes where
    it should.
    """
    return bool(source["threshold"] >= LIGHTGBM_INFINITY)


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


def _attach(nodes: Sequence[_Node], parent: int, *, is_left: bool) -> None:
    """Point the parent at the node about to be appended."""
    if parent < 0:
        return
    if is_left:
        nodes[parent].left = len(nodes)
    else:
        nodes[parent].right = len(nodes)


def _pack(trees: Iterable[list[_Node]], n_features: int, base: float) -> Forest:
    """Lay the trees one after the other and make child indices absolute."""
    nodes: list[_Node] = []
    roots: list[int] = []
    for tree in trees:
        roots.append(len(nodes))
        for node in tree:
            if node.left >= 0:
                node.left += roots[-1]
                node.right += roots[-1]
        nodes += tree
    forest = Forest(
        n_features=n_features,
        base=base,
        roots=np.array(roots, np.int32),
        feature=np.array([node.feature for node in nodes], np.int32),
        threshold=np.array([node.threshold for node in nodes], np.float32),
        nan_left=np.array([node.nan_left for node in nodes], np.bool_),
        left=np.array([node.left for node in nodes], np.int32),
        right=np.array([node.right for node in nodes], np.int32),
        value=np.array([node.value for node in nodes], np.float64),
        leaf_id=np.array([node.leaf_id for node in nodes], np.int32),
        cover=np.array([node.cover for node in nodes], np.float64),
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
