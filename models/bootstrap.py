"""Bootstrap intervals for figures of a labelled sample, resampled by user.

A user's payments are not independent: a stolen card brings frauds in a row, and one odd cardholder brings many false
alarms. Resampling rows would treat each as news of its own and give intervals that are too narrow, so whole users are
drawn with replacement, with all of their payments (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and
their Application, 1997, section 3.8). A draw says how often each user counts, so a figure is prepared once (sorted,
summed by user) and then computed from those counts, 200 times a million rows without moving a row.

Intervals are the percentiles of the resampled figures (Efron 1979).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation_ranking import Ranking
from models.metrics import auc_roc, average_precision

RESAMPLES = 200
LEVEL = 0.95

#: Below this share of resamples in which a figure exists, an interval over the rest would be of a chosen few.
LEAST_VALID = 0.9

#: A figure of the scores float[n] and labels int8[n], such as `metrics.auc_roc`.
Statistic = Callable[[npt.NDArray[Any], npt.NDArray[np.int8]], float]

#: Figures float64[m] from how often each group counts, int64[g].
Weighted = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the ends of its interval; NaN where it does not exist or too few resamples have it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What the first scores have over the second, and the ends of its interval."""

    value: float
    low: float
    high: float


def group_codes(groups: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return the number of each row's group, int32[n], from 0 in order of first appearance."""
    known: dict[Any, int] = {}
    values = groups.tolist() if isinstance(groups, np.ndarray) else groups
    return np.fromiter((known.setdefault(group, len(known)) for group in values), np.int32, len(groups))


def draws(groups: int, *, seed: int, resamples: int = RESAMPLES) -> Iterator[npt.NDArray[np.int64]]:
    """Yield, for each resample, how often each of the groups was drawn: int64[groups], adding up to `groups`.

    A resample has a generator of its own, so the first hundred of two hundred equal a hundred.
    """
    for resample in range(resamples):
        generator = np.random.default_rng([seed, resample])
        yield np.bincount(generator.integers(groups, size=groups), minlength=groups)


def intervals(
    figures: Weighted,
    groups: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Estimate]:
    """Return each figure on the sample itself, every group counted once, with its interval over the resamples."""
    values = figures(np.ones(groups, np.int64))
    drawn = np.full((resamples, len(values)), np.nan)
    for row, counts in enumerate(draws(groups, seed=seed, resamples=resamples)):
        drawn[row] = figures(counts)
        progress(row + 1)
    return [_estimate(float(value), drawn[:, column], level) for column, value in enumerate(values)]


def paired_bootstrap(
    statistic: Statistic,
    labels: npt.NDArray[np.int8],
    scores_a: npt.NDArray[np.floating],
    scores_b: npt.NDArray[np.floating],
    *,
    seed: int,
    groups: Sequence[Any] | npt.NDArray[Any],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Difference:
    """Return statistic(scores_a) − statistic(scores_b) with its interval.

    Both are computed on the same draw each time, so what makes a sample easy or hard for both cancels out: two models
    that are nearly alike are told apart by far fewer frauds than their own intervals suggest.
    """
    codes = group_codes(groups)
    first = _weighted(statistic, scores_a, labels, codes)
    second = _weighted(statistic, scores_b, labels, codes)
    found = intervals(
        lambda counts: first(counts) - second(counts), _groups(codes), seed=seed, resamples=resamples, level=level
    )[0]
    return Difference(found.value, found.low, found.high)


def _groups(codes: npt.NDArray[np.int32]) -> int:
    return int(codes.max()) + 1 if len(codes) else 0


def _weighted(
    statistic: Statistic,
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int8],
    codes: npt.NDArray[np.int32],
) -> Weighted:
    """Return the statistic as a figure of counts; the ranking metrics have a form that sorts only once."""
    if statistic in (auc_roc, average_precision):
        ranking, column = Ranking(scores, labels, codes), 0 if statistic is auc_roc else 1
        return lambda counts: ranking(counts)[column : column + 1]

    def repeated(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        rows = np.repeat(np.arange(len(codes)), counts[codes])
        drawn = labels[rows]
        if not 0 < int(drawn.sum()) < len(drawn):
            return np.array([np.nan])
        return np.array([statistic(scores[rows], drawn)])

    return repeated


def _estimate(value: float, drawn: npt.NDArray[np.float64], level: float) -> Estimate:
    valid = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(valid) < max(1.0, LEAST_VALID * len(drawn)):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(valid, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Estimate(value, float(low), float(high))
