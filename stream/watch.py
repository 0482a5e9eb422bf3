"""The watch: telemetry in, alerts out. No clock, no Kafka, no chance: the same log gives the same alerts.

    observe(record)
      1  drop repeats, by (worker, epoch, sequence)
      2  move the stream's clock, the newest timestamp believed        `stream.watch_clock`
      3  keep the record until its interval closes; late ones only count offsets  `stream.watch_intervals`
      4  for each interval that closes, in order: offsets, panes, detectors
      5  at each multiple of drift.every that was passed: compare, judge, raise and clear

**Starting again.** What the watch knows reaches back no further than `memory_ms`, the alerts that are open excepted.
A monitor that starts again reads telemetry back from further than that and says with `judge_from_ms` from when on it
judges: from `reading_from(first timestamp read back)`, which lies after all that was cut off has left the windows. The
alerts open at that time come from the alerts topic (`open_alerts`). From there on it raises and clears what an
undisturbed watch does, with the same ids, so whoever writes alerts leaves out those that are in the topic already. A
log read from its very beginning is judged from the beginning: 0.

**What is set aside**, counted by reason in `Totals.set_aside`:

    ahead, behind     its timestamp, or its interval, is further than ten minutes from the stream's clock
    unknown_model     no reference is known for its model: no drift is computed; offsets and decisions count
    no_reference      it says that its counts are over no bins (an engine without a bundle)
    other_reference   its counts are over other bins than its model's reference
    other_bins        a feature's counts are more or fewer than its bins; the other features count
    no_feature        a feature of the reference is not in the record; the others count
    unknown_feature   a feature of the record is not in the reference; the others count
    sample            a drawn row of the sample fits no feature names
    offsets           an entry of the offsets that is no range
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from models.histograms import Histograms, render_histograms
from stream.alert_record import Alert
from stream.telemetry_record import Telemetry, reference_hash
from stream.watch_alerts import AlertBook, Cause, open_alerts
from stream.watch_clock import JUMP_MS, StreamClock
from stream.watch_coverage import Coverage
from stream.watch_findings import coverage_finding, unknown_model_finding
from stream.watch_intervals import Intervals, Sequences, interval_end
from stream.watch_memory import comparing_ms, memory_ms
from stream.watch_mix import DecisionMix
from stream.watch_model import WatchedModel
from stream.watch_panes import Times
from stream.watch_sections import DriftSettings, MonitorSettings, TelemetrySettings
from stream.watch_snapshot import Aside, CoverageState, Totals, WatchSnapshot

__all__ = ["Watch", "memory_ms", "open_alerts"]

WORKER_SILENT_MS: Final = 60_000


class Watch:
    """Watches the telemetry of all workers.

    references: returns the reference histograms of a model version, None where unknown; asked once for each version,
    and once a minute again while unknown. already: alerts open at judge_from_ms, from the alerts topic. max_segments:
    how many segments' decisions are judged by themselves.
    """

    def __init__(
        self,
        drift: DriftSettings,
        monitor: MonitorSettings,
        references: Callable[[str], Histograms | None],
        *,
        already: Iterable[Alert] = (),
        judge_from_ms: int = 0,
        max_segments: int = TelemetrySettings().max_segments,
    ) -> None:
        self._drift, self._references, self._max_segments = drift, references, max_segments
        self.memory_ms = memory_ms(drift, monitor)
        self.judge_from_ms = judge_from_ms
        self._times = Times.of(drift.window, drift.rhythm, drift.longer_rhythm)
        self._clock, self._intervals, self._sequences = StreamClock(), Intervals(monitor.grace), Sequences()
        self._coverage = Coverage(monitor.grace, drift.window)
        self._book = AlertBook(drift.persistence, already, judge_from_ms)
        self._mix = DecisionMix(drift, self._times, max_segments)
        self._models: dict[str, tuple[str, WatchedModel]] = {}
        self._unknown: dict[str, tuple[int, int]] = {}
        self._at_ms: int | None = None
        self._records = self._events = self._late = self._repeated = 0
        self._set_aside: Counter[Aside] = Counter()
        self._detections: Counter[tuple[str, str]] = Counter()

    def reading_from(self, first_ms: int) -> int:
        """Return the judge_from_ms of a watch that reads a log cut off before this timestamp."""
        return first_ms + self.memory_ms

    def observe(self, record: Telemetry, timestamp_ms: int) -> list[Alert]:
        """Take a record and its Kafka timestamp; return the alerts raised and cleared, in order."""
        # Step 1
        self._records += 1
        if self._sequences.arrived(record) == "repeated":
            self._repeated += 1
            return []
        # Step 2
        how = self._clock.observe(timestamp_ms)
        now_ms = self._clock.now_ms
        assert now_ms is not None
        if how == "moved_back":
            self._begin_anew(now_ms)
        end_ms = interval_end(record)
        if how in ("ahead", "behind") or end_ms > now_ms + JUMP_MS:
            self._set_aside["behind" if how == "behind" else "ahead"] += 1
            self._cover(record, late=True)
            return []
        # Step 3
        if not self._intervals.add(record):
            self._late += 1
            self._events += record.events
            self._cover(record, late=True)
        # Steps 4 and 5
        return [alert for end, records in self._intervals.close(now_ms) for alert in self._apply(end, records)]

    def snapshot(self) -> WatchSnapshot:
        """Return what is known now."""
        at_ms = self._at_ms or 0
        causes = set(self._book.open)
        gaps = self._coverage.gaps(at_ms)
        return WatchSnapshot(
            at_ms=self._at_ms,
            caught=self._at_ms is not None and self._at_ms >= self.judge_from_ms,
            workers=self._sequences.workers(at_ms - WORKER_SILENT_MS),
            models={version: model.state(causes) for version, (_, model) in sorted(self._models.items())},
            unknown_models=tuple(sorted(self._unknown)),
            mix=dict(self._mix.states),
            coverage={
                partition: CoverageState(sum(gap.next - gap.first for gap in gaps[partition]), following)
                for partition, following in self._coverage.next_offsets().items()
            },
            alerts=tuple(self._book.open[cause] for cause in sorted(causes)),
            totals=Totals(
                self._records,
                self._events,
                self._late,
                self._repeated,
                self._sequences.lost,
                dict(self._set_aside),
                self._coverage.totals(at_ms),
                dict(self._detections),
            ),
        )

    def _apply(self, end_ms: int, records: list[Telemetry]) -> list[Alert]:
        """Apply a closed interval."""
        pane = self._times.pane(end_ms)
        by_model: dict[str, list[Telemetry]] = {}
        for record in records:
            self._events += record.events
            self._sequences.applied(record, end_ms)
            self._cover(record)
            self._mix.add(record, pane)
            if record.events:
                by_model.setdefault(record.model, []).append(record)
        for version, of_model in by_model.items():
            self._watch(version, of_model, end_ms)
        before, self._at_ms = self._at_ms, end_ms
        every = self._drift.every
        if before is None or before // every == end_ms // every:
            return []
        return self._compare(before, end_ms)

    def _watch(self, version: str, records: list[Telemetry], end_ms: int) -> None:
        fitting = []
        for record in records:
            if not record.reference:
                self._set_aside["no_reference"] += 1
                continue
            watched = self._model(version, end_ms)
            if watched is None:
                self._set_aside["unknown_model"] += 1
            elif watched[0] != record.reference:
                self._set_aside["other_reference"] += 1
            else:
                fitting.append(record)
        if fitting:
            self._detections.update(self._models[version][1].add(fitting, end_ms, self._set_aside))

    def _model(self, version: str, end_ms: int) -> tuple[str, WatchedModel] | None:
        """Return the hash of a model's reference and what watches it; None while its reference is unknown."""
        known = self._models.get(version)
        if known is not None:
            return known
        asked_ms = self._unknown.get(version, (0, 0))[0]
        if end_ms - asked_ms >= self._drift.every:
            reference = self._references(version)
            if reference is not None:
                self._unknown.pop(version, None)
                detect_from_ms = self.judge_from_ms - comparing_ms(self._drift) - self._drift.window
                watched = WatchedModel(version, reference, self._drift, self._times, detect_from_ms)
                self._models[version] = known = reference_hash(render_histograms(reference)), watched
                return known
            asked_ms = end_ms
        self._unknown[version] = asked_ms, end_ms
        return None

    def _compare(self, before_ms: int, at_ms: int) -> list[Alert]:
        """Judge everything at the end of an interval; before_ms: the end of the one before it."""
        self._sequences.forget(at_ms - self._drift.window)
        self._coverage.settle(at_ms)
        self._book.prune(at_ms - 2 * self._drift.window)
        alerts = self._forget(at_ms)
        if at_ms >= self.judge_from_ms - comparing_ms(self._drift):
            hourly = self._drift.adversarial_every
            for version in sorted(self._models):
                model = self._models[version][1]
                alerts += model.compare(at_ms, self._book)
                if hourly and before_ms // hourly != at_ms // hourly:
                    alerts += model.tell_apart(at_ms, self._book)
            alerts += self._mix.compare(at_ms, self._book)
        for version in sorted(self._unknown):
            cause = Cause("unknown_model", version, "", version)
            alerts += self._book.judge(cause, unknown_model_finding(version), at_ms, 1)
        for partition, gaps in self._coverage.gaps(at_ms).items():
            cause = Cause("telemetry_uncovered", str(partition), "", "")
            alerts += self._book.judge(cause, coverage_finding(partition, gaps), at_ms, 1)
        return alerts

    def _forget(self, at_ms: int) -> list[Alert]:
        """Let go of models that score no longer, and end the alerts about them."""
        oldest = self._times.pane(at_ms) - self._times.forgotten
        for version, (_, model) in list(self._models.items()):
            if model.newest_pane < oldest:
                del self._models[version]
        for version, (_, seen_ms) in list(self._unknown.items()):
            if seen_ms <= at_ms - self._drift.window:
                del self._unknown[version]
        alerts = []
        for cause in sorted(self._book.open):
            if cause.signal == "unknown_model" and cause.model not in self._unknown:
                alerts += self._book.end(cause, f"Model {cause.model} has a reference, or scores no longer.", at_ms)
            elif cause.model and cause.signal != "unknown_model" and cause.model not in self._models:
                alerts += self._book.end(cause, f"Model {cause.model} scores no longer.", at_ms)
        return alerts

    def _begin_anew(self, now_ms: int) -> None:
        """The stream's time went back: what was counted lies in its future. Alerts stay until they are judged again.

        The log may have begun with a record of a time to come: nothing would be judged until then.
        """
        self.judge_from_ms = min(self.judge_from_ms, self.reading_from(now_ms))
        self._book.judge_from_ms = self.judge_from_ms
        self._intervals.reopen(now_ms)
        self._models.clear()
        self._mix = DecisionMix(self._drift, self._times, self._max_segments)
        self._at_ms = None

    def _cover(self, record: Telemetry, *, late: bool = False) -> None:
        wrong = self._coverage.cover(record.offsets, interval_end(record), late=late)
        if wrong:
            self._set_aside["offsets"] += wrong
