"""Counts kept by us and shown to Prometheus: a whole batch costs one step a bucket, never one an event.

Neither class guards itself; the observer that owns them holds one lock for all.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

__all__ = ["Counter", "Histogram", "add_histogram", "quantile"]

SMALL: Final = 16  # below this many values numpy's fixed cost is more than the values'


class Counter:
    """A count by one label, or a single one where label is empty. known: values that are shown at 0 from the start."""

    def __init__(self, name: str, about: str, label: str = "", known: Iterable[str] = ()) -> None:
        self._name, self._about, self._label = name, about, label
        self._counts: dict[str, int] = dict.fromkeys(known if label else ("",), 0)

    def add(self, count: int = 1, value: str = "") -> None:
        """Count `count` more under the label's value."""
        self._counts[value] = self._counts.get(value, 0) + count

    def add_all(self, counts: dict[str, int]) -> None:
        """Count by the label's values."""
        for value, count in counts.items():
            self._counts[value] = self._counts.get(value, 0) + count

    def family(self) -> CounterMetricFamily:
        """Return what a scrape shows."""
        family = CounterMetricFamily(self._name, self._about, labels=[self._label] if self._label else [])
        for value, count in self._counts.items():
            family.add_metric([value] if self._label else [], count)
        return family


class Histogram:
    """Observations counted by upper bound (inclusive), and their sum. bounds: ascending, in the metric's unit."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = list(bounds)
        self._edges = np.array(bounds, np.float64)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_all(self, values: npt.NDArray[np.float64]) -> None:
        """Count float64[n]; a negative value (two clocks apart) counts as 0, so that the sum never falls."""
        if len(values) <= SMALL:
            for value in values.tolist():
                self.add(max(0.0, value))
            return
        binned = np.bincount(self._edges.searchsorted(values), minlength=len(self._counts))
        self._counts = [old + new for old, new in zip(self._counts, binned.tolist(), strict=True)]
        self._sum += float(np.maximum(values, 0.0).sum())

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, the last one +Inf."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, np.cumsum(self._counts).tolist(), strict=True))

    @property
    def sum(self) -> float:
        """The sum of all observations."""
        return self._sum


def add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    """Put a histogram under these label values."""
    family.add_metric(labels, histogram.buckets, histogram.sum)


def quantile(q: float, bounds: Sequence[float], cumulative: Sequence[float]) -> float:
    """Return the q-quantile (0 to 1) as Prometheus' histogram_quantile does: linear within a bucket.

    bounds end with +Inf; a quantile in that last bucket is the greatest finite bound. NaN where nothing was counted.
    """
    if not cumulative or cumulative[-1] <= 0:
        return math.nan
    rank = q * cumulative[-1]
    at = bisect_left(cumulative, rank)
    if at >= len(bounds) - 1:
        return bounds[-2] if len(bounds) > 1 else math.nan
    lower, below = (bounds[at - 1], cumulative[at - 1]) if at else (0.0, 0.0)
    inside = cumulative[at] - below
    return lower if inside <= 0 else lower + (bounds[at] - lower) * (rank - below) / inside
