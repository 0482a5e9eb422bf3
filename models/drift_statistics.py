"""How far a histogram of today lies from the one a model was trained on. Counts are additive, so this is exact.

Every function takes two arrays of counts over the same bins, the reference first. Values that are missing have no
place among the ordered bins and are no part of them: their share has a test of its own (`missing_shift`), so that a
field that breaks is called broken and not also drifted.

**Empty bins.** A logarithm of a share has no value at 0, and one event in an empty bin must not be an infinite drift.
Half an event a bin is added: to the reference evenly (Jeffreys' prior for shares), to the current histogram in the
reference's proportions. So no share is 0, a few events look like the reference and not like evenly spread ones, and
with 1,000 events an index of 0.2 moves by less than 0.01.

**Effect and evidence.** `psi` and `superiority` measure how large a difference is, `chi_squared`,
`kolmogorov_smirnov` and `missing_shift` how sure it is one. At a million events everything is significant, at a
thousand a large index may be chance; an alarm asks for both.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, kolmogorov, ndtr

__all__ = [
    "DEPENDENCE",
    "ChiSquared",
    "KolmogorovSmirnov",
    "MissingShift",
    "chi_squared",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "kullback_leibler",
    "missing_shift",
    "psi",
    "psi_by_chance",
    "significant",
    "superiority",
]

PRIOR: Final = 0.5
#: Payments come a few of one user, frauds in a row of one card: variances are so many times those of independent ones.
DEPENDENCE: Final = 4.0
#: Least count to be expected in a cell of a chi-squared test (Cochran 1954).
MIN_EXPECTED: Final = 5.0

Counts = npt.NDArray[np.number[Any]]


@dataclass(frozen=True, slots=True)
class ChiSquared:
    """statistic and p_value of Pearson's test that two histograms are of one distribution; 0 degrees say: no test."""

    statistic: float = 0.0
    degrees: int = 0
    p_value: float = 1.0


@dataclass(frozen=True, slots=True)
class KolmogorovSmirnov:
    """Greatest distance of the two distributions at a bin's edge, and its p-value.

    Between edges the raw values' distance may be greater, so the statistic is a lower and the p-value an upper bound
    of theirs; where every value has a bin of its own they are equal.
    """

    statistic: float = 0.0
    p_value: float = 1.0


@dataclass(frozen=True, slots=True)
class MissingShift:
    """Share of missing values in the reference and now, and the two-sided p-value of their difference."""

    reference: float = 0.0
    current: float = 0.0
    p_value: float = 1.0

    @property
    def difference(self) -> float:
        """The share now less the reference's."""
        return self.current - self.reference


def psi(reference: Counts, current: Counts) -> float:
    """Return the population stability index, Σ (q − p) ln(q / p), in nats; 0 where either is empty."""
    p, q = _shares(reference, current)
    return float(((q - p) * np.log(q / p)).sum())


def psi_by_chance(reference: Counts, current: Counts) -> float:
    """Return the index to be expected of two samples of one distribution, (bins − 1) (1/n + 1/m); 0 where empty.

    Twice the index is about the chi-squared statistic of the two over their harmonic size, whose expectation is its
    degrees of freedom (Yurdakul 2018). Bins that neither sample has anything in are no degrees.
    """
    n, m = float(reference.sum()), float(current.sum())
    if not n or not m:
        return 0.0
    return max(0, int(np.count_nonzero(reference + current)) - 1) * (1 / n + 1 / m)


