"""How well scores rank frauds, computed again and again with other weights after sorting once."""

import numpy as np
import numpy.typing as npt


class Ranking:
    """AUC ROC and average precision as functions of how often each group counts.

    Only frauds contribute a term to either, and a fraud's term depends on how many events score higher than it and how
    many the same. So the events are sorted once, highest first; a draw then adds up the events between one fraud's
    score and the next, which is one pass over memory in order.
    """

    def __init__(
        self,
        scores: npt.NDArray[np.floating],
        labels: npt.NDArray[np.int8],
        groups: npt.NDArray[np.int32],
    ) -> None:
        """Take scores [n], labels int8[n] (1: fraud) and each row's group int32[n]; n may be 0."""
        order = np.argsort(-scores, kind="stable")
        ranked, fraud = scores[order], labels[order] == 1
        self._groups = groups[order]
        self._frauds = np.flatnonzero(fraud)
        # Where the run of equal scores that a fraud stands in begins and ends.
        ascending = -ranked
        at = ascending[self._frauds]
        first = np.searchsorted(ascending, at, "left")
        last = np.searchsorted(ascending, at, "right")
        self._edges = np.unique(np.concatenate([[0], first, last])).astype(np.int64)
        self._edges = self._edges[self._edges < len(order)]
        self._first = np.searchsorted(self._edges, first)
        self._last = np.searchsorted(self._edges, last)
        # The same edges, as places among the frauds alone.
        self._fraud_first = np.searchsorted(self._frauds, first)
        self._fraud_last = np.searchsorted(self._frauds, last)

    def __call__(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return [AUC ROC, average precision] float64[2]; NaN where a class does not occur."""
        if not len(self._frauds):
            return np.full(2, np.nan)
        weights = counts[self._groups]
        among_all = _running(np.add.reduceat(weights, self._edges))
        weight = weights[self._frauds]
        among_frauds = _running(weight)
        higher, reached = among_all[self._first], among_all[self._last]
        frauds_higher, frauds_reached = among_frauds[self._fraud_first], among_frauds[self._fraud_last]
        frauds, honest = float(among_frauds[-1]), float(among_all[-1] - among_frauds[-1])
        if not frauds or not honest:
            return np.full(2, np.nan)
        honest_higher, honest_reached = higher - frauds_higher, reached - frauds_reached
        lower = honest - 0.5 * (honest_higher + honest_reached)
        drawn = weight > 0
        precision = frauds_reached[drawn] / reached[drawn]
        return np.array([(weight * lower).sum() / (frauds * honest), (weight[drawn] * precision).sum() / frauds])


def _running(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the sums of the first 0, 1, … n values, int64[n + 1]."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums
