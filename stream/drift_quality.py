"""The labels that came in a period, as figures of quality by model and segment."""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import xxhash

from models.drift_report import LabelMoment, Quality
from models.policy import OUTCOMES
from models.quality_figures import Figures, Labelled, figures
from stream.drift_period import DriftPeriod
from stream.labelled_record import LabelledDecision

__all__ = ["LabelsOfPeriod"]

#: The figures, those that say how many apart.
FIGURES: Final = tuple(one.name for one in fields(Figures) if one.name not in ("events", "frauds"))


@dataclass(slots=True)
class _Counts:
    frauds: int = 0
    honest: int = 0


class LabelsOfPeriod:
    """Labelled decisions whose record was written in the period; of a transaction's labels the last one counts."""

    def __init__(self, period: DriftPeriod) -> None:
        self._period = period
        self._last: dict[tuple[str, str], LabelledDecision] = {}
        self._by_stretch: dict[int, _Counts] = {}
        self.unknown_decisions = 0

    def __len__(self) -> int:
        """Return how many transactions are labelled."""
        return len(self._last)

    def add(self, record: LabelledDecision, timestamp_ms: int) -> None:
        """Take a record and its Kafka timestamp, in the topic's order."""
        if not self._period.since_ms <= timestamp_ms < self._period.until_ms:
            return
        if record.decision not in OUTCOMES:
            self.unknown_decisions += 1
            return
        counts = self._by_stretch.setdefault(self._period.stretch(timestamp_ms), _Counts())
        counts.frauds += record.is_fraud
        counts.honest += not record.is_fraud
        self._last[record.user_id, record.transaction_id] = record

    def moments(self) -> list[LabelMoment]:
        """Return how many labels came, by stretch."""
        found = []
        for at in range(self._period.stretches):
            counts = self._by_stretch.get(at, _Counts())
            found.append(LabelMoment(*self._period.bounds(at), counts.frauds, counts.honest))
        return found

    def younger(self, delay_ms: int) -> Counter[str]:
        """Return how many of each model's labelled decisions are younger than this at the period's end."""
        oldest_ms = self._period.until_ms - delay_ms
        return Counter(one.model for one in self._last.values() if one.event_time > oldest_ms)

    def quality(self, min_frauds: int) -> list[Quality]:
        """Return each model's figures, its segments after the whole of it, those of most labels first."""
        records = list(self._last.values())
        models = sorted({one.model for one in records})
        found = []
        for model in models:
            of_model = [one for one in records if one.model == model]
            segments = sorted({one.segment for one in of_model})
            parts = {name: [one for one in of_model if one.segment == name] for name in segments if name}
            found.append(_quality(model, "", of_model, min_frauds))
            found += sorted(
                (_quality(model, name, part, min_frauds) for name, part in parts.items()),
                key=lambda one: (-one.events, one.segment),
            )
        return found


def _quality(model: str, segment: str, records: list[LabelledDecision], min_frauds: int) -> Quality:
    found = figures(_columns(records), min_frauds)
    return Quality(model, segment, found.events, found.frauds, {name: getattr(found, name) for name in FIGURES})


def _columns(records: list[LabelledDecision]) -> Labelled:
    outcomes: dict[str, Any] = {name: number for number, name in enumerate(OUTCOMES)}
    return Labelled(
        np.array([one.score for one in records], np.float64),
        np.array([one.is_fraud for one in records], np.bool_),
        np.array([outcomes[one.decision] for one in records], np.uint8),
        np.array([one.weight for one in records], np.float64),
        np.array([xxhash.xxh3_64_intdigest(one.user_id.encode()) for one in records], np.uint64),
        np.zeros(len(records), np.int64),
    )
