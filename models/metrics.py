"""How well scores rank frauds. Ties are one step of the curve, so an order among equal scores never helps."""

from typing import Any

import numpy as np
import numpy.typing as npt

from models.policy import Thresholds


def auc_roc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.int8]) -> float:
    """Return the chance that a fraud scores above an honest event (a tie counts half); both classes must occur."""
    frauds, honest = _counts_by_score(scores, labels)
    below = np.cumsum(honest) - honest
    return float((frauds * (below + 0.5 * honest)).sum() / (frauds.sum() * honest.sum()))


def average_precision(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.int8]) -> float:
    """Return the mean over frauds of the precision at each fraud's score; at least one fraud must occur."""
    frauds, honest = (counts[::-1] for counts in _counts_by_score(scores, labels))
    caught = np.cumsum(frauds)
    return float((frauds * caught / (caught + np.cumsum(honest))).sum() / caught[-1])


def _counts_by_score(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int8],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the frauds and the honest events at each distinct score, lowest first."""
    distinct, place = np.unique(scores, return_inverse=True)
    frauds = np.bincount(place, weights=labels, minlength=len(distinct)).astype(np.int64)
    return frauds, np.bincount(place, minlength=len(distinct)) - frauds


def at_threshold(
    scores: npt.NDArray[np.floating], labels: npt.NDArray[np.int8], threshold: np.floating[Any] | float
) -> dict[str, float]:
    """Return the share of events from a threshold on, their precision (0 if none) and the share of frauds caught."""
    seen = scores >= threshold
    caught = float(labels[seen].sum())
    return {
        "rate": float(seen.mean()),
        "precision": caught / max(float(seen.sum()), 1.0),
        "recall": caught / float(labels.sum()),
    }


def figures(
    scores: npt.NDArray[np.float32],
    margins: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int8],
    thresholds: Thresholds,
) -> dict[str, float]:
    """Return the ensemble's figures by name, with those of the base models' own margins [n, 2], and at the thresholds.

    Takes scores float32[n] and labels int8[n]; both classes must occur.
    """
    found = {"events": float(len(labels)), "frauds": float(labels.sum())}
    for name, ranking in (("", scores), ("xgboost_", margins[:, 0]), ("lightgbm_", margins[:, 1])):
        found[f"{name}auc_roc"] = auc_roc(ranking, labels)
        found[f"{name}average_precision"] = average_precision(ranking, labels)
    for name, threshold in (("review", thresholds.review), ("decline", thresholds.decline)):
        found |= {f"{name}_{key}": value for key, value in at_threshold(scores, labels, threshold).items()}
    return found
