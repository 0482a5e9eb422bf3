"""Seeded telemetry of a few workers, as the watch reads it, with what goes wrong on request."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.histograms import Histograms, reference, render_histograms
from stream.alert_record import Alert
from stream.quantity import Duration
from stream.telemetry_record import Counts, Sample, Telemetry, reference_hash
from stream.watch import Watch
from stream.watch_sections import DriftSettings, MonitorSettings

START_MS = 1_700_000_000_000 // 3_600_000 * 3_600_000
FEATURES = ("amount", "count_1h", "seconds_since_last")
INTERVAL_MS = 5_000

#: A day in five minutes, so that days can be watched in a moment.
DRIFT = DriftSettings(
    window=Duration(60_000),
    every=Duration(15_000),
    min_events=200,
    persistence=3,
    epoch=Duration(300_000),
    rhythm=Duration(300_000),
    detector_every=Duration(5_000),
    kswin_every=4,
    adversarial_every=Duration(300_000),
    adversarial_rows=120,
)
MONITOR = MonitorSettings()
GRACE_INTERVALS = MONITOR.grace // INTERVAL_MS


def rows(rng: np.random.Generator, count: int) -> np.ndarray:
    """An amount with a long tail, a small count, and seconds that are missing for a fifth."""
    amount = rng.lognormal(3, 1, count)
    small = 1 + rng.poisson(0.4, count)
    seconds = np.where(rng.random(count) < 0.2, np.nan, rng.exponential(9_000, count))
    return np.stack([amount, small, seconds], axis=1).astype(np.float32)


def reference_of(seed: int = 1, features: tuple[str, ...] = FEATURES) -> Histograms:
    rng = np.random.default_rng(seed)
    return reference(rows(rng, 20_000)[:, : len(features)], features, rng.beta(1, 9, 20_000).astype(np.float32))


REFERENCE = reference_of()
HASH = reference_hash(render_histograms(REFERENCE))


def references(version: str) -> Histograms | None:
    return REFERENCE if version.startswith("m") else None


@dataclass
class TelemetryStream:
    """change: alters an interval's (rows, scores) in place, given its number. per_worker: events of an interval."""

    workers: int = 2
    intervals: int = 240
    per_worker: int = 30
    sampled: int = 6
    seed: int = 1
    model: str = "m1"
    reference: str = HASH
    histograms: Histograms = field(default_factory=lambda: REFERENCE)
    change: Callable[[int, np.ndarray, np.ndarray], None] = lambda number, x, scores: None

    def __iter__(self) -> Iterator[tuple[Telemetry, int]]:
        """Yield (record, Kafka timestamp) in the order of a calm topic."""
        rng = np.random.default_rng(self.seed)
        offsets = [0] * self.workers
        for number in range(self.intervals):
            for worker in range(self.workers):
                x, scores = rows(rng, self.per_worker), rng.beta(1, 9, self.per_worker).astype(np.float32)
                self.change(number, x, scores)
                first, offsets[worker] = offsets[worker], offsets[worker] + self.per_worker
                opened_ms = START_MS + number * INTERVAL_MS
                yield (
                    self._record(number, worker, opened_ms, x, scores, (first, offsets[worker])),
                    opened_ms + INTERVAL_MS + worker,
                )

    def _record(self, number, worker, opened_ms, x, scores, offsets) -> Telemetry:
        columns = {name: histogram.count(x[:, at]) for at, (name, histogram) in enumerate(self.named())}
        score = self.histograms.score.count(scores)
        held = scores > 0.3
        return Telemetry(
            worker=f"worker-{worker}",
            epoch=START_MS,
            sequence=number,
            interval=opened_ms // INTERVAL_MS,
            interval_ms=INTERVAL_MS,
            opened_at_ms=opened_ms,
            closed_at_ms=opened_ms + INTERVAL_MS - 1,
            model=self.model,
            engine="forest",
            feature_set="f" * 16,
            reference=self.reference,
            events=len(x),
            features={name: Counts(column.counts, column.missing) for name, column in columns.items()},
            score=Counts(score.counts, score.missing),
            segments={
                "DE": {"approve": int((~held).sum()), "review": int(held.sum())} if len(x) else {},
            },
            sample=Sample(
                [[None if np.isnan(value) else value for value in row] for row in x[: self.sampled].tolist()],
                scores[: self.sampled].tolist(),
                [opened_ms] * len(x[: self.sampled]),
            ),
            offsets={str(worker): [offsets]} if len(x) else {},
        )

    def named(self):
        # In the feature set's order, which a worker keeps; the reference's maps are sorted by name.
        return [(name, self.histograms.features[name]) for name in FEATURES if name in self.histograms.features]


def watch(**changes: Any) -> Watch:
    return Watch(DRIFT, MONITOR, changes.pop("references", references), **changes)


def run(stream: Iterable[tuple[Telemetry, int]], watched: Watch | None = None) -> tuple[Watch, list[Alert]]:
    """Let a watch, a new one unless one is given, observe all of it; return it and what it said."""
    watched = watched or watch()
    return watched, [alert for record, timestamp in stream for alert in watched.observe(record, timestamp)]


def said(alerts: Iterable[Alert]) -> list[tuple[str, str, str]]:
    return [(alert.state, alert.signal, alert.subject) for alert in alerts]


def inflated(start: int, end: int = 10**9, factor: float = 4.0) -> Callable[[int, np.ndarray, np.ndarray], None]:
    """Return a change that multiplies the amounts of the intervals in [start, end)."""

    def change(number: int, x: np.ndarray, scores: np.ndarray) -> None:
        if start <= number < end:
            x[:, 0] *= factor

    return change


def at(number: int) -> int:
    """The end of an interval."""
    return START_MS + (number + 1) * INTERVAL_MS