def kullback_leibler(reference: Counts, current: Counts) -> float:
    """Return the divergence of the current distribution from the reference, Σ q ln(q / p), in nats; 0 where empty."""
    p, q = _shares(reference, current)
    return float((q * np.log(q / p)).sum())


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Return the Jensen-Shannon divergence in nats, 0 to ln 2 (Lin 1991); 0 where either is empty."""
    p, q = _shares(reference, current)
    middle = (p + q) / 2
    return float((p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2)


def superiority(reference: Counts, current: Counts) -> float:
    """Return how likely a current value lies above a reference one, a bin shared counting half: 0.5 where like.

    The area under the curve of Mann and Whitney's statistic, of values known to the bin; 0.5 where either is empty.
    """
    n, m = reference.sum(), current.sum()
    if not n or not m:
        return 0.5
    below = np.cumsum(reference) - reference / 2
    return float((current / m * (below / n)).sum())


def chi_squared(reference: Counts, current: Counts) -> ChiSquared:
    """Return Pearson's two-sample test; neighbouring bins are merged until every cell expects 5 events or more.

    Where fewer than two bins are left (a constant feature, an empty window) there is no test.
    """
    n, m = float(reference.sum()), float(current.sum())
    if not n or not m:
        return ChiSquared()
    starts = _merged((reference + current).astype(np.float64), MIN_EXPECTED * (n + m) / min(n, m))
    if len(starts) < 2:
        return ChiSquared()
    observed = np.stack([np.add.reduceat(each.astype(np.float64), starts) for each in (reference, current)])
    expected = observed.sum(axis=0) * (np.array([[n], [m]]) / (n + m))
    statistic = float(((observed - expected) ** 2 / expected).sum())
    degrees = len(starts) - 1
    return ChiSquared(statistic, degrees, float(chdtrc(degrees, statistic)))


def kolmogorov_smirnov(reference: Counts, current: Counts) -> KolmogorovSmirnov:
    """Return the two-sample test on binned values, its p-value from Kolmogorov's limiting distribution."""
    n, m = float(reference.sum()), float(current.sum())
    if not n or not m:
        return KolmogorovSmirnov()
    distance = float(np.abs(np.cumsum(reference) / n - np.cumsum(current) / m).max())
    return KolmogorovSmirnov(distance, float(kolmogorov(np.sqrt(n * m / (n + m)) * distance)))


def missing_shift(reference: int, reference_events: int, current: int, current_events: int) -> MissingShift:
    """Return both shares of missing values and the test of two proportions, Wald's with the pooled share.

    No p-value below 1 where either is empty, where none or all are missing in both, or where fewer than 5 of either
    kind are expected in either and the normal distribution is no guide.
    """
    n, m = reference_events, current_events
    if not n or not m:
        return MissingShift(reference / n if n else 0.0, current / m if m else 0.0)
    shares = reference / n, current / m
    pooled = (reference + current) / (n + m)
    if min(pooled, 1 - pooled) * min(n, m) < MIN_EXPECTED:
        return MissingShift(*shares)
    z = (shares[1] - shares[0]) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return MissingShift(*shares, float(2 * ndtr(-abs(z))))


def significant(p_values: npt.NDArray[np.float64], false_discovery_rate: float) -> npt.NDArray[np.bool_]:
    """Return which of these tests count, so that of those no more than this share is false in the long run.

    Benjamini and Hochberg 1995; it holds under the positive dependence of features computed from the same payments
    (Benjamini and Yekutieli 2001).
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    kept = np.flatnonzero(p_values[order] <= false_discovery_rate * np.arange(1, count + 1) / max(count, 1))
    chosen = np.zeros(count, np.bool_)
    if len(kept):
        chosen[order[: kept[-1] + 1]] = True
    return chosen


def _shares(reference: Counts, current: Counts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    n, m, bins = reference.sum(), current.sum(), len(reference)
    if not n or not m:
        same = np.ones(bins) / max(bins, 1)
        return same, same
    p = (reference + PRIOR) / (n + PRIOR * bins)
    return p, (current + PRIOR * bins * p) / (m + PRIOR * bins)


def _merged(counts: npt.NDArray[np.float64], least: float) -> npt.NDArray[np.int64]:
    """Return where merged bins start, each of at least this count; what is left at the end joins the last one."""
    starts, held = [0], 0.0
    for at, count in enumerate(counts.tolist()):
        if held >= least:
            starts.append(at)
            held = 0.0
        held += count
    if held < least and len(starts) > 1:
        starts.pop()
    return np.array(starts, np.int64)
