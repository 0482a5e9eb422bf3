"""The life of an alert: raised once, when enough comparisons in a row agree; cleared once, when as many deny it.

    comparisons   ·  ✗  ✗  ✗  ✗  ~  ✗  ~  ✓  ✓  ✓  ·        persistence 3
                           ▲ raised, since the first ✗            ✗ wrong   ~ neither: between the two bounds
                                             ▲ cleared            ✓ well    · nothing to say (too few events)

A figure between its bounds breaks a row, and so does a comparison that has nothing to say; neither ends an alert.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from msgspec.structs import replace

from stream.alert_record import Alert, Signal, alert_id

__all__ = ["AlertBook", "Cause", "Finding", "open_alerts"]


class Cause(NamedTuple):
    """What an alert is about; two of the same cause are never open together."""

    signal: Signal
    subject: str
    segment: str
    model: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What one comparison says of a cause: wrong, well, or neither; and the figures behind it."""

    state: Literal["wrong", "well", "between", "unknown"]
    statistic: str
    value: float | None
    bound: float | None
    text: str


class AlertBook:
    """Alerts that are open, and how long each cause has been wrong or well.

    already: those open at judge_from_ms. Before that nothing is raised or cleared, for it was said by whoever watched
    then; rows of agreeing comparisons are counted all the same.
    """

    def __init__(self, persistence: int, already: Iterable[Alert] = (), judge_from_ms: int = 0) -> None:
        self._persistence, self.judge_from_ms = persistence, judge_from_ms
        self.open = {_cause(alert): alert for alert in already}
        self._wrong: dict[Cause, deque[int]] = {}
        self._well: dict[Cause, int] = {}

    def judge(self, cause: Cause, finding: Finding, at_ms: int, persistence: int | None = None) -> list[Alert]:
        """Take a finding; return the alert that it raises or clears. persistence: other than the usual one."""
        needed = persistence or self._persistence
        if finding.state == "wrong":
            wrong = self._wrong.setdefault(cause, deque(maxlen=needed))
            wrong.append(at_ms)
            self._well.pop(cause, None)
            if len(wrong) >= needed and cause not in self.open and at_ms >= self.judge_from_ms:
                return [self._raise(cause, finding, wrong[0], at_ms)]
            return []
        self._wrong.pop(cause, None)
        if finding.state != "well":
            self._well.pop(cause, None)
            return []
        if cause not in self.open and at_ms >= self.judge_from_ms:
            return []
        self._well[cause] = min(self._well.get(cause, 0) + 1, needed)
        if self._well[cause] >= needed and at_ms >= self.judge_from_ms:
            return [self._clear(cause, finding, at_ms)]
        return []

    def end(self, cause: Cause, text: str, at_ms: int) -> list[Alert]:
        """Clear an alert whose cause is gone, such as a model that scores no longer; nothing where none is open."""
        self._wrong.pop(cause, None)
        self._well.pop(cause, None)
        if cause not in self.open or at_ms < self.judge_from_ms:
            return []
        return [self._clear(cause, Finding("well", self.open[cause].statistic, None, None, text), at_ms)]

    def prune(self, before_ms: int) -> None:
        """Forget causes that no comparison has called wrong since then, such as segments no longer seen."""
        for cause, wrong in list(self._wrong.items()):
            if wrong[-1] < before_ms:
                del self._wrong[cause]

    def _raise(self, cause: Cause, finding: Finding, since_ms: int, at_ms: int) -> Alert:
        alert = Alert(
            id=alert_id(*cause, finding.statistic, since_ms),
            state="raised",
            signal=cause.signal,
            subject=cause.subject,
            segment=cause.segment,
            model=cause.model,
            statistic=finding.statistic,
            value=finding.value,
            bound=finding.bound,
            since=since_ms,
            at=at_ms,
            runbook=cause.signal,
            text=finding.text,
        )
        self.open[cause] = alert
        return alert

    def _clear(self, cause: Cause, finding: Finding, at_ms: int) -> Alert:
        raised = self.open.pop(cause)
        self._well.pop(cause, None)
        return replace(raised, state="cleared", value=finding.value, bound=finding.bound, at=at_ms, text=finding.text)


def open_alerts(alerts: Iterable[Alert], before_ms: int) -> list[Alert]:
    """Return those of a log of alerts that were open at a time of the stream's clock: raised before, not yet cleared.

    Alerts said twice count once, and the log may hold what was said later.
    """
    before = [alert for alert in alerts if alert.at < before_ms]
    cleared = {alert.id for alert in before if alert.state == "cleared"}
    standing = {alert.id: alert for alert in before if alert.state == "raised" and alert.id not in cleared}
    return list(standing.values())


def _cause(alert: Alert) -> Cause:
    return Cause(alert.signal, alert.subject, alert.segment, alert.model)
