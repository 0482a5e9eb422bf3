"""Quality from labels that come late: when a label counts, what is computed, when something is told.

A decision counts from the moment that both its label is known and it is `delay` old:

    event          label early                          label late
    ──┬──────────────┬───────────┬──────────────────────────┬────────▶  stream's clock
      │◀───────── delay ────────▶│                          │
                                 counts (early label)       counts (late label)          … until a window later

Frauds are found early, honest payments are known late, if ever. Counted at once, the figures of a new model's first
days would be about the frauds that are easy to find; waiting gives each decision's label the same time to come. Each
decision then counts for one window, whatever its label, so frauds do not weigh more for being found soon.

The clock is the greatest record timestamp so far; what happens at a time is a function of the records before it. At
each multiple of `every` the figures are computed and compared; nothing happens in between. A label that contradicts a
former one takes its place; detectors, which cannot take back, have seen the former if it counted.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from models.folds import DAY_MS
from models.policy import APPROVE
from models.quality_detectors import CONCEPT, Alarm, Detectors
from models.quality_drop import CLEAR_ERRORS, RAISE_ERRORS, Comparison, compare
from models.quality_figures import Figures, Labelled, figures
from models.quality_rows import Decided, Rows

#: Versions whose figures are kept; of more, the one that was labelled longest ago is forgotten.
MAX_MODELS: Final = 8
ALL: Final = ""
OTHER: Final = "other"

Signal = Literal["quality_drop", "concept_drift", "label_rate_drift"]


@dataclass(frozen=True, slots=True)
class Change:
    """Something begins to be wrong with a model's quality, or is well again. Times: epoch ms of the stream's clock."""

    raised: bool
    signal: Signal
    model: str
    subject: str
    statistic: str
    value: float | None
    bound: float | None
    since_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class QualitySnapshot:
    """What there is to show. figures: by model and segment, "" being all; open: what has begun and not ended.

    labelled_at_ms: greatest timestamp of a labelled decision's record, epoch ms, 0 before the first; the clock, which
    goes on without labels, does not tell.
    """

    figures: Mapping[tuple[str, str], Figures]
    concept: Mapping[tuple[str, str], bool]
    label_rate: Mapping[str, bool]
    open: tuple[Change, ...]
    pending: int
    size_bytes: int
    labelled_at_ms: int = 0


@dataclass(slots=True)
class _Model:
    rows: Rows
    detectors: Detectors
    firing: dict[str, int] = field(default_factory=dict)  # statistic of quality_drop: since when
    expiry_ms: int | None = None
    changed: bool = False  # since it was compared
    stale: bool = False  # since figures were computed
    figures: dict[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pending:
    number: int
    model: str
    row: Decided
    feed: bool


class QualityWatch:
    """Figures, comparisons and detectors of every model. All durations in ms.

    holdout: metrics of a version's bundle, None while they are not known.
    """

    def __init__(
        self,
        *,
        window_ms: int,
        delay_ms: int,
        every_ms: int,
        max_events: int,
        min_frauds: int,
        max_segments: int,
        holdout: Callable[[str], Mapping[str, float] | None],
    ) -> None:
        self._window_ms, self._delay_ms, self._every_ms = window_ms, delay_ms, every_ms
        self._max_events, self._min_frauds, self._max_segments = max_events, min_frauds, max_segments
        self._holdout = holdout
        self._models: dict[str, _Model] = {}  # the one labelled longest ago first
        self._pending: dict[tuple[str, int], _Pending] = {}  # in order of arrival
        self._due: list[tuple[int, int, tuple[str, int]]] = []
        self._number = 0
        self._clock_ms = self._done_ms = self._labelled_at_ms = 0
        self._live = False

    @property
    def clock_ms(self) -> int:
        """The stream's clock, epoch ms; 0 before the first record."""
        return self._clock_ms

    def label(
        self,
        model: str,
        row: Decided,
        *,
        event_time_ms: int,
        label_time_ms: int,
        at_ms: int,
        former: bool | None,
    ) -> list[Change]:
        """Take a labelled decision; at_ms is its record's timestamp. Return what begins or ends by it."""
        changes = self.advance(at_ms)
        self._labelled_at_ms = max(self._labelled_at_ms, at_ms)
        now, key = self._clock_ms, (model, row.id)
        feed = former is None
        if former is not None:
            waiting = self._pending.pop(key, None)
            feed = waiting is not None and waiting.feed
            if waiting is None and model in self._models and self._models[model].rows.take_back(row.id):
                self._models[model].changed = self._models[model].stale = True
        # A clock that runs ahead elsewhere must not make a label count later than now and its delay.
        due = max(min(label_time_ms, now), min(event_time_ms, now) + self._delay_ms)
        self._number += 1
        pending = _Pending(self._number, model, row, feed)
        if due <= now:
            return changes + self._count(pending, due, now)
        self._pending[key] = pending
        heapq.heappush(self._due, (due, self._number, key))
        if len(self._pending) > self._max_events:
            changes += self._count(self._pending.pop(next(iter(self._pending))), now, now)
        return changes

    def advance(self, to_ms: int) -> list[Change]:
        """Let the clock reach this time (it never goes back) and return what begins or ends by then."""
        changes: list[Change] = []
        if not self._clock_ms:
            self._done_ms = to_ms // self._every_ms * self._every_ms
        self._clock_ms = max(self._clock_ms, to_ms)
        last = self._clock_ms // self._every_ms * self._every_ms
        while self._done_ms < last:
            self._done_ms = min(last, max(self._done_ms + self._every_ms, self._next_ms(last)))
            changes += self._mature(self._done_ms)
            changes += self._look(self._done_ms)
        return changes + self._mature(self._clock_ms)

    def go_live(self, firing: Iterable[Change] = ()) -> None:
        """End reading back: compute figures from now on. firing: drops of quality that have been told and not ended."""
        self._live = True
        for one in firing:
            if one.signal == "quality_drop" and one.at_ms <= self._done_ms:
                self._model(one.model).firing[one.statistic] = one.since_ms
        for model in self._models.values():
            self._compute(model, self._clock_ms)

    def refresh(self) -> None:
        """Compute the figures to be shown as of now; nothing is compared, so this may be done at any time."""
        for model in self._models.values():
            if model.stale:
                self._compute(model, self._clock_ms)

    def snapshot(self) -> QualitySnapshot:
        """Return what there is to show, as last computed."""
        models = self._models
        return QualitySnapshot(
            figures={(name, segment): one for name, model in models.items() for segment, one in model.figures.items()},
            concept={
                (name, detector): any(a.detector == detector and a.sequence in CONCEPT for a in model.detectors.alarms)
                for name, model in models.items()
                for detector in ("ddm", "adwin")
            },
            label_rate={
                name: any(alarm.sequence not in CONCEPT for alarm in model.detectors.alarms)
                for name, model in models.items()
            },
            open=tuple(one for name, model in models.items() for one in _open(name, model)),
            pending=len(self._pending),
            size_bytes=sum(model.rows.size_bytes for model in models.values()),
            labelled_at_ms=self._labelled_at_ms,
        )

    def _next_ms(self, last_ms: int) -> int:
        """Return the first multiple of `every` at which anything can be another than before."""
        if any(model.changed for model in self._models.values()):
            return 0
        times = [self._due[0][0]] if self._due else []
        for model in self._models.values():
            times += [at for at in (model.expiry_ms, model.detectors.next_over_ms) if at is not None]
        return -(-min(times, default=last_ms) // self._every_ms) * self._every_ms

    def _mature(self, to_ms: int) -> list[Change]:
        """Count what has waited for its delay."""
        changes = []
        while self._due and self._due[0][0] <= to_ms:
            due, number, key = heapq.heappop(self._due)
            pending = self._pending.get(key)
            if pending is not None and pending.number == number:
                del self._pending[key]
                changes += self._count(pending, due, due)
        return changes

    def _count(self, pending: _Pending, counted_at_ms: int, at_ms: int) -> list[Change]:
        model, row = self._model(pending.model), pending.row
        model.rows.add(row, counted_at_ms, self._clock_ms)
        model.changed = model.stale = True
        if not pending.feed:
            return []
        alarms = model.detectors.feed(row.fraud, row.outcome == APPROVE, at_ms)
        return [_told(pending.model, alarm, at_ms, raised=True) for alarm in alarms]

    def _look(self, at_ms: int) -> list[Change]:
        """Compute, compare, and end what is over."""
        changes = []
        for name, model in self._models.items():
            changes += [_told(name, alarm, at_ms, raised=False) for alarm in model.detectors.over(at_ms)]
            expired = model.expiry_ms is not None and model.expiry_ms <= at_ms
            if not (model.changed or expired):
                continue
            model.changed = False
            if self._live:
                rows = self._compute(model, at_ms)
                changes += self._compare(name, model, rows, at_ms)
        return changes

    def _compute(self, model: _Model, at_ms: int) -> Labelled:
        rows, names = model.rows.now(at_ms)
        model.stale = False
        model.expiry_ms = model.rows.next_expiry_ms(at_ms)
        model.figures = {ALL: figures(rows, self._min_frauds)}
        for segment, part in _by_segment(rows, names, self._max_segments):
            model.figures[segment] = figures(part, self._min_frauds)
        return rows

    def _compare(self, name: str, model: _Model, rows: Labelled, at_ms: int) -> list[Change]:
        holdout = self._holdout(name)
        compared = {} if holdout is None else {c.statistic: c for c in compare(rows, holdout, self._min_frauds)}
        if holdout is None:
            return []
        changes = []
        for statistic in [statistic for statistic in model.firing if _is_over(compared.get(statistic))]:
            since = model.firing.pop(statistic)
            changes.append(_drop(name, statistic, compared.get(statistic), since, at_ms, raised=False))
        for statistic, one in compared.items():
            if one.dropped and statistic not in model.firing:
                model.firing[statistic] = at_ms
                changes.append(_drop(name, statistic, one, at_ms, at_ms, raised=True))
        return changes

    def _model(self, name: str) -> _Model:
        model = self._models.pop(name, None)
        if model is None:
            # Half of what is read back holds the whole epoch before this one, and thus every alarm that is still on.
            detectors = Detectors(max(1, self._window_ms // 2), DAY_MS, self._min_frauds)
            model = _Model(Rows(self._window_ms, self._max_events), detectors)
        self._models[name] = model
        if len(self._models) > MAX_MODELS:
            del self._models[next(iter(self._models))]
        return model


def _by_segment(rows: Labelled, names: list[str], most: int) -> list[tuple[str, Labelled]]:
    """Return the rows of each segment; beyond the `most` with the most rows, the others as one."""
    counts = np.bincount(rows.segments, minlength=len(names))
    ranked = sorted((-count, name, number) for number, (name, count) in enumerate(zip(names, counts, strict=True)))
    told = {number: name for count, name, number in ranked[:most] if count and name != ALL}
    order = np.argsort(rows.segments, kind="stable")
    ends = np.cumsum(counts)
    parts = {number: order[ends[number] - counts[number] : ends[number]] for number in range(len(names))}
    found = {name: [parts[number]] for number, name in told.items()}
    rest = [parts[number] for number in parts if number not in told and names[number] != ALL and len(parts[number])]
    if rest:
        found.setdefault(OTHER, []).extend(rest)
    return [(name, rows.take(np.concatenate(places))) for name, places in sorted(found.items())]


def _open(name: str, model: _Model) -> list[Change]:
    drops = [_drop(name, statistic, None, since, since, raised=True) for statistic, since in model.firing.items()]
    return [*drops, *(_told(name, alarm, alarm.since_ms, raised=True) for alarm in model.detectors.alarms)]


def _is_over(comparison: Comparison | None) -> bool:
    """A drop is over where the figure is back, or is none any more."""
    return comparison is None or comparison.recovered


def _drop(model: str, statistic: str, one: Comparison | None, since_ms: int, at_ms: int, *, raised: bool) -> Change:
    bound = None if one is None else one.bound(RAISE_ERRORS if raised else CLEAR_ERRORS)
    value = None if one is None else one.value
    subject = "review" if statistic == "review_recall" else ""
    return Change(raised, "quality_drop", model, subject, statistic, value, bound, since_ms, at_ms)


def _told(model: str, alarm: Alarm, at_ms: int, *, raised: bool) -> Change:
    signal: Signal = "concept_drift" if alarm.sequence in CONCEPT else "label_rate_drift"
    subject = alarm.sequence if alarm.sequence in CONCEPT else ""
    return Change(raised, signal, model, subject, alarm.detector, alarm.value, alarm.before, alarm.since_ms, at_ms)
