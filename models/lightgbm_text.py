"""LightGBM's text form read into columns, without the library: a worker loads models while it scores.

The library's own way (a booster made of the text, its trees told as JSON, those walked node by node) takes Python for
ten times as long, in which a worker decides nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import BundleError

__all__ = ["Columns", "read_lightgbm"]

# The bits of a split's decision type.
CATEGORICAL = 1
DEFAULT_LEFT = 2
MISSING = 2  # how far the kind of missing values is shifted; of these kinds:
MISSING_ZERO, MISSING_NAN = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """T trees; S splits in all, by tree, then L leaves, by tree. A child >= 0 is a split of its tree, else ~leaf."""

    n_features: int
    leaves: npt.NDArray[np.int64]  # [T], how many a tree has, one more than splits
    feature: npt.NDArray[np.int64]  # [S]
    threshold: npt.NDArray[np.float64]  # [S]
    default_left: npt.NDArray[np.bool_]  # [S]
    missing_is_nan: npt.NDArray[np.bool_]  # [S], else there were none when it was trained
    left: npt.NDArray[np.int64]  # [S]
    right: npt.NDArray[np.int64]  # [S]
    split_count: npt.NDArray[np.float64]  # [S], rows that came by in training; leaves alike
    value: npt.NDArray[np.float64]  # [L]
    leaf_count: npt.NDArray[np.float64]  # [L]


def read_lightgbm(text: str) -> Columns:
    """Read what `Booster.model_to_string()` gives for a binary model.

    Raises BundleError for a model of another kind; KeyError or ValueError where the text is not whole.
    """
    body, is_whole, _ = text.partition("\nend of trees")
    head, *trees = body.split("\nTree=")
    header = _pairs(head)
    if not is_whole or "max_feature_idx" not in header:
        raise ValueError("it has no end, or no beginning")
    _check(header, head)
    blocks = [_pairs(tree) for tree in trees]
    if len(blocks) != len(header["tree_sizes"].split()):
        raise ValueError("trees are missing")
    for block in blocks:
        if int(block.get("is_linear", "0")):
            raise BundleError("The LightGBM model has linear leaves; train with linear_tree=false.")
    leaves = np.array([int(block["num_leaves"]) for block in blocks], np.int64)
    splits = leaves - 1
    decision = _column(blocks, "decision_type", splits, int)
    if (decision & CATEGORICAL).any() or any(int(block["num_cat"]) for block in blocks):
        raise BundleError("The LightGBM model splits on categories; train it on numbers only.")
    missing = decision >> MISSING & 3
    if (missing == MISSING_ZERO).any():
        raise BundleError("The LightGBM model takes zero for missing; train with zero_as_missing=false.")
    return Columns(
        n_features=int(header["max_feature_idx"]) + 1,
        leaves=leaves,
        feature=_column(blocks, "split_feature", splits, int),
        threshold=_column(blocks, "threshold", splits, float),
        default_left=(decision & DEFAULT_LEFT) > 0,
        missing_is_nan=missing == MISSING_NAN,
        left=_column(blocks, "left_child", splits, int),
        right=_column(blocks, "right_child", splits, int),
        split_count=_column(blocks, "internal_count", splits, float),
        value=_column(blocks, "leaf_value", leaves, float),
        leaf_count=_column(blocks, "leaf_count", leaves, float),
    )


def _check(header: dict[str, str], head: str) -> None:
    objective = header.get("objective", "none")
    if objective.split() not in (["binary"], ["binary", "sigmoid:1"]):
        raise BundleError(f"The LightGBM objective {objective!r} is not supported; train with binary and sigmoid 1.")
    if "average_output" in head.splitlines():
        raise BundleError("The LightGBM model averages its trees (boosting rf); train with boosting gbdt.")


def _pairs(block: str) -> dict[str, str]:
    return {name: value for name, is_pair, value in (line.partition("=") for line in block.splitlines()) if is_pair}


def _column(
    blocks: list[dict[str, str]], name: str, sizes: npt.NDArray[np.int64], kind: type[int] | type[float]
) -> npt.NDArray[Any]:
    """Return one row of every tree, joined. A tree without splits may leave its rows out, or empty, but for values."""
    rows: list[int | float] = []
    for block, size in zip(blocks, sizes.tolist(), strict=True):
        row = list(map(kind, block.get(name, "").split()))
        if not row and name != "leaf_value" and block["num_leaves"] == "1":
            row = [0] * size
        if len(row) != size:
            raise ValueError(f"a tree has {len(row)} of {size} numbers of {name}")
        rows += row
    return np.array(rows, np.int64 if kind is int else np.float64)
