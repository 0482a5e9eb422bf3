"""What a drift report says: figures of a period against what models were trained on, as one value and as JSON.

JSON    format, period, bounds, models, mix, segments, quality, labels, alerts, coverage, unknown
        times are epoch milliseconds; null where a figure does not exist or rests on too few events
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.report import render_json
from models.report_tables import plain

#: Raised when a key of the JSON goes away or changes its meaning; new keys may come at any time.
JSON_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of the period and what was seen in it. psi, missing: None where there were too few events."""

    start_ms: int
    end_ms: int
    events: int
    psi: float | None
    missing: float | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A feature, or the score, in the period against the reference.

    edges: of the bins. reference, current: counts over them, of one more than edges. psi, jensen_shannon: nats.
    significant: by Benjamini and Hochberg over the model's subjects. alerts: numbers into the report's list.
    """

    name: str
    edges: Sequence[float]
    reference: Sequence[int]
    current: Sequence[int]
    reference_missing: float
    missing: float
    psi: float
    jensen_shannon: float
    chi_squared_p: float
    ks: float
    ks_p: float
    significant: bool
    drifted: bool
    broken: bool
    over_time: Sequence[Moment] = ()
    alerts: Sequence[int] = ()

    @property
    def worst(self) -> float:
        """The greatest index of the whole period and of its stretches."""
        return max([self.psi, *(one.psi for one in self.over_time if one.psi is not None)])


@dataclass(frozen=True, slots=True)
class ModelDrift:
    """A model that scored in the period. subjects: what matters first; empty where there is no reference to compare."""

    version: str
    events: int
    compared: int
    first_ms: int
    last_ms: int
    engines: Sequence[str]
    score: Subject | None = None
    features: Sequence[Subject] = ()


@dataclass(frozen=True, slots=True)
class MixMoment:
    """Decisions of a stretch of the period, by name."""

    start_ms: int
    end_ms: int
    decisions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SegmentMix:
    """Decisions of one segment in both halves of the period; psi: of the second half against the first."""

    name: str
    first: Mapping[str, int]
    second: Mapping[str, int]
    psi: float | None

    @property
    def events(self) -> int:
        """Decisions in all."""
        return sum(self.first.values()) + sum(self.second.values())


@dataclass(frozen=True, slots=True)
class Quality:
    """How good one model's decisions were in one segment ("": all), of those whose labels came in the period."""

    model: str
    segment: str
    events: int
    frauds: int
    figures: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class LabelMoment:
    """Labels that came in a stretch of the period."""

    start_ms: int
    end_ms: int
    frauds: int
    honest: int


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert: at_ms when it was found, cleared_ms when it was over; None: not in the period."""

    signal: str
    subject: str
    segment: str
    model: str
    statistic: str
    value: float | None
    bound: float | None
    since_ms: int
    at_ms: int
    cleared_ms: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the traffic the telemetry speaks of. uncovered, covered: committed offsets by partition."""

    records: int = 0
    events: int = 0
    workers: Sequence[str] = ()
    repeated: int = 0
    lost: int = 0
    dropped: int = 0
    unreadable: int = 0
    covered: Mapping[int, int] = field(default_factory=dict)
    uncovered: Mapping[int, int] = field(default_factory=dict)
    silent_ms: Sequence[tuple[int, int]] = ()
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    set_aside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Everything; unknown: sentences about what it could not know.

    psi_bound: of a stretch of the period. whole_psi_bound: of all of it, the wider one where it is a rhythm or longer.
    """

    since_ms: int
    until_ms: int
    psi_bound: float
    whole_psi_bound: float
    missing_bound: float
    min_events: int
    models: Sequence[ModelDrift]
    mix: Sequence[MixMoment]
    segments: Sequence[SegmentMix]
    quality: Sequence[Quality]
    labels: Sequence[LabelMoment]
    alerts: Sequence[Raised]
    coverage: Coverage
    unknown: Sequence[str]

    def drifting(self) -> list[tuple[ModelDrift, Subject]]:
        """Return what drifted or broke or has an alert, worst first, the score of a model among its features."""
        found = [
            (model, one)
            for model in self.models
            for one in ([model.score] if model.score else []) + list(model.features)
            if one.drifted or one.broken or one.alerts
        ]
        return sorted(found, key=lambda pair: matters(pair[1]))


def matters(subject: Subject) -> tuple[bool, bool, float, str]:
    """Return a key that sorts what matters first: alerts, then what drifted or broke, then by the index."""
    return not subject.alerts, not (subject.drifted or subject.broken), -subject.worst, subject.name


def drift_report_json(report: DriftReport) -> bytes:
    """Return the report as indented JSON."""
    document: dict[str, Any] = {
        "format": JSON_FORMAT,
        "period": {"since_ms": report.since_ms, "until_ms": report.until_ms},
        "bounds": {
            "psi": report.psi_bound,
            "whole_psi": report.whole_psi_bound,
            "missing": report.missing_bound,
            "min_events": report.min_events,
        },
        **{
            name: plain(getattr(report, name))
            for name in ("models", "mix", "segments", "quality", "labels", "alerts", "coverage", "unknown")
        },
    }
    return render_json(document)
