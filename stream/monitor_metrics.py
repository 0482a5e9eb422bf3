"""What the monitor knows and does, as Prometheus reads it.

Gauges show what the state says, which after a restart is what it was before. Counters count from the moment this
process had read back, so that a restart is no sudden rise: what was read again is not counted again.
"""

# What a hook means stands at MonitorObserver and JoinerObserver.
# ruff: noqa: D102

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from models.quality_watch import QualitySnapshot
from stream.alert_record import SIGNALS, Alert
from stream.families import by_one, counts, gauge, gauges
from stream.joiner_observer import OUTCOMES
from stream.monitor_observer import MonitorObserver
from stream.quality_metrics import quality_families
from stream.tally import Histogram
from stream.watch_metrics import watch_families
from stream.watch_snapshot import Totals, WatchSnapshot

__all__ = ["MonitorMetrics"]

MS_PER_SEC: Final = 1000.0
DAY_SECS: Final = 86_400.0
#: From an investigator's minute to a chargeback's four months.
DELAY_SECS: Final = (
    *(60.0, 600.0, 3_600.0, 6 * 3_600.0, 12 * 3_600.0),
    *(days * DAY_SECS for days in (1, 2, 3, 5, 7, 14, 21, 30, 45, 60, 90, 120)),
)


class MonitorMetrics(MonitorObserver, Collector):
    """Shows what the hooks tell, through a registry of its own.

    now: epoch seconds. aside: (topic, reason) of every kind of record that can be set aside.
    """

    def __init__(self, now: Callable[[], float] = time.time, aside: Iterable[tuple[str, str]] = ()) -> None:
        self._now = now
        self._started_at = now()
        self._lock = threading.Lock()
        self._up, self._caught_up = True, False
        self._watch: WatchSnapshot | None = None
        self._before = Totals()
        self._uncovered: dict[int, int] = {}
        self._quality: QualitySnapshot | None = None
        self._lags: dict[str, int] = {}
        self._records: Tally[str] = Tally()
        self._aside: Tally[tuple[str, str]] = Tally(dict.fromkeys(aside, 0))
        self._alerts: Tally[str] = Tally(dict.fromkeys(SIGNALS, 0))
        self._labels: Tally[str] = Tally(dict.fromkeys(OUTCOMES, 0))
        self._labelled: Tally[str] = Tally({"fraud": 0, "honest": 0})
        self._delays = Histogram(DELAY_SECS)
        self._last_label_at: float | None = None
        self._index: tuple[int, int, int] | None = None
        self._commits = 0
        self._joins: bool | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def read_back(self, topic: str, done: int, total: int) -> None:
        self.lag(topic, total - done)

    def caught_up(self, watch: WatchSnapshot | None) -> None:
        with self._lock:
            # Both at once: rules hold what was last said until a monitor that has caught up says otherwise.
            self._caught_up, self._watch = True, watch
            self._before = Totals() if watch is None else watch.totals

    def state(self, watch: WatchSnapshot | None, quality: QualitySnapshot) -> None:
        with self._lock:
            self._watch, self._quality = watch, quality
            if watch is not None:
                self._note_uncovered(watch)
            # Read back too, so that a restart does not forget how long labels have been silent.
            if quality.labelled_at_ms:
                self._last_label_at = max(self._last_label_at or 0.0, quality.labelled_at_ms / MS_PER_SEC)

    def lag(self, topic: str, records: int) -> None:
        with self._lock:
            self._lags[topic] = records

    def read(self, topic: str) -> None:
        with self._lock:
            self._records[topic] += 1

    def set_aside(self, topic: str, reason: str, count: int) -> None:
        with self._lock:
            self._aside[topic, reason] += count

    def raised(self, alert: Alert) -> None:
        if alert.state == "raised":
            with self._lock:
                self._alerts[alert.signal] += 1

    def joined(self, outcome: str, count: int) -> None:
        with self._lock:
            self._labels[outcome] += count

    def label_read(self, frauds: int, honest: int) -> None:
        with self._lock:
            self._labelled["fraud"] += frauds
            self._labelled["honest"] += honest

    def delay(self, delays_ms: npt.NDArray[np.int64]) -> None:
        with self._lock:
            self._delays.add_all(delays_ms / MS_PER_SEC)

    def last_label(self, label_time_ms: int, seen_at_ms: int) -> None:  # noqa: ARG002 (a late label is no sign of life)
        with self._lock:
            self._last_label_at = max(self._last_label_at or 0.0, seen_at_ms / MS_PER_SEC)

    def index(self, decisions: int, size_bytes: int, pending: int) -> None:
        with self._lock:
            self._index = decisions, size_bytes, pending

    def rebuilding(self, topic: str, partition: int, *, replay_from: int, live_from: int, reason: str) -> None:  # noqa: ARG002 (the log says which)
        with self._lock:
            self._joins = False

    def live(self) -> None:
        with self._lock:
            self._joins = True

    def aborted(self, reason: str) -> None:  # noqa: ARG002 (the log says it)
        with self._lock:
            self._joins = False

    def committed(self, records: int) -> None:  # noqa: ARG002 (batches are counted)
        with self._lock:
            self._commits += 1

    def left(self) -> None:
        with self._lock:
            self._up = self._caught_up = False
            self._joins = None

    def _note_uncovered(self, watch: WatchSnapshot) -> None:
        """Keep the most so far: a late record heals a gap, and a counter that falls would look like a restart."""
        for partition in {*watch.coverage, *watch.totals.uncovered}:
            since = watch.totals.uncovered.get(partition, 0) - self._before.uncovered.get(partition, 0)
            self._uncovered[partition] = max(self._uncovered.get(partition, 0), since)

    # What a scrape shows.

    def collect(self) -> Iterable[Metric]:
        """Return everything at one moment."""
        with self._lock:
            found = [*self._of_monitor(), *self._of_labels(), *self._of_joiner(), self._firing()]
            if self._watch is not None:
                found += watch_families(self._watch, self._before, self._uncovered, self._now())
            if self._quality is not None:
                found += quality_families(self._quality)
            return found

    def _of_monitor(self) -> Iterator[Metric]:
        yield gauge("monitor_up", "1 until the monitor has left its group, then 0.", self._up)
        yield gauge("monitor_start_time_seconds", "Start of the monitor since the Unix epoch.", self._started_at)
        yield gauge("monitor_caught_up", "1 once it has read back and judges, else 0.", self._caught_up)
        yield gauges("monitor_lag_records", "Records not read yet.", ["topic"], by_one(self._lags))
        yield counts("monitor_records", "Records read.", ["topic"], by_one(self._records))
        yield counts("monitor_set_aside_records", "Records that say nothing.", ["topic", "reason"], self._aside)
        yield counts("monitor_alerts", "Alerts raised.", ["signal"], by_one(self._alerts))

    def _of_labels(self) -> Iterator[Metric]:
        yield counts("labels", "Labels, by what became of them.", ["outcome"], by_one(self._labels))
        yield counts("labelled", "Labelled decisions read.", ["label"], by_one(self._labelled))
        yield HistogramMetricFamily(
            "fraudstream_label_delay_seconds",
            "From a payment to its label.",
            self._delays.buckets,
            self._delays.sum,
        )
        if self._last_label_at is not None:
            yield gauge(
                "label_last_timestamp_seconds", "When a label was last read, since the epoch.", self._last_label_at
            )

    def _of_joiner(self) -> Iterator[Metric]:
        yield counts("joiner_commits", "Batches of labels and decisions made durable.", [], {(): self._commits})
        if self._joins is not None:
            yield gauge("joiner_live", "1 once the index is whole and labels are joined, else 0.", self._joins)
        if self._index is not None:
            for name, about, value in zip(
                ("index_decisions", "index_bytes", "pending_labels"),
                ("Decisions that wait for labels.", "What the index takes on disk.", "Labels that wait for decisions."),
                self._index,
                strict=True,
            ):
                yield gauge(f"joiner_{name}", about, value)

    def _firing(self) -> Metric:
        firing: Tally[str] = Tally(dict.fromkeys(SIGNALS, 0))
        if self._watch is not None:
            firing.update(alert.signal for alert in self._watch.alerts)
        if self._quality is not None:
            firing.update(alarm.signal for alarm in self._quality.open)
        return gauges("monitor_alerts_firing", "Alerts that are open.", ["signal"], by_one(firing))
