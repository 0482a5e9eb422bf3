"""Counts summed over panes of time: any window is a sum of whole panes, and memory depends on how far back one reaches.

    pane        …   p−12   …   p−1    p                pane number = (end of interval − 1) // pane
    window          └───────────────────┘ ▲            12 whole panes and the one now filling
    past        the same panes one rhythm before, and one more on either side
    longer      the same, one longer rhythm before
    long        all panes of the last rhythm

A vector holds the counts of every feature and of the score, one after the other, each feature's missing values last.
"""

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.histograms import Histogram, Histograms
from stream.telemetry_record import Counts, Telemetry
from stream.watch_snapshot import Aside

__all__ = ["SCORE", "WINDOW_PANES", "Layout", "Panes", "Times"]

#: How the score is called among the subjects; no feature can be, for a name has no blank.
SCORE: Final = "the score"
WINDOW_PANES: Final = 12

Vector = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Times:
    """How long things are, in panes of pane_ms. longer: the longer rhythm; 0: there is none."""

    pane_ms: int
    rhythm: int
    longer: int = 0

    @classmethod
    def of(cls, window_ms: int, rhythm_ms: int, longer_ms: int = 0) -> "Times":
        """Return the panes of these settings."""
        pane_ms = max(1, window_ms // WINDOW_PANES)
        return cls(pane_ms, max(WINDOW_PANES, round(rhythm_ms / pane_ms)), round(longer_ms / pane_ms))

    @property
    def kept(self) -> int:
        """How many panes back anything reaches: the window of one rhythm ago, and a pane on either side."""
        return max(self.rhythm, self.longer) + WINDOW_PANES + 2

    @property
    def forgotten(self) -> int:
        """How many panes after its last event a model is let go."""
        return self.rhythm + WINDOW_PANES + 2

    def window(self, pane: int) -> tuple[int, int]:
        """Return the first and the last pane of the window that ends in this one."""
        return pane - WINDOW_PANES, pane

    def past(self, pane: int) -> tuple[int, int]:
        """Return those of the same time one rhythm ago, with a pane more on either side."""
        return pane - self.rhythm - WINDOW_PANES - 1, pane - self.rhythm + 1

    def longer_past(self, pane: int) -> tuple[int, int]:
        """Return those of the same time one longer rhythm ago, likewise; none where there is no longer rhythm."""
        if not self.longer:
            return 0, -1
        return pane - self.longer - WINDOW_PANES - 1, pane - self.longer + 1

    def around(self, pane: int) -> tuple[int, int]:
        """Return those about the time of one rhythm ago, as many as a window has."""
        middle = pane - self.rhythm
        return middle - WINDOW_PANES // 2, middle + WINDOW_PANES // 2

    def long(self, pane: int) -> tuple[int, int]:
        """Return those of the last rhythm."""
        return pane - self.rhythm + 1, pane

    def pane(self, end_ms: int) -> int:
        """Return the number of the pane that an interval of this end counts in."""
        return (end_ms - 1) // self.pane_ms


class Layout:
    """Where each subject's counts stand in a vector; reference: the counts the model was trained on, as such a vector.

    names: the features in the order of the reference, then SCORE.
    """

    def __init__(self, reference: Histograms) -> None:
        each: dict[str, Histogram] = {**reference.features, SCORE: reference.score}
        self.names = tuple(each)
        self.bins = [len(one.counts) for one in each.values()]
        starts = np.cumsum([0, *(bins + 1 for bins in self.bins)]).tolist()
        self.slices = [slice(start, start + bins) for start, bins in zip(starts, self.bins, strict=False)]
        self.size = starts[-1]
        self._format = f"={self.size}q"
        self.edges = [np.array(one.edges, np.float64) for one in each.values()]
        self.reference = np.array([n for one in each.values() for n in (*one.counts, one.missing)], np.int64)

    def vector(self, record: Telemetry, set_aside: Counter[Aside]) -> Vector:
        """Return the record's counts int64[size]; what does not fit is 0 and counted by reason in `set_aside`."""
        features = record.features
        counts: list[int] = []
        fitting = 0
        for name, bins in zip(self.names, self.bins, strict=True):
            found: Counts | None = record.score if name is SCORE else features.get(name)
            if found is None or len(found.counts) != bins:
                if record.events:
                    set_aside["no_feature" if found is None else "other_bins"] += 1
                counts += [0] * (bins + 1)
            else:
                counts += found.counts
                counts.append(found.missing)
            fitting += found is not None and name is not SCORE
        if fitting < len(features):
            set_aside["unknown_feature"] += len(features) - fitting
        return np.frombuffer(struct.pack(self._format, *counts), np.int64)  # twice as fast as an array of a list

    def known(self, vector: npt.NDArray[Any], subject: int) -> npt.NDArray[Any]:
        """Return a subject's counts of values that are not missing."""
        return vector[self.slices[subject]]

    def missing(self, vector: npt.NDArray[Any], subject: int) -> int:
        """Return a subject's count of missing values."""
        return int(vector[self.slices[subject].stop])


@dataclass
class Panes:
    """Vectors by number of pane, at most `kept` panes back from the newest."""

    size: int
    kept: int
    newest: int = 0
    vectors: dict[int, Vector] = field(default_factory=dict)

    def add(self, pane: int, vector: Vector) -> None:
        """Add counts to a pane."""
        self.newest = max(self.newest, pane)
        held = self.vectors.get(pane)
        if held is None:
            self.vectors[pane] = vector.copy()
            self.expire(self.newest)
        else:
            held += vector

    def expire(self, newest: int) -> None:
        """Forget panes too far before this one."""
        for old in [pane for pane in self.vectors if pane < newest - self.kept]:
            del self.vectors[old]

    def sum(self, panes: tuple[int, int]) -> Vector:
        """Return the sum of panes from the first to the last, both included."""
        total = np.zeros(self.size, np.int64)
        vectors = self.vectors
        for pane in range(panes[0], panes[1] + 1):
            held = vectors.get(pane)
            if held is not None:
                total += held
        return total
