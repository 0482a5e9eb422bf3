"""What the watch knows at a moment, to show: frozen, and apart from `totals` a function of the last days of the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from stream.alert_record import Alert

__all__ = [
    "ASIDES",
    "AdversarialState",
    "Aside",
    "CoverageState",
    "MixState",
    "ModelState",
    "SubjectState",
    "Totals",
    "WatchSnapshot",
]


#: Why a part of telemetry counts for nothing; `stream.watch` says what each means.
Aside = Literal[
    "ahead",
    "behind",
    "unknown_model",
    "no_reference",
    "other_reference",
    "other_bins",
    "no_feature",
    "unknown_feature",
    "sample",
    "offsets",
]
ASIDES: Final[tuple[Aside, ...]] = get_args(Aside)


@dataclass(frozen=True, slots=True)
class SubjectState:
    """A feature, or the score, over drift.window against the reference. None: too few events to say.

    psi, jensen_shannon, kullback_leibler: nats. chi_squared_p, ks_p: p-values. superiority: how likely a value of
    today lies above one of the reference. psi_past: against the same hour one drift.rhythm ago; psi_long: of the last
    whole drift.rhythm against the reference. missing, reference_missing: shares, 0 to 1. alarm, missing_alarm: whether
    such an alert is open.
    """

    events: int
    psi: float | None = None
    jensen_shannon: float | None = None
    kullback_leibler: float | None = None
    chi_squared_p: float | None = None
    ks: float | None = None
    ks_p: float | None = None
    superiority: float | None = None
    psi_past: float | None = None
    psi_long: float | None = None
    missing: float | None = None
    reference_missing: float = 0.0
    missing_alarm: bool = False
    alarm: bool = False
    detector_alarm: bool = False


@dataclass(frozen=True, slots=True)
class AdversarialState:
    """The last attempt to tell the last window's rows from those of one rhythm before.

    auc: out of fold. bound: from where it counts. features: those used most and their share of the gain, most first.
    """

    at_ms: int
    auc: float
    bound: float
    rows: int
    features: tuple[tuple[str, float], ...]
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model: events in the window, each feature, the score, detections of the epoch by (detector, subject)."""

    model: str
    events: int
    features: Mapping[str, SubjectState]
    score: SubjectState
    detections: Mapping[tuple[str, str], int]
    adversarial: AdversarialState | None = None


@dataclass(frozen=True, slots=True)
class MixState:
    """Decisions of a segment over drift.window: events, share of each decision, index against one rhythm before."""

    events: int
    shares: Mapping[str, float]
    psi: float | None = None
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class CoverageState:
    """One input partition: offsets known to be uncovered that became so within drift.window, and where it stands."""

    uncovered: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since this watch began; the only part of a snapshot that a restart sets back.

    set_aside: by reason, see `stream.watch`. uncovered: offsets by partition. detections: by (detector, subject).
    """

    records: int = 0
    events: int = 0
    late: int = 0
    repeated: int = 0
    lost: int = 0
    set_aside: Mapping[Aside, int] = field(default_factory=dict)
    uncovered: Mapping[int, int] = field(default_factory=dict)
    detections: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WatchSnapshot:
    """at_ms: end of the newest interval applied, epoch milliseconds, None before the first.

    caught: whether alerts are given (`Watch.judge_from_ms` has passed). workers: names of those heard of in the last
    minute. unknown_models: versions in the window without a reference. mix: by segment, "" for all. alerts: open ones.
    """

    at_ms: int | None
    caught: bool
    workers: tuple[str, ...]
    models: Mapping[str, ModelState]
    unknown_models: tuple[str, ...]
    mix: Mapping[str, MixState]
    coverage: Mapping[int, CoverageState]
    alerts: tuple[Alert, ...]
    totals: Totals
