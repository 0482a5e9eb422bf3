"""The meta-model: logistic regression over the base models' log-odds.

It is linear in log-odds, so the base models' exact contributions, weighted, add up to the score's own log-odds.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.logistic import fit_logistic

# Pulls the weights towards the plain mean of the two models, with the force of about one row: the two log-odds are
# nearly collinear, and without it few frauds would decide how they share the weight.
PRIOR_WEIGHT = 0.5
PRIOR_STRENGTH = 1.0


@dataclass(frozen=True, slots=True)
class MetaModel:
    """score = sigmoid(bias + xgboost * XGBoost's log-odds + lightgbm * LightGBM's); no weight is negative.

    Any calibration is folded into the three numbers, see `models.calibration`.
    """

    bias: float
    xgboost: float
    lightgbm: float

    def log_odds(self, margins: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the score's log-odds float64[n] for margins [n, 2] (XGBoost, LightGBM)."""
        weights = np.array([self.xgboost, self.lightgbm])
        return np.asarray(self.bias + (margins.astype(np.float64) * weights).sum(axis=1), np.float64)


def fit_meta(margins: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> MetaModel:
    """Fit on out-of-sample margins [n, 2] and labels [n].

    A weight that would be negative is fixed at 0 and the rest fitted again: a reason that raised a base model's score
    must never lower the ensemble's.
    """
    free = np.array([True, True])
    while True:
        bias, weights = _fit(margins, labels, free)
        negative = weights < 0.0
        if not negative.any():
            return MetaModel(bias, float(weights[0]), float(weights[1]))
        free &= ~negative


def _fit(
    margins: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    free: npt.NDArray[np.bool_],
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return bias and both weights, of which only the free ones are not 0."""
    design = np.column_stack([np.ones(len(margins)), margins[:, free]])
    prior = np.concatenate([[0.0], np.full(int(free.sum()), PRIOR_WEIGHT)])
    strength = np.concatenate([[0.0], np.full(int(free.sum()), PRIOR_STRENGTH)])
    beta = fit_logistic(design, labels, prior, strength)
    weights = np.zeros(2)
    weights[free] = beta[1:]
    return float(beta[0]), weights
