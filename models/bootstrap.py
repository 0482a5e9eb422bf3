"""The paired bootstrap: how far apart two scorings of the same events really are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.95

Statistic = Callable[[npt.NDArray[np.floating[Any]], npt.NDArray[np.int8]], float]


@dataclass(frozen=True, slots=True)
class Difference:
    """The statistic of a less that of b, and its 95 % percentile interval."""

    value: float
    low: float
    high: float


def paired_bootstrap(
    statistic: Statistic,
    labels: npt.NDArray[np.int8],
    scores_a: npt.NDArray[np.floating[Any]],
    scores_b: npt.NDArray[np.floating[Any]],
    *,
    seed: int,
    groups: npt.NDArray[Any],
    resamples: int,
) -> Difference:
    """Compare statistic(scores, labels) of two scorings of the same events [n], resampling whole groups.

    One user's events resemble each other, so users are drawn, not events (Efron and Tibshirani 1993, An Introduction
    to the Bootstrap, chapter 8). Samples without a fraud say nothing and are drawn again.
    """
    rng = np.random.default_rng(seed)
    place = np.unique(groups, return_inverse=True)[1]
    order = np.argsort(place, kind="stable")
    sizes = np.bincount(place)
    starts = np.cumsum(sizes) - sizes
    found: list[float] = []
    while len(found) < resamples:
        drawn = rng.integers(0, len(sizes), len(sizes))
        many = sizes[drawn]
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        rows = order[np.repeat(starts[drawn], many) + within]
        if labels[rows].any():
            found.append(statistic(scores_a[rows], labels[rows]) - statistic(scores_b[rows], labels[rows]))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(statistic(scores_a, labels) - statistic(scores_b, labels), float(low), float(high))
