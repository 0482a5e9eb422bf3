"""Every metric, label and label value that the code can emit: its own observers, told of everything once.

A live process shows only what has happened to it; here also families without a sample have their labels, and labels
whose values the code itself chooses have all of them.
"""

from prometheus_client import CollectorRegistry

from models.quality_detectors import SEQUENCES
from models.quality_figures import Figures
from models.quality_watch import QualitySnapshot
from stream.metrics import PrometheusObserver
from stream.monitor_metrics import MonitorMetrics
from stream.monitor_service import countable
from stream.observer import BatchReport
from stream.settings import Settings
from stream.watch_snapshot import (
    AdversarialState,
    CoverageState,
    MixState,
    ModelState,
    SubjectState,
    Totals,
    WatchSnapshot,
)

#: Labels whose values are the user's: models, features, segments, partitions, hosts.
OPEN = {"instance", "model", "engine", "feature_set", "state", "feature", "subject", "segment", "partition"}

Emitted = dict[str, dict[str, set[str]]]


def emitted() -> Emitted:
    """Return, by the name of a series, its labels and the values seen of each; those of OPEN mean nothing."""
    found: Emitted = {}
    for registry in (worker(), monitor()):
        for family in registry.collect():
            names = getattr(family, "_labelnames", ())
            for name in series(family.name, family.type):
                labels = found.setdefault(name, {label: set() for label in names})
                if name.endswith("_bucket"):
                    labels.setdefault("le", set())
            for sample in family.samples:
                for label, value in sample.labels.items():
                    found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
    return found


def series(name: str, kind: str) -> list[str]:
    """Return the names of a family's series."""
    if kind == "counter":
        return [f"{name}_total"]
    if kind == "histogram":
        return [f"{name}_{part}" for part in ("bucket", "sum", "count")]
    return [f"{name}_info"] if kind == "info" else [name]


def worker() -> CollectorRegistry:
    """Return the registry of a worker to which everything has happened."""
    observer = PrometheusObserver()
    observer.started(model="m", engine="forest", feature_set="f", state="s")
    observer.recovering(0, replay_from=0, live_from=1, reason="assigned")
    observer.assigned([0])
    observer.live(0)
    observer.batch(BatchReport(events=1, stage_secs={"decode": 0.1}))
    return observer.registry


def monitor() -> CollectorRegistry:
    """Return the registry of a monitor that has something to say of everything."""
    settings = Settings()
    topics = settings.topics
    metrics = MonitorMetrics(aside=countable(settings))
    for topic in (topics.telemetry, topics.labelled, topics.decisions, topics.labels):
        metrics.lag(topic, 0)
    for topic in (topics.telemetry, topics.labelled):
        metrics.read(topic)
    metrics.live()
    metrics.index(1, 1, 1)
    metrics.last_label(1, 1)
    subject = SubjectState(1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5, missing=0.1)
    model = ModelState("m", 1, {"amount": subject}, subject, {}, AdversarialState(1, 0.5, 0.7, 1, ()))
    mix = {"": MixState(1, dict.fromkeys(("approve", "review", "decline"), 0.3), 0.1)}
    watch = WatchSnapshot(1, True, ("w",), {"m": model}, (), mix, {0: CoverageState(0, 1)}, (), Totals())
    figures = Figures(1, 1, *([0.5] * 9))
    concept = {("m", detector): False for sequence, detector in SEQUENCES if sequence != "label_rate"}
    metrics.caught_up(watch)
    metrics.state(watch, QualitySnapshot({("m", ""): figures}, concept, {"m": False}, (), 0, 0))
    return metrics.registry
