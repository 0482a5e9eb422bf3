"""Logistic regression by Newton's method: for the few columns there are, a handful of exact steps."""

import numpy as np
import numpy.typing as npt

from models.errors import TrainingError

F64 = npt.NDArray[np.float64]

MAX_STEPS = 100
TOLERANCE = 1e-10
#: Keeps the row of a column that nothing holds back regular where every chance has saturated.
RIDGE = 1e-9


def fit_logistic(design: F64, labels: npt.NDArray[np.int8], prior: F64, strength: F64) -> F64:
    """Return the weights float64[p] that minimise the log loss of design [n, p], pulled towards a prior.

    The penalty is ½ · strength · (weight − prior)², both float64[p], strength in units of one row. Raises TrainingError
    where the steps do not settle, as when the classes can be separated and nothing holds the weights back.
    """
    weights = prior.copy()
    loss = _loss(design, labels, weights, prior, strength)
    for _ in range(MAX_STEPS):
        step = _newton_step(design, labels, weights, prior, strength)
        size = 1.0
        # Halved while it does not improve: far from the minimum a whole step can overshoot.
        while not (after := _loss(design, labels, weights - size * step, prior, strength)) <= loss and size > TOLERANCE:
            size /= 2.0
        weights = weights - size * step
        if abs(loss - after) <= TOLERANCE * abs(loss):
            return weights
        loss = after
    raise TrainingError("A logistic regression does not settle; give a history with more frauds.")


def chances(log_odds: F64) -> F64:
    """Return the probabilities of log-odds, none of which overflows (tanh does not, as 1 / (1 + exp(-z)) would)."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * log_odds)), np.float64)


def _newton_step(design: F64, labels: npt.NDArray[np.int8], weights: F64, prior: F64, strength: F64) -> F64:
    chance = chances(design @ weights)
    gradient = design.T @ (chance - labels) + strength * (weights - prior)
    curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(strength)
    return np.asarray(np.linalg.solve(curvature + RIDGE * np.eye(len(weights)), gradient), np.float64)


def _loss(design: F64, labels: npt.NDArray[np.int8], weights: F64, prior: F64, strength: F64) -> float:
    log_odds = design @ weights
    penalty = 0.5 * (strength * (weights - prior) ** 2).sum()
    return float((np.logaddexp(0.0, log_odds) - labels * log_odds).sum() + penalty)
