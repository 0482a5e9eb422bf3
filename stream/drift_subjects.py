"""A period's counts as figures: each model's features and score against its reference, and decisions by segment."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.drift_report import MixMoment, ModelDrift, Moment, Raised, SegmentMix, Subject, matters
from models.drift_statistics import (
    chi_squared,
    jensen_shannon,
    kolmogorov_smirnov,
    missing_shift,
    psi,
    significant,
)
from stream.drift_period import DriftPeriod, ModelTraffic
from stream.watch_panes import SCORE, Layout
from stream.watch_sections import DriftSettings

__all__ = ["mix_moments", "model_drift", "segment_mixes", "whole_psi"]

#: Stretches are joined until one holds so many times what may be judged; the index of fewer is mostly chance.
ROOM: Final = 2
#: But not to fewer than so many, or nothing of time would be left.
FEWEST: Final = 8

Vector = npt.NDArray[Any]


def model_drift(
    period: DriftPeriod, traffic: ModelTraffic, drift: DriftSettings, alerts: Sequence[Raised]
) -> ModelDrift:
    """Return a model's figures, what matters first; without a reference only how much it scored."""
    layout = traffic.layout
    subjects: list[Subject] = []
    if layout is not None and traffic.compared:
        subjects = _subjects(period, traffic, layout, drift, alerts)
    return ModelDrift(
        version=traffic.version,
        events=sum(traffic.events.values()),
        compared=traffic.compared,
        first_ms=traffic.first_ms,
        last_ms=traffic.last_ms,
        engines=sorted(traffic.engines),
        score=next((one for one in subjects if one.name == SCORE), None),
        features=sorted((one for one in subjects if one.name != SCORE), key=matters),
    )


def whole_psi(since_ms: int, until_ms: int, drift: DriftSettings) -> float:
    """Return the index from which a whole period has drifted: as the watch has it, another for a rhythm and longer."""
    return drift.day_psi if until_ms - since_ms >= drift.rhythm else drift.psi


def _subjects(
    period: DriftPeriod, traffic: ModelTraffic, layout: Layout, drift: DriftSettings, alerts: Sequence[Raised]
) -> list[Subject]:
    total = sum(traffic.vectors.values(), np.zeros(layout.size, np.int64))
    length = _joining(traffic, period.stretches, drift.min_events)
    joined = {
        first: sum(
            (traffic.vectors[at] for at in range(first, first + length) if at in traffic.vectors),
            np.zeros(layout.size, np.int64),
        )
        for first in range(0, period.stretches, length)
    }
    bound = whole_psi(period.since_ms, period.until_ms, drift)
    rows = range(len(layout.names))
    tests = [chi_squared(layout.known(layout.reference, row), layout.known(total, row)).p_value for row in rows]
    lost = [_missing(layout, total, row) for row in rows]
    sure = significant(np.array([*tests, *(one.p_value for one in lost)]), drift.false_alarms)
    found = []
    for row, name in enumerate(layout.names):
        reference, current = layout.known(layout.reference, row), layout.known(total, row)
        index = psi(reference, current)
        distance = kolmogorov_smirnov(reference, current)
        subject = "" if name == SCORE else name
        judged = traffic.compared >= drift.min_events
        found.append(
            Subject(
                name=name,
                edges=layout.edges[row].tolist(),
                reference=reference.tolist(),
                current=current.tolist(),
                reference_missing=lost[row].reference,
                missing=lost[row].current,
                psi=index,
                jensen_shannon=jensen_shannon(reference, current),
                chi_squared_p=tests[row],
                ks=distance.statistic,
                ks_p=distance.p_value,
                significant=bool(sure[row]),
                drifted=judged and bool(sure[row]) and index >= bound,
                broken=judged and bool(sure[len(rows) + row]) and abs(lost[row].difference) >= drift.missing,
                over_time=[
                    _moment(layout, vector, row, period.bounds(first, length), drift.min_events)
                    for first, vector in joined.items()
                ],
                alerts=[
                    number
                    for number, one in enumerate(alerts)
                    if one.model == traffic.version and _about(one, name, subject)
                ],
            )
        )
    return found


def _about(alert: Raised, name: str, subject: str) -> bool:
    if alert.signal == "score_drift":
        return name == SCORE
    return alert.signal in ("feature_drift", "feature_missing", "detector_drift") and alert.subject in (name, subject)


def _missing(layout: Layout, vector: Vector, row: int) -> Any:
    before, now = layout.missing(layout.reference, row), layout.missing(vector, row)
    return missing_shift(
        before, before + int(layout.known(layout.reference, row).sum()), now, now + int(layout.known(vector, row).sum())
    )


def _moment(layout: Layout, vector: Vector, row: int, bounds: tuple[int, int], least: int) -> Moment:
    current = layout.known(vector, row)
    known, missing = int(current.sum()), layout.missing(vector, row)
    events = known + missing
    return Moment(
        *bounds,
        events,
        psi(layout.known(layout.reference, row), current) if known >= least else None,
        missing / events if events >= least else None,
    )


def _joining(traffic: ModelTraffic, stretches: int, least: int) -> int:
    """Return how many stretches are joined so that most of them hold enough events to be judged."""
    length = 1
    seen = max(1, len(traffic.vectors))
    while traffic.compared / seen * length < ROOM * least and stretches / (2 * length) >= FEWEST:
        length *= 2
    return length


def mix_moments(period: DriftPeriod) -> list[MixMoment]:
    """Return the decisions of all segments by stretch."""
    moments = []
    for at in range(period.stretches):
        decisions: Counter[str] = Counter()
        for (_, decision), count in period.mix.get(at, {}).items():
            decisions[decision] += count
        moments.append(MixMoment(*period.bounds(at), dict(decisions)))
    return moments


def segment_mixes(period: DriftPeriod, drift: DriftSettings) -> list[SegmentMix]:
    """Return each segment's decisions in both halves of the period, the one that changed most first."""
    halves: list[dict[str, Counter[str]]] = [{}, {}]
    for at, mix in period.mix.items():
        half = halves[2 * at >= period.stretches]
        for (segment, decision), count in mix.items():
            half.setdefault(segment, Counter())[decision] += count
    found = []
    for name in sorted({*halves[0], *halves[1]}):
        first, second = (dict(half.get(name, Counter())) for half in halves)
        decisions = sorted({*first, *second})
        before, after = (np.array([each.get(one, 0) for one in decisions]) for each in (first, second))
        enough = min(before.sum(), after.sum()) >= drift.min_events
        found.append(SegmentMix(name, first, second, psi(before, after) if enough else None))
    return sorted(found, key=lambda one: (one.psi is None, -(one.psi or 0.0), -one.events))
