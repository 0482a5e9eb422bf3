"""Tells the monitor what this worker decided: one record of counts an interval (`stream.telemetry_record`).

    batch      told of when it is sent: remembered, by reference
    commit     acknowledged to the loop: the offsets it covers are noted
    turn       after the next batch is sent: counted; the record is closed and written where the interval is over

So nothing is counted that was aborted, nothing twice, and no decision waits for the counting: it happens while the next
commit is on its way. What a worker committed and did not live to tell of is a gap between the ranges of offsets of all
records, for a partition's first range begins at the offset that was committed when it was handed over.

Nothing that goes wrong here ends the worker: the record that was open is lost and counted as dropped, and the next
interval begins anew.
"""

import functools
import traceback
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from models.bin_counts import BinCounts
from stream.observer import BatchReport, Observer, ScoredBy
from stream.segment_counts import SegmentCounts
from stream.telemetry_interval import Interval, new_bins
from stream.telemetry_record import encode_telemetry
from stream.telemetry_writer import TelemetryWriter
from stream.watch_sections import TelemetrySettings

__all__ = ["TelemetryObserver", "worker_name"]

Ranges = dict[int, tuple[int, int]]
Hook = TypeVar("Hook", bound=Callable[..., None])


def worker_name(instance_id: str) -> str:
    """Return how a worker is called in its records: by its instance id, or a name drawn now."""
    return instance_id or f"worker-{uuid.uuid4().hex[:12]}"


def _guarded(hook: Hook) -> Hook:
    @functools.wraps(hook)
    def call(self: "TelemetryObserver", *args: Any, **kwargs: Any) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - decisions go on, whatever it is
            self._lose(error)

    return call  # type: ignore[return-value]


class TelemetryObserver(Observer):
    """Counts and writes, in the loop's thread.

    worker, epoch: see Telemetry. scores_with: what scores now. now_ms: epoch milliseconds.
    """

    def __init__(
        self,
        writer: TelemetryWriter,
        settings: TelemetrySettings,
        worker: str,
        epoch: int,
        scores_with: Callable[[], ScoredBy],
        now_ms: Callable[[], int],
    ) -> None:
        self._writer = writer
        self._interval_ms = int(settings.interval)
        self._sample_rows = settings.sample_rows
        self._worker, self._epoch = worker, epoch
        self._scores_with = scores_with
        self._now_ms = now_ms
        self._sequence = 0
        self._covered: dict[int, int] = {}
        self._sent: BatchReport | None = None
        self._durable: list[tuple[BatchReport, Ranges]] = []
        self._max_segments = settings.max_segments
        self._segments = SegmentCounts(self._max_segments)
        self._bins: tuple[ScoredBy, BinCounts] | None = None
        self._number = epoch // self._interval_ms
        self._opened_at_ms = epoch
        self._lost = False
        self._open = self._begin(scores_with())

    @_guarded
    def recovering(self, partition: int, *, replay_from: int, live_from: int, reason: str) -> None:  # noqa: ARG002, D102 (see Observer; what was decided before is another record's)
        self._covered[partition] = live_from

    @_guarded
    def batch(self, report: BatchReport) -> None:
        """Remember it. One that is told of before the last was acknowledged takes its place: that one was aborted."""
        if report.offsets:
            self._sent = report

    @_guarded
    def acknowledged(self, offsets: dict[int, int]) -> None:
        """Note what the batch covers, at the moment at which it is known."""
        sent, self._sent = self._sent, None
        if sent is None or sent.offsets != offsets:
            return
        ranges = {number: (self._covered.get(number, offset), offset) for number, offset in offsets.items()}
        self._covered.update(offsets)
        self._durable.append((sent, ranges))

    @_guarded
    def turned(self) -> None:
        """Count what became durable, and close the record where its interval is over."""
        now_ms = self._now_ms()
        if self._lost and now_ms // self._interval_ms != self._number:
            self._begin_anew(now_ms)
        self._count()
        self._writer.poll()
        if not self._lost and now_ms // self._interval_ms != self._number:
            self._close(now_ms)

    def stopped(self) -> None:
        """Write the last record, and wait a moment for it."""
        self._finish()
        self._leave()

    @_guarded
    def _finish(self) -> None:
        self._count()
        if not self._lost:
            self._close(self._now_ms())

    @_guarded
    def _leave(self) -> None:
        self._writer.close()

    def _lose(self, error: Exception) -> None:
        """Give up the record that is open, once: what follows until the interval is over is not counted."""
        self._durable.clear()
        if not self._lost:
            self._lost = True
            self._sequence += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"
            self._writer.lose(f"it could not be counted or encoded: {what}")

    def _begin_anew(self, now_ms: int) -> None:
        """Open a record that has nothing of what was there when counting or encoding failed."""
        self._number, self._opened_at_ms = now_ms // self._interval_ms, now_ms
        self._lost, self._bins = False, None
        self._segments = SegmentCounts(self._max_segments)
        self._open = self._begin(self._scores_with())

    def _count(self) -> None:
        if self._lost:
            self._durable.clear()
        for report, ranges in self._durable:
            by = self._open.by if report.scored is None else report.scored.by
            if by is not self._open.by:
                if self._open.empty:
                    self._open = self._begin(by)
                else:
                    self._close(self._now_ms(), by)
            self._open.add(report, ranges)
        self._durable.clear()

    def _close(self, now_ms: int, following: ScoredBy | None = None) -> None:
        """Write the record and open the next one, of the model that scores now or that the next batch names."""
        record = self._open.close(
            worker=self._worker,
            epoch=self._epoch,
            sequence=self._sequence,
            closed_at_ms=now_ms,
            interval_ms=self._interval_ms,
            dropped=self._writer.dropped,
        )
        self._writer.write(encode_telemetry(record))
        self._sequence += 1
        self._number, self._opened_at_ms = now_ms // self._interval_ms, now_ms
        self._open = self._begin(following or self._scores_with())

    def _begin(self, by: ScoredBy) -> Interval:
        if self._bins is None or self._bins[0] is not by:
            self._bins = by, new_bins(by)
        # The interval's own number is known when it closes; the record's is, too, where two share an interval.
        seed = f"{self._worker}/{self._epoch}/{self._sequence}"
        return Interval(by, self._bins[1], self._segments, self._opened_at_ms, self._sample_rows, seed)
