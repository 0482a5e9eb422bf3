"""Logistic regression by Newton's method: for the few columns there are, a handful of exact steps."""

import numpy as np
import numpy.typing as npt

MAX_STEPS = 50
TOLERANCE = 1e-10


def minimise_log_loss(
    design: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    start: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64] | None:
    """Return the weights [p] that minimise the log loss plus ½ · strength · weight² for a design [n, p].

    strength [p] is in units of one row. None where the steps do not settle, as when the classes can be separated and
    nothing holds the weights back.
    """
    weights = start.astype(np.float64)
    loss = log_loss(design, labels, weights, strength)
    for _ in range(MAX_STEPS):
        gradient, curvature = derivatives(design, labels, weights, strength)
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return None
        size = 1.0
        # Halved while they do not improve: far from the minimum a whole step can overshoot.
        while not (after := log_loss(design, labels, weights - size * step, strength)) <= loss and size > TOLERANCE:
            size /= 2.0
        weights = weights - size * step
        if abs(loss - after) <= TOLERANCE * abs(loss):
            return np.asarray(weights, np.float64)
        loss = after
    return None


def chances(design: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the chance of a fraud float64[n]."""
    # tanh does not overflow for any log-odds, as 1 / (1 + exp(-z)) would.
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * (design @ weights))), np.float64)


def derivatives(
    design: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    weights: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return gradient [p] and curvature [p, p] of the penalised loss."""
    chance = chances(design, weights)
    gradient = design.T @ (chance - labels) + strength * weights
    curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(strength)
    return gradient, curvature


def log_loss(
    design: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    weights: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64],
) -> float:
    """Return the penalised log loss, a sum over rows."""
    log_odds = design @ weights
    return float((np.logaddexp(0.0, log_odds) - labels * log_odds).sum() + 0.5 * (strength * weights**2).sum())
