"""Logistic regression of a few coefficients, by Newton steps: for the meta-model and the calibration."""

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

MAX_STEPS = 100
TOLERANCE = 1e-10


def fit_logistic(design: F64, labels: npt.NDArray[np.int8], prior: F64, strength: F64) -> F64:
    """Return the coefficients float64[p] that minimise the log loss of design [n, p], pulled towards a prior.

    The penalty is ½ · strength · (coefficient − prior)², both float64[p]. A Newton step that does not improve the loss
    is halved until it does.
    """
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
    return beta


def chances(log_odds: F64) -> F64:
    """Return the probabilities of log-odds, none of which overflows (tanh does not, as 1 / (1 + exp(-z)) would)."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * log_odds)), np.float64)


def _newton_step(design: F64, labels: npt.NDArray[np.int8], beta: F64, prior: F64, strength: F64) -> F64:
    chance = chances(design @ beta)
    gradient = design.T @ (chance - labels) + strength * (beta - prior)
    curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(strength)
    # A tiny ridge keeps the bias's row regular when every chance has saturated.
    return np.asarray(np.linalg.solve(curvature + 1e-9 * np.eye(len(beta)), gradient), np.float64)


def _loss(design: F64, labels: npt.NDArray[np.int8], beta: F64, prior: F64, strength: F64) -> float:
    log_odds = design @ beta
    return float((np.logaddexp(0.0, log_odds) - labels * log_odds).sum() + 0.5 * (strength * (beta - prior) ** 2).sum())
