"""Decisions counted by segment, of which only so many keep their names."""

from collections import Counter
from itertools import chain
from typing import Final

import numpy as np

from stream.observer import Scored
from stream.telemetry_record import OTHER

__all__ = ["SegmentCounts"]

#: Names told apart before a record is closed: a segment that turns out to be an id must not fill the memory.
MOST_NAMES: Final = 1 << 16


class SegmentCounts:
    """Counts until take(). most: how many segments keep their names, those most frequent since the worker's start."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ever: Counter[str] = Counter()
        self._now: dict[str, Counter[str]] = {}

    def add(self, scored: Scored) -> None:
        """Count a batch. Nearly all rows have the same outcome: only the others are looked at one by one."""
        names, outcomes = scored.outcome_names, scored.outcomes
        by_row = scored.segments[0] if len(scored.segments) == 1 else list(chain.from_iterable(scored.segments))
        usual = int(np.bincount(outcomes).argmax())
        left = Counter(by_row)
        for row in np.flatnonzero(outcomes != usual).tolist():
            left[by_row[row]] -= 1
            self._of(by_row[row])[names[outcomes[row]]] += 1
        for segment, count in left.items():
            if count:
                self._of(segment)[names[usual]] += count

    def take(self) -> dict[str, dict[str, int]]:
        """Return the counts by segment and decision, the rarer segments as one; begin anew."""
        found, self._now = self._now, {}
        self._ever.update({segment: counts.total() for segment, counts in found.items()})
        named = sorted(found.keys() - {OTHER}, key=lambda segment: (-self._ever[segment], segment))
        for segment in named[self._most :]:
            found.setdefault(OTHER, Counter()).update(found.pop(segment))
        if len(self._ever) > MOST_NAMES:
            self._ever = Counter(dict(self._ever.most_common(MOST_NAMES // 2)))
        return {segment: dict(counts) for segment, counts in found.items()}

    def _of(self, segment: str) -> Counter[str]:
        counts = self._now.get(segment)
        if counts is None:
            if len(self._now) >= MOST_NAMES:
                segment = OTHER
            counts = self._now.setdefault(segment, Counter())
        return counts
