"""Card precision top-k: how many of the k most suspicious cards of a day are really compromised.

An investigator calls about so many cards a day, whatever the scores are. Each day's cards are ranked by their highest
score of that day, and a card is compromised if one of its payments that day is a fraud; the figure is the mean over
days (Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection, 2022, "Precision top-k metrics").
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.folds import DAY_MS

CARDS_A_DAY = 100

#: How many cards, in multiples of k, are looked at before it is worth looking at more.
_FIRST_LOOK = 4


@dataclass(frozen=True, slots=True)
class _Day:
    """One day's cards, most suspicious first."""

    cards: npt.NDArray[np.int32]
    compromised: npt.NDArray[np.bool_]


class CardPrecision:
    """Card precision top-k as a function of how often each card counts."""

    def __init__(
        self,
        scores: npt.NDArray[np.floating],
        labels: npt.NDArray[np.int8],
        times_ms: npt.NDArray[np.int64],
        cards: npt.NDArray[np.int32],
        *,
        k: int = CARDS_A_DAY,
        drop_detected: bool = False,
    ) -> None:
        """Take scores [n], labels int8[n], event times [n] and each row's card int32[n], numbered from 0.

        A day is one of UTC. drop_detected: a compromised card found among the first k is known from then on, and is
        left out of the days after it. Among cards of equal scores the honest come first, so an order among equals never
        helps. A day with fewer than k cards still counts k: that many could have been called.
        """
        self._k = k
        self._drop = drop_detected
        days = times_ms // DAY_MS
        self.days: npt.NDArray[np.int64] = np.unique(days)
        self._ranked = [_rank(scores[at], labels[at], cards[at]) for at in (days == day for day in self.days)]

    def __call__(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the mean over days, float64[1]; NaN without days."""
        found = self.by_day(counts)
        return np.array([found.mean() if len(found) else np.nan])

    def by_day(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return each day's precision, float64[days]; a card that counts twice takes two of the k places."""
        counts = counts.copy()
        found = np.zeros(len(self._ranked))
        for at, day in enumerate(self._ranked):
            look = _FIRST_LOOK * self._k
            while True:
                weight = counts[day.cards[:look]]
                before = np.cumsum(weight) - weight
                if look >= len(day.cards) or before[-1] >= self._k:
                    break
                look *= 2
            taken = np.clip(self._k - before, 0, weight)
            taken[~day.compromised[:look]] = 0
            found[at] = taken.sum() / self._k
            if self._drop:
                counts[day.cards[:look][taken > 0]] = 0
        return found

    def compromised_by_day(self) -> npt.NDArray[np.int64]:
        """Return how many cards had a fraud each day, int64[days]: no precision can be above that share of k."""
        return np.array([int(day.compromised.sum()) for day in self._ranked], np.int64)


def _rank(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int8],
    cards: npt.NDArray[np.int32],
) -> _Day:
    """Rank one day's cards by their highest score."""
    distinct, place = np.unique(cards, return_inverse=True)
    highest = np.full(len(distinct), -np.inf)
    np.maximum.at(highest, place, scores)
    compromised = np.bincount(place, weights=labels, minlength=len(distinct)) > 0
    order = np.lexsort((distinct, compromised, -highest))
    return _Day(distinct[order], compromised[order])
