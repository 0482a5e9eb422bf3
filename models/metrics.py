"""How well scores rank frauds. Ties are one step of the curve, so an order among equal scores never helps."""

import numpy as np
import numpy.typing as npt


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


def at_threshold(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.int8], threshold: float) -> dict[str, float]:
    """Return the share of events from a threshold on, their precision (0 if none) and the share of frauds caught."""
    seen = scores >= threshold
    caught = float(labels[seen].sum())
    return {
        "rate": float(seen.mean()),
        "precision": caught / max(float(seen.sum()), 1.0),
        "recall": caught / float(labels.sum()),
    }
