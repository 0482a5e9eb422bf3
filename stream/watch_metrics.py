"""What the watch knows, as families of a scrape.

Gauges show the snapshot. Counters show how much was counted since `before`, the totals at the moment at which reading
back was over, so that a restart is no sudden rise.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import Metric

from models.drift_detectors import DETECTORS
from stream.families import counts, gauge, gauges
from stream.watch_panes import SCORE as WATCHED_SCORE
from stream.watch_snapshot import ASIDES, ModelState, SubjectState, Totals, WatchSnapshot

__all__ = ["watch_families"]

MS_PER_SEC: Final = 1000.0
#: What the score is called among the values of a label.
SCORE: Final = "score"

_OF_SUBJECT: Final[dict[str, tuple[str, Callable[[SubjectState], float | None]]]] = {
    "drift_psi": ("Population stability index against the reference, over drift.window.", lambda one: one.psi),
    "drift_past_psi": ("The same against one drift.rhythm before.", lambda one: one.psi_past),
    "drift_long_psi": (
        "Population stability index of the last whole drift.rhythm against the reference.",
        lambda one: one.psi_long,
    ),
    "drift_kl": ("Kullback-Leibler divergence from the reference, nats.", lambda one: one.kullback_leibler),
    "drift_superiority": (
        "Chance that a value of drift.window lies above one of the reference; 0.5 where nothing moved.",
        lambda one: one.superiority,
    ),
    "drift_js": ("Jensen-Shannon divergence from the reference, nats.", lambda one: one.jensen_shannon),
    "drift_chi2_p_value": (
        "How likely a difference as large is by chance, by chi-squared over the bins.",
        lambda one: one.chi_squared_p,
    ),
    "drift_ks": ("Kolmogorov-Smirnov distance from the reference, over the bins.", lambda one: one.ks),
    "drift_missing_ratio": ("Share of missing values over drift.window.", lambda one: one.missing),
    "drift_reference_missing_ratio": ("The same in the reference.", lambda one: one.reference_missing),
    "drift_alarm": ("1 while feature_drift is open for this feature, else 0.", lambda one: one.alarm),
    "missing_alarm": ("1 while feature_missing is open for this feature, else 0.", lambda one: one.missing_alarm),
    "detector_alarm": (
        "1 while detector_drift is open for this feature, or for the score, else 0.",
        lambda one: one.detector_alarm,
    ),
}
_OF_SCORE: Final[dict[str, tuple[str, Callable[[SubjectState], float | None]]]] = {
    "score_psi": ("The same of the score.", lambda one: one.psi),
    "score_past_psi": ("The same against one drift.rhythm before.", lambda one: one.psi_past),
    "score_long_psi": (
        "Population stability index of the scores of the last whole drift.rhythm.",
        lambda one: one.psi_long,
    ),
    "score_drift_alarm": ("1 while score_drift is open, else 0.", lambda one: one.alarm),
}
_TOTALS: Final[dict[str, tuple[str, Callable[[Totals], int]]]] = {
    "events": ("Transactions that telemetry tells of.", lambda totals: totals.events),
    "late_records": ("Records that came after their interval was closed.", lambda totals: totals.late),
    "repeated_records": ("Records that were read before.", lambda totals: totals.repeated),
    "lost_records": ("Records missing between those that came.", lambda totals: totals.lost),
}


def watch_families(watch: WatchSnapshot, before: Totals, uncovered: Mapping[int, int], now: float) -> Iterator[Metric]:
    """Yield every family. uncovered: offsets by partition, a count that never falls. now: epoch seconds."""
    if watch.at_ms is not None:
        age = max(0.0, now - watch.at_ms / MS_PER_SEC)
        yield gauge("monitor_interval_age_seconds", "Time since the newest interval that was applied.", age)
    yield gauge("telemetry_workers", "Workers heard of in the last minute.", len(watch.workers))
    unknown = bool(watch.unknown_models)
    yield gauge("telemetry_unknown_model", "1 while records name a model without a reference.", unknown)
    yield from _counted(watch, before, uncovered)
    yield from _of_models(watch.models)
    yield gauges(
        "decision_share",
        "Share of a segment's decisions over drift.window.",
        ["segment", "decision"],
        {(segment, name): share for segment, mix in watch.mix.items() for name, share in mix.shares.items()},
    )
    yield gauges(
        "decision_mix_psi",
        "Index of the decisions against one drift.rhythm before.",
        ["segment"],
        {(segment,): mix.psi for segment, mix in watch.mix.items()},
    )
    yield gauges(
        "decision_mix_alarm",
        "1 while such an alert is open, else 0.",
        ["segment"],
        {(segment,): mix.alarm for segment, mix in watch.mix.items()},
    )


def _counted(watch: WatchSnapshot, before: Totals, uncovered: Mapping[int, int]) -> Iterator[Metric]:
    totals = watch.totals
    for name, (about, of) in _TOTALS.items():
        yield counts(f"telemetry_{name}", about, [], {(): max(0, of(totals) - of(before))})
    yield counts(
        "telemetry_uncovered_offsets",
        "Committed offsets that no telemetry covers.",
        ["partition"],
        {(str(partition),): count for partition, count in uncovered.items()},
    )
    found = _since(_labelled(totals.detections), _labelled(before.detections), _detectable(watch.models))
    yield counts("detector_alarms", "Detections of River's detectors.", ["detector", "subject"], found)
    aside = _since(totals.set_aside, before.set_aside, dict.fromkeys(ASIDES, 0))
    yield counts(
        "telemetry_set_aside",
        "Parts of telemetry that count for nothing.",
        ["reason"],
        {(reason,): count for reason, count in aside.items()},
    )


def _labelled(detections: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    return {(found, SCORE if of == WATCHED_SCORE else of): count for (found, of), count in detections.items()}


def _since(now: Mapping[Any, int], then: Mapping[Any, int], known: Mapping[Any, int]) -> dict[Any, int]:
    """Return what was counted since then; what is known to be countable begins at 0.

    Of a series that begins with a burst, increase() never shows the burst.
    """
    return {key: max(0, now.get(key, 0) - then.get(key, 0)) for key in {**known, **now}}


def _detectable(models: Mapping[str, ModelState]) -> dict[tuple[str, str], int]:
    """Return every (detector, subject) that can be detected."""
    return {
        (detector, subject): 0
        for model in models.values()
        for subject in (*model.features, SCORE)
        for detector in DETECTORS
    }


def _of_models(models: Mapping[str, ModelState]) -> Iterator[Metric]:
    subjects = {
        (version, name): subject for version, model in models.items() for name, subject in model.features.items()
    }
    scores = {version: model.score for version, model in models.items()}
    for name, (about, of) in _OF_SUBJECT.items():
        of_score = {(version, SCORE): score for version, score in scores.items()} if name == "detector_alarm" else {}
        each = {**subjects, **of_score}
        yield gauges(name, about, ["model", "feature"], {key: of(subject) for key, subject in each.items()})
    for name, (about, of) in _OF_SCORE.items():
        yield gauges(name, about, ["model"], {(version,): of(score) for version, score in scores.items()})
    told = {(version,): model.adversarial for version, model in models.items() if model.adversarial is not None}
    yield gauges(
        "adversarial_auc",
        "How well a classifier tells the traffic from that one rhythm before.",
        ["model"],
        {key: state.auc for key, state in told.items()},
    )
    yield gauges(
        "adversarial_alarm", "1 while it tells them apart.", ["model"], {key: one.alarm for key, one in told.items()}
    )
