"""The mix of decisions, in all and by segment, against that of one rhythm ago: a bundle has no reference for it.

A shift that stays is the new mix one rhythm later. The day after a shift that went away again, the past is what is
odd; so an alarm also asks that the mix be unlike that of the last whole rhythm, and of one longer rhythm ago where
that is known; while it is not, unlike one rhythm ago by the wider bound (`stream.watch_comparison`). Each index is
taken less what two samples of one mix of so few decisions differ by.

Workers name their own most frequent segments, and one that starts anew may name others. Of all of them, the most
frequent of the last rhythm are judged; the others are one, in each stretch that is compared.
"""

from collections import Counter
from typing import Final

import numpy as np

from models.drift_statistics import DEPENDENCE, chi_squared, psi, psi_by_chance, significant
from stream.alert_record import Alert
from stream.telemetry_record import OTHER, Telemetry
from stream.watch_alerts import AlertBook, Cause
from stream.watch_findings import mix_finding
from stream.watch_panes import Times
from stream.watch_sections import DriftSettings
from stream.watch_snapshot import MixState

__all__ = ["DecisionMix"]

DECISIONS: Final = ("approve", "review", "decline")
# More than this in one pane, whoever wrote them, are counted as one when they come: a pane's memory is bounded.
MAX_SEGMENTS: Final = 1_000

Mix = Counter[tuple[str, str]]


class DecisionMix:
    """Counts of (segment, decision) by pane. most: segments that are judged by themselves."""

    def __init__(self, drift: DriftSettings, times: Times, most: int) -> None:
        self._drift, self._times, self._most = drift, times, most
        self._panes: dict[int, Mix] = {}
        self._segments: dict[int, set[str]] = {}
        self.states: dict[str, MixState] = {}

    def add(self, record: Telemetry, pane: int) -> None:
        """Count a record's decisions."""
        if not record.segments:
            return
        counts = self._panes.get(pane)
        if counts is None:
            counts = self._panes[pane] = Counter()
            self._segments[pane] = set()
            for old in [other for other in self._panes if other < pane - self._times.kept]:
                del self._panes[old], self._segments[old]
        segments = self._segments[pane]
        for name, decisions in record.segments.items():
            segment = name if name in segments or len(segments) < MAX_SEGMENTS else OTHER
            segments.add(segment)
            for decision, count in decisions.items():
                counts["", decision] += count
                if segment:
                    counts[segment, decision] += count

    def compare(self, at_ms: int, book: AlertBook) -> list[Alert]:
        """Judge the mix of all decisions and of every segment that has enough of them."""
        pane, times, drift = self._times.pane(at_ms), self._times, self._drift
        spans = (times.window(pane), times.past(pane), times.long(pane), times.longer_past(pane))
        window, past, long, longer = (self._sum(panes) for panes in spans)
        told = self._told(window, long)
        alerts, causes = _end_others(told, book, at_ms) if len(told) >= self._most else ([], _causes(book))
        window, past, long, longer = (_folded(mix, told) for mix in (window, past, long, longer))
        segments = sorted({segment for segment, _ in window} | causes)
        decisions = sorted({decision for _, decision in window + past + long + longer} | set(DECISIONS))
        rows = {
            segment: [
                np.array([each[segment, decision] for decision in decisions]) for each in (window, past, long, longer)
            ]
            for segment in segments
        }
        tests = [chi_squared(past_row / DEPENDENCE, row / DEPENDENCE).p_value for row, past_row, *_ in rows.values()]
        sure = significant(np.array(tests, np.float64), drift.false_alarms)
        self.states = {}
        for at, (segment, (row, past_row, long_row, longer_row)) in enumerate(rows.items()):
            judged = min(int(row.sum()), int(past_row.sum())) >= drift.min_events
            distance = psi(past_row, row)
            known = int(longer_row.sum()) >= drift.min_events
            yesterday = drift.mix_psi if known else drift.mix_psi * drift.unlearned_psi / drift.psi
            bounds = [(past_row, yesterday), (long_row, drift.mix_psi), *([(longer_row, drift.mix_psi)] * known)]
            effects = [(_effect(before, row), bound) for before, bound in bounds]
            nearest, bound = min(effects, key=lambda each: each[0] / each[1])
            finding = mix_finding(
                segment,
                nearest,
                bound,
                drift.clear,
                judged=judged,
                sure=bool(sure[at]),
            )
            cause = Cause("decision_mix_drift", "", segment, "")
            alerts += book.judge(cause, finding, at_ms)
            total = int(row.sum())
            shares = {decision: int(n) / total for decision, n in zip(decisions, row, strict=True)} if total else {}
            self.states[segment] = MixState(total, shares, distance if judged else None, cause in book.open)
        return alerts

    def _told(self, window: Mix, long: Mix) -> set[str]:
        """Return the segments judged by themselves: a function of what was counted in the last rhythm alone."""
        counts = Counter({segment: 0 for segment, _ in window})
        for (segment, _), count in long.items():
            counts[segment] += count
        ranked = sorted(counts.keys() - {"", OTHER}, key=lambda segment: (-counts[segment], segment))
        return set(ranked[: self._most])

    def _sum(self, panes: tuple[int, int]) -> Mix:
        total: Mix = Counter()
        for pane in range(panes[0], panes[1] + 1):
            held = self._panes.get(pane)
            if held:
                total.update(held)
        return total


def _effect(before: np.ndarray, row: np.ndarray) -> float:
    return max(0.0, psi(before, row) - DEPENDENCE * psi_by_chance(before, row))


def _folded(mix: Mix, told: set[str]) -> Mix:
    found: Mix = Counter()
    for (segment, decision), count in mix.items():
        found[segment if segment in told or not segment else OTHER, decision] += count
    return found


def _causes(book: AlertBook) -> set[str]:
    return {cause.segment for cause in book.open if cause.signal == "decision_mix_drift"}


def _end_others(told: set[str], book: AlertBook, at_ms: int) -> tuple[list[Alert], set[str]]:
    """End what was said of segments that are not judged by themselves any more; return what goes on, too."""
    alerts, causes = [], _causes(book)
    for segment in sorted(causes - told - {"", OTHER}):
        text = f"Segment {segment} is no more among the most frequent, and is judged with the others."
        alerts += book.end(Cause("decision_mix_drift", "", segment, ""), text, at_ms)
    return alerts, causes & (told | {"", OTHER})
