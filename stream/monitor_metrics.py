"""What the monitor knows and does, as Prometheus reads it.

Gauges show what the state says, which after a restart is what it was before. Counters count from the moment this
process had read back, so that a restart is no sudden rise: what was read again is not counted again.
"""

# What a hook means stands at MonitorObserver and JoinerObserver.
# ruff: noqa: D102

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from models.drift_detectors import DETECTORS
from models.quality_figures import Figures
from models.quality_watch import QualitySnapshot
from stream.alert_record import SIGNALS, Alert
from stream.joiner_observer import OUTCOMES
from stream.monitor_observer import MonitorObserver
from stream.tally import Histogram
from stream.watch_snapshot import ModelState, Totals, WatchSnapshot

__all__ = ["MonitorMetrics"]

MS_PER_SEC: Final = 1000.0
DAY_SECS: Final = 86_400.0
#: What detections call the score.
SCORE: Final = "score"
#: Reasons of `stream.watch` and `stream.monitor_state`. Whatever is known to be countable begins at 0: of a series that
#: begins with a burst, increase() never shows the burst.
TELEMETRY_ASIDE: Final = (
    *("ahead", "behind", "unknown_model", "no_reference", "other_reference", "other_bins"),
    *("no_feature", "unknown_feature", "sample", "too_large", "offsets"),
)
#: From an investigator's minute to a chargeback's four months.
DELAY_SECS: Final = (
    *(60.0, 600.0, 3_600.0, 6 * 3_600.0, 12 * 3_600.0),
    *(days * DAY_SECS for days in (1, 2, 3, 5, 7, 14, 21, 30, 45, 60, 90, 120)),
)

