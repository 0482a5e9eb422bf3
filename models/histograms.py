"""Reference histograms: how each feature and the score were distributed when the model was trained, for drift.

    bin       0           1           2                m
          ─────────┤├──────────┤├──────────┤ … ├──────────
    edge           e0         e1         e2   …  em-1          a value equal to an edge belongs to the bin above it

Edges are values that occurred, at fixed quantiles, so bins hold about equally many events and an edge is exact in
float32; a value that makes up more than a bin's share gives fewer, larger bins. NaN is counted apart.

Scores are another matter: trees give thousands of payments one score, and the libraries, from which a reference comes,
agree with the engines, which score, only to about 1e-5. An edge at such a score would cut them apart by rounding alone,
so a score's edges lie in gaps between scores.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import BundleError

# Twenty bins tell a population stability index of 0.1 from noise with some thousand events.
FEATURE_QUANTILES = tuple(at / 20 for at in range(1, 20))
# Most scores lie near 0, and the few that matter near the thresholds.
SCORE_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
# Scores closer than this share of themselves may be one score, rounded differently; ten times what engines differ by.
SCORES_APART = 1e-4


class Histogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """edges: ascending, float32 values; counts: of one bin more than edges; missing: how many were NaN."""

    edges: list[float]
    counts: list[int]
    missing: int

    def __post_init__(self) -> None:
        """Raise ValueError, which a decoder reports with its place, unless the parts fit."""
        if not all(map(math.isfinite, self.edges)) or any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges must be finite and ascend")
        if len(self.counts) != len(self.edges) + 1 or min((*self.counts, self.missing)) < 0:
            raise ValueError("there must be one count more than edges, and none below 0")

    @property
    def events(self) -> int:
        """How many values were counted, NaN among them."""
        return sum(self.counts) + self.missing

    def count(self, values: npt.NDArray[np.float32]) -> "Histogram":
        """Return the histogram of other values float32[n] over the same edges."""
        return _count(values, np.array(self.edges, np.float64))


class Histograms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """features: of each feature over the training region; score: over the holdout, which no model has learned from."""

    features: dict[str, Histogram]
    score: Histogram


def histogram(
    values: npt.NDArray[np.float32], quantiles: Sequence[float] = FEATURE_QUANTILES, apart: float = 0.0
) -> Histogram:
    """Return the histogram of values float32[n] with edges at those of their quantiles that differ.

    apart: above 0, an edge is moved down to the middle of the gap below it; values that differ by less than this share
    of themselves have no gap between them.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return _count(values, np.empty(0))
    edges = np.unique(np.quantile(finite, quantiles, method="inverted_cdf"))
    # Nothing lies below the smallest value; as an edge it would only make an empty bin.
    edges = edges[edges > finite.min()]
    return _count(values, _in_gaps(np.unique(finite), edges, apart) if apart else edges)


def reference(
    features: npt.NDArray[np.float32], feature_names: Sequence[str], scores: npt.NDArray[np.float32]
) -> Histograms:
    """Return the histograms of features float32[n, k] and of scores float32[m]."""
    columns = {name: histogram(features[:, at]) for at, name in enumerate(feature_names)}
    return Histograms(columns, histogram(scores, SCORE_QUANTILES, SCORES_APART))


def render_histograms(histograms: Histograms) -> bytes:
    """Return them as JSON, maps sorted by key."""
    return msgspec.json.format(msgspec.json.encode(histograms, order="deterministic"), indent=1) + b"\n"


def read_histograms(content: bytes, feature_names: Sequence[str]) -> Histograms:
    """Return the histograms this JSON holds; raises BundleError unless they are one for each of these features."""
    try:
        found = msgspec.json.decode(content, type=Histograms)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(
            f"The reference histograms are not readable ({error}); train or copy the bundle again."
        ) from error
    if set(found.features) != set(feature_names) or len({one.events for one in found.features.values()}) > 1:
        raise BundleError("The reference histograms are not of this model's features; train or copy the bundle again.")
    return found


def _in_gaps(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64], apart: float) -> npt.NDArray[np.float64]:
    """Return float32 values in the middle between each edge and the next value, of those ascending, clearly below."""
    place = np.searchsorted(values, edges * (1.0 - apart), "left") - 1
    edges, place = edges[place >= 0], place[place >= 0]
    return np.unique(((values[place] + edges) / 2).astype(np.float32)).astype(np.float64)


def _count(values: npt.NDArray[np.float32], edges: npt.NDArray[np.float64]) -> Histogram:
    known = values[~np.isnan(values)].astype(np.float64)
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    return Histogram(edges.tolist(), counts.tolist(), len(values) - len(known))
