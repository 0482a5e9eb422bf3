"""Adversarial validation: can a classifier tell rows of the past from rows of now? Its AUC, and by which features.

Unlike histograms it sees features together: a correlation that breaks while every feature keeps its distribution.
Hence the past must be real rows. Rows drawn from each reference histogram on its own would have no correlations at
all, and the classifier would find that at once. What to take for the past is the caller's to say (`stream.watch` takes
the sample of one rhythm before, at the same time of day).

**Folds are blocks of time.** A user's payments lie close together and look alike; with rows dealt to folds at random
the classifier would recognise users, in past and now alike, and find a difference in nothing. Both kinds are cut into
FOLDS runs of rows, and each run is scored by trees that saw the others.

**False alarms.** `auc_bound` is the larger of the AUC that is worth an alarm and what chance reaches: under the null an
AUC of n and m rows is about normal with variance (n + m + 1) / (12 n m). Scores of different folds are never compared,
for their trees differ: the AUC is the mean of the folds'. Rows of one user are alike, which makes that variance too
small by a factor that DEPENDENCE allows for.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from models.drift_statistics import DEPENDENCE
from models.metrics import auc_roc

__all__ = ["Adversarial", "auc_bound", "tell_apart"]

FOLDS: Final = 4
MIN_ROWS: Final = 60
ROUNDS: Final = 40
# Shallow, slow enough not to learn rows by heart, one thread and no chance: the same rows give the same figure.
PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary",
    "num_leaves": 8,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "max_bin": 63,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 1,
    "verbose": -1,
}


@dataclass(frozen=True, slots=True)
class Adversarial:
    """auc: out of fold, 0.5 where like; rows: of both kinds; gain float64[k]: shares that sum to 1, or all 0."""

    auc: float
    rows: int
    gain: npt.NDArray[np.float64]


def tell_apart(past: npt.NDArray[np.float32], now: npt.NDArray[np.float32]) -> Adversarial | None:
    """Compare rows float32[n, k] with rows float32[m, k], both in order of time, NaN where missing.

    None where either has fewer than MIN_ROWS rows.
    """
    if min(len(past), len(now)) < MIN_ROWS:
        return None
    rows = np.concatenate([past, now])
    labels = np.repeat(np.array([0, 1], np.int8), (len(past), len(now)))
    folds = np.concatenate([np.arange(n) * FOLDS // n for n in (len(past), len(now))])
    areas, gain = [], np.zeros(rows.shape[1])
    for fold in range(FOLDS):
        held = folds == fold
        booster = lightgbm.train(PARAMETERS, lightgbm.Dataset(rows[~held], labels[~held]), ROUNDS)
        areas.append(auc_roc(np.asarray(booster.predict(rows[held])), labels[held]))
        gain += booster.feature_importance("gain")
    total = gain.sum()
    return Adversarial(float(np.mean(areas)), len(rows), gain / total if total else gain)


def auc_bound(past: int, now: int, worth: float, false_alarms: float) -> float:
    """Return the AUC from which n past and m present rows differ: worth an alarm, and not by chance.

    false_alarms: how often chance may exceed the bound.
    """
    deviation = math.sqrt(DEPENDENCE * (past + now + 1) / (12 * past * now))
    return max(worth, 0.5 - float(ndtri(false_alarms)) * deviation)
