"""What the thresholds do, and what that costs.

fraud approved       its amount is lost
payment reviewed     the price of a review, fraud or not; a fraud under review is taken as stopped
honest declined      the price of a wrong decline
fraud declined       nothing
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.evaluation_groups import sums_by_group
from models.policy import APPROVE, DECLINE, REVIEW, Thresholds


@dataclass(frozen=True, slots=True)
class Prices:
    """What one review and one wrongly declined honest payment cost, in the amounts' unit."""

    review: float = 3.0
    wrong_decline: float = 20.0


DEFAULT_PRICES = Prices()


@dataclass(frozen=True, slots=True)
class PolicySums:
    """The figures as a function of how often each group counts: they are ratios of sums, so each group is summed once.

    Scores float32[n], labels int8[n] (1: fraud), amounts float64[n], each row's group int32[n].
    """

    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    amounts: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int32]
    thresholds: Thresholds
    prices: Prices
    _sums: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        outcome = self.thresholds.decide(self.scores)
        fraud, lost = self.labels == 1, np.where(self.labels == 1, self.amounts, 0.0)
        held, declined = outcome != APPROVE, outcome == DECLINE
        columns = [np.ones(len(fraud)), fraud, lost]
        for reached in (held, declined):
            columns += [reached, reached & fraud, reached * lost]
        columns += [
            np.where(held, 0.0, lost),
            (outcome == REVIEW) * self.prices.review,
            (declined & ~fraud) * self.prices.wrong_decline,
        ]
        object.__setattr__(self, "_sums", sums_by_group(columns, self.groups))

    def __call__(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return float64[15]: those of review, of decline, and the cost.

        Of each threshold, NaN where a share is of nothing: the share of events that reach it, of frauds among those, of
        all frauds, of honest events and of the frauds' money. The cost: in all, missed frauds, reviews, wrong declines,
        and of approving everything.
        """
        sums = self._sums @ counts
        events, frauds, lost = sums[:3]
        figures: list[float] = []
        for reached, caught, saved in (sums[3:6], sums[6:9]):
            figures += [
                _share(reached, events),
                _share(caught, reached),
                _share(caught, frauds),
                _share(reached - caught, events - frauds),
                _share(saved, lost),
            ]
        return np.array([*figures, sums[9:12].sum(), *sums[9:12], lost])


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan
