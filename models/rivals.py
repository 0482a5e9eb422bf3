"""Simple models to hold the ensemble against: a logistic regression and a random forest on the same features."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from models.logistic import fit_logistic

#: As strong as scikit-learn's default (C = 1), which the Handbook uses.
L2_STRENGTH = 1.0

#: The Handbook's forest: 100 trees as deep as they go.
TREES = 100
#: A forest has nothing to boost away, so its splits are kept fine.
MAX_BIN = 1024
#: Rows a tree learns from: what a sample with replacement leaves distinct (XGBoost draws without).
ROWS_A_TREE = 0.632


@dataclass(frozen=True, slots=True)
class LogisticRegression:
    """log-odds = bias + weights · standardised features; a feature not known counts as its mean, and says so.

    means, scales float64[k]; gaps int64[m]: features that have an indicator "is not known"; weights float64[1 + k + m].
    """

    means: npt.NDArray[np.float64]
    scales: npt.NDArray[np.float64]
    gaps: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    def log_odds(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the log-odds float64[n] of features float32[n, k]."""
        return np.asarray(_design(features, self.means, self.scales, self.gaps) @ self.weights, np.float64)


def fit_logistic_regression(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], *, strength: float = L2_STRENGTH
) -> LogisticRegression:
    """Fit on features float32[n, k] (NaN: not known) and labels int8[n]; the bias alone is not held back by L2.

    Raises TrainingError where it does not settle.
    """
    known = ~np.isnan(features)
    number = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, features, 0.0).astype(np.float64)
    means = values.sum(axis=0) / number
    scales = np.sqrt((np.where(known, values - means, 0.0) ** 2).sum(axis=0) / number)
    scales[scales == 0.0] = 1.0
    gaps = np.flatnonzero(~known.all(axis=0))
    design = _design(features, means, scales, gaps)
    held = np.full(design.shape[1], strength)
    held[0] = 0.0
    weights = fit_logistic(design, labels, np.zeros(design.shape[1]), held)
    return LogisticRegression(means, scales, gaps, weights)


def _design(
    features: npt.NDArray[np.float32],
    means: npt.NDArray[np.float64],
    scales: npt.NDArray[np.float64],
    gaps: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    standard = np.nan_to_num((features - means) / scales, nan=0.0)
    return np.column_stack([np.ones(len(features)), standard, np.isnan(features[:, gaps])])


@dataclass(frozen=True, slots=True)
class RandomForest:
    """Breiman's forest (2001), grown by XGBoost: squared error on 0 and 1 splits as Gini does, a leaf is its share."""

    booster: Any

    def shares(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the mean share of frauds in the leaves float64[n] that features float32[n, k] fall into."""
        return np.asarray(self.booster.predict(xgboost.DMatrix(features)), np.float64)


def fit_random_forest(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    *,
    seed: int,
    threads: int,
    trees: int = TREES,
) -> RandomForest:
    """Grow on features float32[n, k] (NaN: not known) and labels int8[n]."""
    params = {
        "objective": "reg:squarederror",
        "tree_method": "hist",
        "grow_policy": "depthwise",
        "num_parallel_tree": trees,
        "eta": 1.0,
        "base_score": 0.0,
        "lambda": 0.0,
        "min_child_weight": 1.0,
        "max_depth": 0,
        "max_bin": MAX_BIN,
        "subsample": ROWS_A_TREE,
        "colsample_bynode": 1.0 / np.sqrt(features.shape[1]),
        "seed": seed,
        "nthread": threads,
        "verbosity": 0,
    }
    return RandomForest(xgboost.train(params, xgboost.DMatrix(features, labels, nthread=threads), 1))
