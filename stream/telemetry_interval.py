"""What one record of telemetry counts: the batches of one model between two moments."""

import math
from collections import Counter

import numpy as np

from models.bin_counts import BinCounts
from stream.observer import BatchReport, Scored, ScoredBy
from stream.reservoir import Reservoir
from stream.segment_counts import SegmentCounts
from stream.telemetry_record import LATENCY_BOUNDS_MS, Counts, Sample, Telemetry

__all__ = ["Interval", "new_bins"]

Row = tuple[list[float | None], float, int]


class Interval:
    """Counts committed batches of one model until it is closed. bins: of that model's reference, and empty."""

    def __init__(
        self, by: ScoredBy, bins: BinCounts, segments: SegmentCounts, opened_at_ms: int, sample_rows: int, seed: str
    ) -> None:
        self.by = by
        self._bins = bins
        self._segments = segments
        self._opened_at_ms = opened_at_ms
        self._rows: Reservoir[Row] = Reservoir(sample_rows, seed)
        self._flags: Counter[str] = Counter()
        self._dead_letters: Counter[str] = Counter()
        self._offsets: dict[int, list[tuple[int, int]]] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was committed in it."""
        return not self._offsets

    def add(self, report: BatchReport, ranges: dict[int, tuple[int, int]]) -> None:
        """Count a batch of this model, or one without rows. ranges: by partition, the offsets committed with it."""
        for partition, (first, following) in ranges.items():
            held = self._offsets.setdefault(partition, [])
            if held and held[-1][1] == first:
                held[-1] = (held[-1][0], following)
            else:
                held.append((first, following))
        self._dead_letters.update(report.dead_letters)
        scored = report.scored
        if scored is None:
            return
        self._flags.update(report.flags)
        self._bins.add(scored.features, scored.scores, report.latency_ms)
        self._segments.add(scored)
        # A feature of a row that is drawn may be null, its score may not.
        rows = np.flatnonzero(np.isfinite(scored.scores))
        self._rows.add(len(rows), lambda at: _row(scored, int(rows[at])))

    def close(
        self, *, worker: str, epoch: int, sequence: int, closed_at_ms: int, interval_ms: int, dropped: int
    ) -> Telemetry:
        """Return the record."""
        by, events = self.by, self._bins.events
        *columns, score, (latency, _) = self._bins.take()
        rows = self._rows.items
        return Telemetry(
            worker=worker,
            epoch=epoch,
            sequence=sequence,
            interval=closed_at_ms // interval_ms,
            interval_ms=interval_ms,
            opened_at_ms=self._opened_at_ms,
            closed_at_ms=closed_at_ms,
            model=by.model,
            engine=by.engine,
            feature_set=by.feature_set,
            reference=by.reference,
            events=events,
            features={name: Counts(*counted) for name, counted in zip(self._bins.names, columns, strict=True)},
            score=Counts(*score) if by.histograms is not None else Counts([]),
            segments=self._segments.take(),
            flags=dict(self._flags),
            dead_letters=dict(self._dead_letters),
            latency=latency,
            sample=Sample([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]),
            offsets={str(partition): ranges for partition, ranges in sorted(self._offsets.items())},
            dropped=dropped,
        )


def new_bins(by: ScoredBy) -> BinCounts:
    """Return counts over the bins of a model's reference, and over the latencies' own.

    One row goes through beforehand: the stream must not wait for the kernel to be loaded.
    """
    bins = BinCounts(by.histograms, by.feature_names, LATENCY_BOUNDS_MS)
    bins.add(np.zeros((1, len(by.feature_names)), np.float32), np.zeros(1, np.float32), np.zeros(1))
    bins.take()
    return bins


def _row(scored: Scored, row: int) -> Row:
    """Return one row by value: a view would keep the whole batch."""
    values = [value if math.isfinite(value) else None for value in scored.features[row].tolist()]
    return values, float(scored.scores[row]), int(scored.rows.time_ms[row])
