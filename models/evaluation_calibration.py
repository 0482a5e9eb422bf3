"""Calibration: whether a score is the chance that it says it is.

Brier score (Brier 1950), reliability curve over bins of equal numbers of events, and the calibration line: a logistic
regression of the labels on the score's log-odds (Cox 1958). Its slope is 1 and its intercept 0 where the scores are
right; a slope below 1 means scores too far out on both sides, an intercept below 0 means too high throughout.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import TrainingError
from models.evaluation_groups import CellCounts, sums_by_group
from models.logistic import chances, fit_logistic

RELIABILITY_BINS = 20

#: A steeper line is the sign of scores that separate the classes: the likelihood then rises without end.
STEEPEST = 100.0


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """log-odds of a fraud = intercept + slope · log-odds of the score; NaN where no line is likeliest."""

    intercept: float
    slope: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Events of neighbouring scores: how many, from and to which score, what the scores say and what happened."""

    events: int
    frauds: int
    lowest: float
    highest: float
    mean_score: float
    fraud_share: float


def brier(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.int8]) -> float:
    """Return the mean squared distance between scores float[n] in [0, 1] and labels int8[n]."""
    return float(np.mean((scores.astype(np.float64) - labels) ** 2))


def bin_numbers(scores: npt.NDArray[np.floating], bins: int = RELIABILITY_BINS) -> npt.NDArray[np.int64]:
    """Return each event's bin int64[n], numbered from 0 by score; equal scores share a bin, so there may be fewer."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    place = np.searchsorted(ranked, ranked, "left") * bins // max(len(scores), 1)
    numbers = np.empty(len(scores), np.int64)
    numbers[order] = np.unique(place, return_inverse=True)[1]
    return numbers


def reliability(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int8],
    bins: int = RELIABILITY_BINS,
) -> list[Bin]:
    """Return the reliability curve in bins of equal mass, lowest scores first; n must be at least 1."""
    numbers = bin_numbers(scores, bins)
    events = np.bincount(numbers)
    frauds = np.bincount(numbers, weights=labels)
    means = np.bincount(numbers, weights=scores) / events
    lowest, highest = np.full(len(events), np.inf), np.full(len(events), -np.inf)
    np.minimum.at(lowest, numbers, scores)
    np.maximum.at(highest, numbers, scores)
    return [
        Bin(int(n), int(f), float(low), float(high), float(mean), float(f / n))
        for n, f, low, high, mean in zip(events, frauds, lowest, highest, means, strict=True)
    ]


def calibration_line(log_odds: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> CalibrationLine:
    """Return the likeliest line for the scores' log-odds [n] and labels int8[n]."""
    nowhere = CalibrationLine(np.nan, np.nan)
    if not 0 < int(labels.sum()) < len(labels) or np.ptp(log_odds) == 0.0:
        return nowhere
    design = np.column_stack([np.ones(len(log_odds)), log_odds])
    try:
        found = fit_logistic(design, labels, np.array([0.0, 1.0]), np.zeros(2))
    except TrainingError:
        return nowhere
    if abs(found[1]) > STEEPEST:
        return nowhere
    return CalibrationLine(float(found[0]), float(found[1]))


class LineOfGroups:
    """The calibration line as a function of how often each group counts, by one Newton step from the sample's own line.

    One step from there is off by the square of what the draw moves the line (Le Cam 1956), far less than the width of
    the interval, and its sums over the rows of a group are the same in every draw.
    """

    def __init__(
        self,
        log_odds: npt.NDArray[np.float64],
        labels: npt.NDArray[np.int8],
        groups: npt.NDArray[np.int32],
    ) -> None:
        """Take log-odds [n], labels int8[n] and each row's group int32[n]."""
        self.line = calibration_line(log_odds, labels)
        self._start = np.array([self.line.intercept, self.line.slope])
        if np.isnan(self._start).any():
            return
        design = np.column_stack([np.ones(len(log_odds)), log_odds])
        chance = chances(design @ self._start)
        gradient, curvature = chance - labels, chance * (1.0 - chance)
        columns = [gradient, gradient * log_odds, curvature, curvature * log_odds, curvature * log_odds**2]
        self._sums = sums_by_group(columns, groups)

    def __call__(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return [intercept, slope] float64[2]."""
        if np.isnan(self._start).any():
            return np.full(2, np.nan)
        first, second, plain, mixed, square = self._sums @ counts
        curvature = np.array([[plain, mixed], [mixed, square]])
        if np.linalg.det(curvature) <= 0.0:
            return np.full(2, np.nan)
        return np.asarray(self._start - np.linalg.solve(curvature, np.array([first, second])), np.float64)


class ReliabilityOfGroups:
    """Brier score and each bin's share of frauds as functions of how often each group counts; the bins stay put."""

    def __init__(
        self,
        scores: npt.NDArray[np.floating],
        labels: npt.NDArray[np.int8],
        groups: npt.NDArray[np.int32],
        bins: int = RELIABILITY_BINS,
    ) -> None:
        """Take scores float[n], labels int8[n] and each row's group int32[n]; n must be at least 1."""
        numbers = bin_numbers(scores, bins)
        self._bins = int(numbers.max()) + 1
        self._cells = CellCounts(2 * numbers + labels, groups, 2 * self._bins)
        squares = (scores.astype(np.float64) - labels) ** 2
        self._squares, self._events = sums_by_group([squares, np.ones(len(scores))], groups)

    def __call__(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return [Brier score, share of frauds in each bin] float64[1 + bins]; NaN where nothing was drawn."""
        cells = self._cells(counts).reshape(-1, 2)
        events = cells.sum(axis=1)
        shares = np.divide(cells[:, 1], events, out=np.full(self._bins, np.nan), where=events > 0)
        return np.concatenate([[(self._squares @ counts) / (self._events @ counts)], shares])
