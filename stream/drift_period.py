"""The telemetry of a period, added up: by model and stretch of time, decisions by segment, and what it covers.

since                                                until
  ├──────┼──────┼──────┼── … 96 or fewer stretches ─────┤      a record counts by its Kafka timestamp
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.histograms import Histograms, render_histograms
from stream.telemetry_record import Telemetry, partition_number, reference_hash
from stream.watch_intervals import Sequences, interval_end
from stream.watch_panes import Layout
from stream.watch_snapshot import Aside

__all__ = ["DriftPeriod", "ModelTraffic"]

STRETCHES: Final = 96
_MINUTE: Final = 60_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
#: How long a stretch may be: what people read off a clock.
LENGTHS_MS: Final = (
    *(seconds * 1_000 for seconds in (1, 5, 10, 30)),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
)
#: Without a record for so many intervals, but at least so long, telemetry was silent.
SILENT_INTERVALS: Final = 10
SILENT_MS: Final = 60_000


@dataclass
class ModelTraffic:
    """What one model scored. vectors: counts over its reference's bins by stretch, in the layout's order.

    events: by stretch, all of them; compared: those whose counts are over the reference's bins.
    """

    version: str
    layout: Layout | None
    reference: str
    first_ms: int
    last_ms: int = 0
    compared: int = 0
    engines: set[str] = field(default_factory=set)
    events: Counter[int] = field(default_factory=Counter)
    vectors: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)


class DriftPeriod:
    """references: the reference histograms of a model version, None where they cannot be had; asked once for each."""

    def __init__(self, since_ms: int, until_ms: int, references: Callable[[str], Histograms | None]) -> None:
        self.since_ms, self.until_ms = since_ms, until_ms
        self.stretch_ms = _length(until_ms - since_ms)
        self.models: dict[str, ModelTraffic] = {}
        self.mix: dict[int, Counter[tuple[str, str]]] = {}
        self.records = self.events = self.repeated = 0
        self.workers: set[str] = set()
        self.dead_letters: Counter[str] = Counter()
        self.set_aside: Counter[Aside] = Counter()
        self.covered: dict[int, list[list[int]]] = {}
        self.silent_ms: list[tuple[int, int]] = []
        self._references = references
        self._sequences = Sequences()
        self._dropped: dict[tuple[str, int], list[int]] = {}
        self._newest_ms = since_ms

    @property
    def lost(self) -> int:
        """Records whose number is missing between two of their worker's."""
        return self._sequences.lost

    @property
    def dropped(self) -> int:
        """Records that workers say they could not write in the period."""
        return sum(last - first for first, last in self._dropped.values())

    @property
    def stretches(self) -> int:
        """How many stretches the period has; the last may be shorter."""
        return -(-(self.until_ms - self.since_ms) // self.stretch_ms)

    def bounds(self, stretch: int, length: int = 1) -> tuple[int, int]:
        """Return when some stretches in a row begin and end, epoch milliseconds."""
        begins = self.since_ms + stretch * self.stretch_ms
        return begins, min(begins + length * self.stretch_ms, self.until_ms)

    def stretch(self, at_ms: int) -> int:
        """Return the stretch that a time of the period lies in."""
        return (at_ms - self.since_ms) // self.stretch_ms

    def add(self, record: Telemetry, timestamp_ms: int) -> None:
        """Take a record and its Kafka timestamp, in the topic's order; what lies outside of the period is left out."""
        if not self.since_ms <= timestamp_ms < self.until_ms:
            return
        if self._sequences.arrived(record) == "repeated":
            self.repeated += 1
            return
        self._sequences.applied(record, interval_end(record))
        self.records += 1
        self.events += record.events
        self.workers.add(record.worker)
        self.dead_letters.update(record.dead_letters)
        dropped = self._dropped.setdefault((record.worker, record.epoch), [record.dropped, record.dropped])
        dropped[1] = max(dropped[1], record.dropped)
        self._silence(timestamp_ms, record.interval_ms)
        self._cover(record)
        stretch = self.stretch(timestamp_ms)
        mix = self.mix.setdefault(stretch, Counter())
        for segment, decisions in record.segments.items():
            for decision, count in decisions.items():
                mix[segment, decision] += count
        if record.events:
            self._model(record, timestamp_ms, stretch)

    def end(self) -> None:
        """Say that nothing more comes: silence up to the end counts."""
        self._silence(self.until_ms, 0)
        for ranges in self.covered.values():
            ranges[:] = _joined(ranges)

    def _model(self, record: Telemetry, timestamp_ms: int, stretch: int) -> None:
        traffic = self.models.get(record.model)
        if traffic is None:
            found = self._references(record.model)
            hashed = reference_hash(render_histograms(found)) if found else ""
            layout = Layout(found) if found else None
            traffic = self.models[record.model] = ModelTraffic(record.model, layout, hashed, timestamp_ms)
        traffic.last_ms = max(traffic.last_ms, timestamp_ms)
        traffic.engines.add(record.engine)
        traffic.events[stretch] += record.events
        if traffic.layout is None:
            self.set_aside["unknown_model"] += 1
        elif not record.reference:
            self.set_aside["no_reference"] += 1
        elif record.reference != traffic.reference:
            self.set_aside["other_reference"] += 1
        else:
            traffic.compared += record.events
            vector = traffic.layout.vector(record, self.set_aside)
            held: Any = traffic.vectors.get(stretch)
            traffic.vectors[stretch] = vector if held is None else held + vector

    def _silence(self, timestamp_ms: int, interval_ms: int) -> None:
        if timestamp_ms - self._newest_ms > max(SILENT_MS, SILENT_INTERVALS * interval_ms):
            self.silent_ms.append((self._newest_ms, timestamp_ms))
        self._newest_ms = max(self._newest_ms, timestamp_ms)

    def _cover(self, record: Telemetry) -> None:
        for name, ranges in record.offsets.items():
            number = partition_number(name)
            if number is None:
                self.set_aside["offsets"] += 1
                continue
            held = self.covered.setdefault(number, [])
            for first, following in ranges:
                if first > following:
                    self.set_aside["offsets"] += 1
                elif held and held[-1][0] <= first <= held[-1][1]:
                    held[-1][1] = max(held[-1][1], following)
                elif first < following:
                    held.append([first, following])


def _length(period_ms: int) -> int:
    for length in LENGTHS_MS:
        if period_ms <= STRETCHES * length:
            return length
    return -(-period_ms // (STRETCHES * _DAY)) * _DAY


def _joined(ranges: list[list[int]]) -> list[list[int]]:
    """Return the ranges ascending, those that touch as one."""
    joined: list[list[int]] = []
    for first, following in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], following)
        else:
            joined.append([first, following])
    return joined