_OF_FEATURE: Final = (
    ("psi", "Population stability index against the reference, over drift.window.", "psi"),
    ("js", "Jensen-Shannon divergence from the reference, nats.", "jensen_shannon"),
    ("chi2_p_value", "How likely a difference as large is by chance, by chi-squared over the bins.", "chi_squared_p"),
    ("ks", "Kolmogorov-Smirnov distance from the reference, over the bins.", "ks"),
    ("missing_ratio", "Share of missing values over drift.window.", "missing"),
    ("alarm", "1 while feature_drift is open for this feature, else 0.", "alarm"),
)
_OF_QUALITY: Final = (
    ("labelled_events", "Labelled decisions that the figures rest on.", "events", ""),
    ("frauds", "Frauds among them.", "frauds", ""),
    ("label_rate", "Share of frauds among them.", "label_rate", ""),
    ("roc_auc", "Chance that a fraud scored above an honest payment.", "roc_auc", ""),
    ("average_precision", "Average precision.", "average_precision", ""),
    ("brier", "Mean squared error of the scores.", "brier", ""),
    ("calibration_ratio", "Frauds expected by the scores over those that came.", "calibration_ratio", ""),
    ("precision", "Share of frauds among what was stopped.", "review_precision", "review"),
    ("precision", "", "decline_precision", "decline"),
    ("recall", "Share of frauds that were stopped.", "review_recall", "review"),
    ("recall", "", "decline_recall", "decline"),
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
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def read_back(self, topic: str, done: int, total: int) -> None:
        self.lag(topic, total - done)

    def caught_up(self, watch: WatchSnapshot | None) -> None:
        with self._lock:
            self._caught_up = True
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

    def left(self) -> None:
        with self._lock:
            self._up = self._caught_up = False

    def _note_uncovered(self, watch: WatchSnapshot) -> None:
        """Keep the most so far: a late record heals a gap, and a counter that falls would look like a restart."""
        for partition in {*watch.coverage, *watch.totals.uncovered}:
            since = watch.totals.uncovered.get(partition, 0) - self._before.uncovered.get(partition, 0)
            self._uncovered[partition] = max(self._uncovered.get(partition, 0), since)

    # What a scrape shows.

    def collect(self) -> Iterable[Metric]:
        """Return everything at one moment."""
        with self._lock:
            return [*self._of_monitor(), *self._of_labels(), *self._of_watch(), *self._of_quality()]

    def _of_monitor(self) -> Iterator[Metric]:
        yield _gauge("monitor_up", "1 until the monitor has left its group, then 0.", self._up)
        yield _gauge("monitor_start_time_seconds", "Start of the monitor since the Unix epoch.", self._started_at)
        yield _gauge("monitor_caught_up", "1 once it has read back and judges, else 0.", self._caught_up)
        yield _gauges("monitor_lag_records", "Records not read yet.", ["topic"], _by_one(self._lags))
        yield _counts("monitor_records", "Records read.", ["topic"], _by_one(self._records))
        yield _counts("monitor_set_aside_records", "Records that say nothing.", ["topic", "reason"], self._aside)
        yield _counts("monitor_alerts", "Alerts raised.", ["signal"], _by_one(self._alerts))

    def _of_labels(self) -> Iterator[Metric]:
        yield _counts("labels", "Labels, by what became of them.", ["outcome"], _by_one(self._labels))
        yield _counts("labelled", "Labelled decisions read.", ["label"], _by_one(self._labelled))
        yield HistogramMetricFamily(
            "fraudstream_label_delay_seconds",
            "From a payment to its label.",
            self._delays.buckets,
            self._delays.sum,
        )
        if self._last_label_at is not None:
            yield _gauge(
                "label_last_timestamp_seconds", "When a label was last read, since the epoch.", self._last_label_at
            )
        if self._index is not None:
            for name, about, value in zip(
                ("index_decisions", "index_bytes", "pending_labels"),
                ("Decisions that wait for labels.", "What the index takes on disk.", "Labels that wait for decisions."),
                self._index,
                strict=True,
            ):
                yield _gauge(f"joiner_{name}", about, value)

    def _of_watch(self) -> Iterator[Metric]:
        watch = self._watch
        firing: Tally[str] = Tally(dict.fromkeys(SIGNALS, 0))
        if watch is not None:
            firing.update(alert.signal for alert in watch.alerts)
        if self._quality is not None:
            firing.update(alarm.signal for alarm in self._quality.open)
        yield _gauges("monitor_alerts_firing", "Alerts that are open.", ["signal"], _by_one(firing))
        if watch is None:
            return
        if watch.at_ms is not None:
            age = max(0.0, self._now() - watch.at_ms / MS_PER_SEC)
            yield _gauge("monitor_interval_age_seconds", "Time since the newest interval that was applied.", age)
        yield _gauge("telemetry_workers", "Workers heard of in the last minute.", len(watch.workers))
        unknown = bool(watch.unknown_models)
        yield _gauge("telemetry_unknown_model", "1 while records name a model without a reference.", unknown)
        yield from self._since_caught_up(watch)
        yield from _of_models(watch.models)
        yield _gauges(
            "decision_share",
            "Share of a segment's decisions over drift.window.",
            ["segment", "decision"],
            {(segment, name): share for segment, mix in watch.mix.items() for name, share in mix.shares.items()},
        )
        yield _gauges(
            "decision_mix_psi",
            "Index of the decisions against one drift.rhythm before.",
            ["segment"],
            {(segment,): mix.psi for segment, mix in watch.mix.items()},
        )
        yield _gauges(
            "decision_mix_alarm",
            "1 while such an alert is open, else 0.",
            ["segment"],
            {(segment,): mix.alarm for segment, mix in watch.mix.items()},
        )

    def _since_caught_up(self, watch: WatchSnapshot) -> Iterator[Metric]:
        totals, before = watch.totals, self._before
        for name, about, now, then in (
            ("events", "Transactions that telemetry tells of.", totals.events, before.events),
            ("late_records", "Records that came after their interval was closed.", totals.late, before.late),
            ("repeated_records", "Records that were read before.", totals.repeated, before.repeated),
            ("lost_records", "Records missing between those that came.", totals.lost, before.lost),
        ):
            yield _counts(f"telemetry_{name}", about, [], {(): max(0, now - then)})
        yield _counts(
            "telemetry_uncovered_offsets",
            "Committed offsets that no telemetry covers.",
            ["partition"],
            {(str(partition),): count for partition, count in self._uncovered.items()},
        )
        yield _counts(
            "detector_alarms",
            "Detections of River's detectors.",
            ["detector", "subject"],
            {
                key: max(0, totals.detections.get(key, 0) - before.detections.get(key, 0))
                for key in {**_detectable(watch.models), **totals.detections}
            },
        )
        yield _counts(
            "telemetry_set_aside",
            "Parts of telemetry that count for nothing.",
            ["reason"],
            {
                (reason,): max(0, totals.set_aside.get(reason, 0) - before.set_aside.get(reason, 0))
                for reason in {**dict.fromkeys(TELEMETRY_ASIDE), **totals.set_aside}
            },
        )

    def _of_quality(self) -> Iterator[Metric]:
        if self._quality is None:
            return
        families: dict[str, GaugeMetricFamily] = {}
        for name, about, attribute, threshold in _OF_QUALITY:
            labels = ["model", "segment", *(["threshold"] if threshold else [])]
            if name not in families:
                families[name] = GaugeMetricFamily(f"fraudstream_quality_{name}", about, labels=labels)
            for (model, segment), figures in self._quality.figures.items():
                value = _figure(figures, attribute)
                if value is not None:
                    families[name].add_metric([model, segment, *([threshold] if threshold else [])], value)
        yield from families.values()
        yield _gauges(
            "concept_drift_alarm", "1 while errors are more than before.", ["model", "detector"], self._quality.concept
        )
        yield _gauges(
            "label_rate_drift_alarm",
            "1 while the share of frauds among labels is another than before.",
            ["model"],
            _by_one(self._quality.label_rate),
        )


def _of_models(models: Mapping[str, ModelState]) -> Iterator[Metric]:
    for name, about, attribute in _OF_FEATURE:
        yield _gauges(
            f"drift_{name}",
            about,
            ["model", "feature"],
            {
                (version, feature): _drift(subject, attribute)
                for version, model in models.items()
                for feature, subject in model.features.items()
            },
        )
    yield _gauges(
        "missing_alarm",
        "1 while feature_missing is open for this feature, else 0.",
        ["model", "feature"],
        {
            (version, feature): subject.missing_alarm
            for version, model in models.items()
            for feature, subject in model.features.items()
        },
    )
    yield _gauges(
        "detector_alarm",
        "1 while detector_drift is open for this feature, or for the score, else 0.",
        ["model", "feature"],
        {
            (version, feature): subject.detector_alarm
            for version, model in models.items()
            for feature, subject in {**model.features, SCORE: model.score}.items()
        },
    )
    score = {(version,): model.score for version, model in models.items()}
    yield _gauges(
        "score_psi", "The same of the score.", ["model"], {key: subject.psi for key, subject in score.items()}
    )
    yield _gauges(
        "score_drift_alarm",
        "1 while score_drift is open, else 0.",
        ["model"],
        {key: subject.alarm for key, subject in score.items()},
    )
    told = {(version,): model.adversarial for version, model in models.items() if model.adversarial is not None}
    yield _gauges(
        "adversarial_auc",
        "How well a classifier tells the traffic from that one rhythm before.",
        ["model"],
        {key: state.auc for key, state in told.items()},
    )
    yield _gauges(
        "adversarial_alarm", "1 while it tells them apart.", ["model"], {key: one.alarm for key, one in told.items()}
    )


def _drift(subject: object, attribute: str) -> float | None:
    value: float | None = getattr(subject, attribute)
    return value


def _detectable(models: Mapping[str, ModelState]) -> dict[tuple[str, str], None]:
    """Return every (detector, subject) that can be detected."""
    return {
        (detector, subject): None
        for model in models.values()
        for subject in (*model.features, SCORE)
        for detector in DETECTORS
    }


def _figure(figures: Figures, attribute: str) -> float | None:
    value: float | None = getattr(figures, attribute)
    return value


def _by_one(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(name,): value for name, value in values.items()}


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fraudstream_{name}", about, float(value))


def _gauges(name: str, about: str, labels: list[str], values: Mapping[Any, float | None]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"fraudstream_{name}", about, labels=labels)
    for key, value in values.items():
        if value is not None:
            family.add_metric(list(key), float(value))
    return family


def _counts(name: str, about: str, labels: list[str], values: Mapping[Any, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"fraudstream_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family
