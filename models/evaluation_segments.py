"""The figures by segment: one country, one channel, one band of amounts.

A ratio of false positive rates between segments says who pays for the model's mistakes; recall says who is protected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from models.bootstrap import Estimate, Weighted, group_codes
from models.evaluation_groups import CellCounts
from models.evaluation_ranking import Ranking
from models.policy import APPROVE, OUTCOMES, Thresholds

#: With fewer frauds (or honest events) a share or a rank of them is little more than chance: 20 frauds know their
#: recall to about 20 percentage points.
LEAST = 20

#: A dimension of more values than this shows its largest, and the others as one.
MOST_SEGMENTS = 20

OTHERS = "all others"
UNKNOWN = "unknown"

#: Figures of one segment, in the order of the fields of Segment.
FIGURES = 5


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment; a figure is None where too few frauds or honest events are behind it.

    auc_roc, average_precision, recall: need `LEAST` frauds. review_rate: share of events from the review threshold on.
    false_positive_rate: share of honest events from there on, needs `LEAST` honest events.
    """

    name: str
    events: int
    frauds: int
    auc_roc: Estimate | None
    average_precision: Estimate | None
    review_rate: Estimate | None
    recall: Estimate | None
    false_positive_rate: Estimate | None

    @property
    def enough(self) -> bool:
        """Whether there are enough frauds and honest events for every figure."""
        return min(self.frauds, self.events - self.frauds) >= LEAST


def amount_bands(amounts: npt.NDArray[np.float64], edges: Sequence[float]) -> list[str]:
    """Return each amount's band by name: "under 10", "10 to 50", …, "500 and more" for edges 10, 50, …, 500."""
    names = [f"under {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(edges))]
    names.append(f"{edges[-1]:g} and more")
    return [names[at] for at in np.searchsorted(np.asarray(edges), amounts, "right")]


class SegmentFigures:
    """All segments of one dimension as a function of how often each group counts."""

    def __init__(
        self,
        values: Sequence[str],
        scores: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int8],
        groups: npt.NDArray[np.int32],
        thresholds: Thresholds,
        *,
        order: Sequence[str] = (),
    ) -> None:
        """Take each row's value [n] ("": unknown), scores, labels int8[n], groups int32[n].

        Segments come in `order` where it names them, then by size.
        """
        codes, self.names = _segments(values, order)
        cells = len(OUTCOMES) * 2 * codes + 2 * thresholds.decide(scores).astype(np.int64) + labels
        self._cells = CellCounts(cells, groups, len(OUTCOMES) * 2 * len(self.names))
        self._rankings: list[Weighted] = []
        for code in range(len(self.names)):
            rows = np.flatnonzero(codes == code)
            self._rankings.append(Ranking(scores[rows], labels[rows], groups[rows]))

    def __call__(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return float64[segments * FIGURES]; NaN where a figure does not exist."""
        table = self._table(counts)
        figures = np.full((len(self.names), FIGURES), np.nan)
        events, held = table.sum(axis=1), table[:, APPROVE + 1 :].sum(axis=1)
        for code, ranking in enumerate(self._rankings):
            figures[code, :2] = ranking(counts)
        for column, part, whole in (
            (2, held.sum(axis=1), events.sum(axis=1)),
            (3, held[:, 1], events[:, 1]),
            (4, held[:, 0], events[:, 0]),
        ):
            np.divide(part, whole, out=figures[:, column], where=whole > 0)
        return figures.ravel()

    def _table(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return how many events have each segment, outcome and label: float64[segments, outcomes, 2]."""
        return self._cells(counts).reshape(len(self.names), len(OUTCOMES), 2)

    def segments(self, estimates: Sequence[Estimate], groups: int) -> list[Segment]:
        """Return the segments, given an estimate for each figure and the number of groups."""
        events = self._table(np.ones(groups, np.int64)).sum(axis=1)
        found = []
        for code, name in enumerate(self.names):
            honest, frauds = (int(number) for number in events[code])
            auc, precision, rate, recall, false = estimates[FIGURES * code : FIGURES * (code + 1)]
            both = min(honest, frauds) >= LEAST
            found.append(
                Segment(
                    name,
                    honest + frauds,
                    frauds,
                    auc if both else None,
                    precision if both else None,
                    rate if honest + frauds >= LEAST else None,
                    recall if frauds >= LEAST else None,
                    false if honest >= LEAST else None,
                )
            )
        return found


def _segments(values: Sequence[str], order: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return each row's segment, and the segments' names, the largest first where no order is given."""
    first = group_codes(values)
    found = list(dict.fromkeys(values))
    sizes = np.bincount(first, minlength=len(found))
    rank = {name: at for at, name in enumerate(order)}
    kept = sorted(range(len(found)), key=lambda at: (rank.get(found[at], len(rank)), -sizes[at], found[at]))
    names = [found[at] or UNKNOWN for at in kept]
    number = np.empty(len(found), np.int64)
    number[kept] = np.arange(len(found))
    if len(names) > MOST_SEGMENTS:
        number = np.minimum(number, MOST_SEGMENTS - 1)
        names = [*names[: MOST_SEGMENTS - 1], OTHERS]
    return number[first], names
