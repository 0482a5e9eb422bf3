"""The meta-model: logistic regression over the base models' log-odds.

It is linear in log-odds, so the base models' exact contributions, weighted, add up to the score's own log-odds.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Pulls the weights towards the plain mean of the two models, with the force of about one row: the two log-odds are
# nearly collinear, and without it few frauds would decide how they share the weight.
PRIOR_WEIGHT = 0.5
PRIOR_STRENGTH = 1.0

MAX_STEPS = 100
TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True)
class MetaModel:
    """score = sigmoid(bias + xgboost * XGBoost's log-odds + lightgbm * LightGBM's); no weight is negative."""

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
        bias, weights = _newton(margins, labels, free)
        negative = weights < 0.0
        if not negative.any():
            return MetaModel(bias, float(weights[0]), float(weights[1]))
        free &= ~negative


def _newton(
    margins: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    free: npt.NDArray[np.bool_],
) -> tuple[float, npt.NDArray[np.float64]]:
    """Minimise the penalised log loss by Newton steps, halved while they do not improve it."""
    design = np.column_stack([np.ones(len(margins)), margins[:, free]])
    prior = np.concatenate([[0.0], np.full(int(free.sum()), PRIOR_WEIGHT)])
    strength = np.concatenate([[0.0], np.full(int(free.sum()), PRIOR_STRENGTH)])
    beta = prior.copy()
    loss = _loss(design, labels, beta, prior, strength)
    for _ in range(MAX_STEPS):
        step = _newton_step(design, labels, beta, prior, strength)
        size = 1.0
        while (after := _loss(design, labels, beta - size * step, prior, strength)) > loss and size > TOLERANCE:
            size /= 2.0
        beta = beta - size * step
        if loss - after <= TOLERANCE * abs(loss):
            break
        loss = after
    weights = np.zeros(2)
    weights[free] = beta[1:]
    return float(beta[0]), weights


def _newton_step(
    design: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    beta: npt.NDArray[np.float64],
    prior: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    # tanh does not overflow for any log-odds, as 1 / (1 + exp(-z)) would.
    chance = 0.5 * (1.0 + np.tanh(0.5 * (design @ beta)))
    gradient = design.T @ (chance - labels) + strength * (beta - prior)
    curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(strength)
    # A tiny ridge keeps the bias's row regular when every chance has saturated.
    return np.asarray(np.linalg.solve(curvature + 1e-9 * np.eye(len(beta)), gradient), np.float64)


def _loss(
    design: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    beta: npt.NDArray[np.float64],
    prior: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64],
) -> float:
    log_odds = design @ beta
    return float((np.logaddexp(0.0, log_odds) - labels * log_odds).sum() + 0.5 * (strength * (beta - prior) ** 2).sum())
