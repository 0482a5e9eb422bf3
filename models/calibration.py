"""Calibration: an affine map of the log-odds, so that contributions still add up to the score.

Platt's scaling (Platt 1999, "Probabilistic outputs for support vector machines") with the log-odds as its input. It is
fitted on log-odds that meta-models give to folds they were not fitted on: the meta-model's own fit would look
calibrated by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.logistic import fit_logistic
from models.meta import MetaModel, fit_meta

# Pulls the slope towards 1 with the force of about one row, so that a handful of frauds that happen to be separated
# cannot blow it up.
PRIOR_STRENGTH = 1.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """calibrated log-odds = intercept + slope * log-odds; the slope is never negative."""

    slope: float
    intercept: float

    def fold_into(self, meta: MetaModel) -> MetaModel:
        """Return the one linear form that gives calibrated log-odds from the base models' log-odds."""
        return MetaModel(self.intercept + self.slope * meta.bias, self.slope * meta.xgboost, self.slope * meta.lightgbm)


IDENTITY = Calibration(1.0, 0.0)


def fit_calibration(
    margins: npt.NDArray[np.float64], labels: npt.NDArray[np.int8], folds: Sequence[slice]
) -> Calibration:
    """Cross-fit on out-of-fold margins [n, 2] and labels [n]; `folds` are the rows of each, and cover all of them.

    Each fold gets its log-odds from a meta-model fitted on the other folds. With a single fold there are no others,
    and nothing is changed.
    """
    if len(folds) < 2:
        return IDENTITY
    log_odds = np.empty(len(labels))
    for fold in folds:
        others = np.ones(len(labels), np.bool_)
        others[fold] = False
        log_odds[fold] = fit_meta(margins[others], labels[others]).log_odds(margins[fold])
    design = np.column_stack([np.ones(len(labels)), log_odds])
    intercept, slope = fit_logistic(design, labels, np.array([0.0, 1.0]), np.array([0.0, PRIOR_STRENGTH]))
    # A slope below 0 would turn the ranking upside down; it takes labels without any relation to the scores.
    return Calibration(float(slope), float(intercept)) if slope > 0.0 else IDENTITY
