"""Decisions counted by segment, of which only so many keep their names."""

from collections import Counter
from typing import Final

import numpy as np

from stream.observer import Scored
from stream.telemetry_record import OTHER

__all__ = ["SegmentCounts"]

#: Names told apart before a record is closed: a segment that turns out to be an id must not fill the memory.
MOST_NAMES: Final = 1 << 16
#: Names whose frequency since the start is known, exactly up to this many.
MOST_RANKED: Final = 1 << 15
#: A name gives way to one that was surely seen so many times as often, and so many times more.
TIMES: Final = 2
MORE: Final = 16


class SegmentCounts:
    """Counts until take(). most: how many segments have names, the most frequent since the worker's start.

    The same ones keep their names from record to record, until another is surely and by far more frequent. Frequencies
    are a summary of bounded size: Misra and Gries, "Finding repeated elements" (Science of Computer Programming, 1982),
    filled a record at a time as by Agarwal et al., "Mergeable summaries" (PODS 2012). Each is at most `_taken` too low.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ever: Counter[str] = Counter()
        self._taken = 0
        self._named: set[str] = set()
        self._now: dict[str, Counter[str]] = {}

    def add(self, scored: Scored) -> None:
        """Count a batch. Nearly all rows have the same outcome: only the others are looked at one by one."""
        names, outcomes = scored.outcome_names, scored.outcomes
        by_row = scored.rows.segments
        usual = int(np.bincount(outcomes).argmax())
        left = Counter(by_row)
        for row in np.flatnonzero(outcomes != usual).tolist():
            left[by_row[row]] -= 1
            self._of(by_row[row])[names[outcomes[row]]] += 1
        for segment, count in left.items():
            if count:
                self._of(segment)[names[usual]] += count

    def take(self) -> dict[str, dict[str, int]]:
        """Return the counts by segment and decision, those without a name as one; begin anew."""
        found, self._now = self._now, {}
        self._rank(found)
        self._name(found)
        for segment in [name for name in found if name not in self._named and name != OTHER]:
            found.setdefault(OTHER, Counter()).update(found.pop(segment))
        return {segment: dict(counts) for segment, counts in found.items()}

    def _rank(self, found: dict[str, Counter[str]]) -> None:
        self._ever.update({segment: counts.total() for segment, counts in found.items() if segment != OTHER})
        if len(self._ever) > MOST_RANKED:
            cut = sorted(self._ever.values(), reverse=True)[MOST_RANKED]
            self._taken += cut
            self._ever = Counter({segment: count - cut for segment, count in self._ever.items() if count > cut})

    def _name(self, found: dict[str, Counter[str]]) -> None:
        """Only a segment of this record can have become more frequent than one that has a name."""
        ever, named = self._ever, self._named
        waiting = sorted(found.keys() - named - {OTHER}, key=lambda segment: (-ever[segment], segment))
        free = self._most - len(named)
        named.update(waiting[:free])
        weakest = sorted(named, key=lambda segment: (ever[segment], segment))
        for segment, weak in zip(waiting[free:], weakest, strict=False):
            if ever[segment] < TIMES * (ever[weak] + self._taken) + MORE:
                break
            named.remove(weak)
            named.add(segment)

    def _of(self, segment: str) -> Counter[str]:
        counts = self._now.get(segment)
        if counts is None:
            if len(self._now) >= MOST_NAMES and segment not in self._named:
                segment = OTHER
            counts = self._now.setdefault(segment, Counter())
        return counts
