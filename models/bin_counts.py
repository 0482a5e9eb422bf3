"""Counts of many batches over the bins of reference histograms, exactly as `Histogram.count` counts them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from models.bin_kernel import ROWS, count_above
from models.histograms import Histograms
from models.jit import aligned

F32 = npt.NDArray[np.float32]


class BinCounts:
    """Adds batches up until take().

    references: whose bins features and scores are counted over; None counts latencies alone. latency_bounds: upper
    bounds, each inclusive.
    """

    def __init__(self, references: Histograms | None, names: Sequence[str], latency_bounds: Sequence[float]) -> None:
        self.names = tuple(names) if references is not None else ()
        columns = [] if references is None else [references.features[name].edges for name in self.names]
        score = [] if references is None else references.score.edges
        # v > b is v >= the float32 after b.
        slower = np.nextafter(np.array(latency_bounds, np.float32), np.float32(np.inf))
        edges = [*(round_up(column) for column in (*columns, score)), slower]
        self._edges = np.concatenate(edges).astype(np.float32)
        self._starts = np.cumsum([0, *map(len, edges)], dtype=np.int64)
        self._above = np.zeros(len(self._edges), np.int64)
        self._known = np.zeros(len(edges), np.int64)
        self._values = aligned((ROWS,), np.float32)
        self.events = 0

    def add(self, features: F32, scores: F32, latency: npt.NDArray[np.floating]) -> None:
        """Count a batch: features float32[n, k] in the order of the names, scores float32[n], latency float[n]."""
        n = len(scores)
        if not self.names:
            features = features[:, :0]
        count_above(
            np.ascontiguousarray(features),
            np.ascontiguousarray(scores),
            latency.astype(np.float32),
            self._edges,
            self._starts,
            self._values,
            self._above,
            self._known,
        )
        self.events += n

    def take(self) -> list[tuple[list[int], int]]:
        """Return (counts by bin, how many were NaN) of each feature, of the score and of the latency; begin anew."""
        found = []
        for c, known in enumerate(self._known.tolist()):
            above = self._above[self._starts[c] : self._starts[c + 1]].tolist()
            at_or_above = [known, *above, 0]
            counts = [low - high for low, high in pairwise(at_or_above)]
            found.append((counts, self.events - known))
        self._above[:] = 0
        self._known[:] = 0
        self.events = 0
        return found


def warm() -> None:
    """Compile the kernel that counts, or load it from the cache."""
    counts = BinCounts(None, (), (1,))
    counts.add(np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.zeros(1))


def round_up(edges: Sequence[float]) -> F32:
    """Return the smallest float32 at or above each edge: a float32 is at or above both or neither."""
    exact = np.array(edges, np.float64)
    with np.errstate(over="ignore"):
        near = exact.astype(np.float32)
        above = np.nextafter(near, np.float32(np.inf))
    return np.where(near.astype(np.float64) < exact, above, near)
