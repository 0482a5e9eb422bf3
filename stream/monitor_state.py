"""What the monitor knows: the watch over telemetry and the quality of labelled decisions, built from the log alone.

No clock and no Kafka. First everything before the committed offsets is read back, which says nothing; from `go_live` on
every record is judged. Alerts that were said and not ended are taken up where they stood.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec
import xxhash

from models.policy import OUTCOMES
from models.quality_rows import Decided
from models.quality_watch import Change, QualitySnapshot, QualityWatch
from stream.alert_record import Alert, alert_id
from stream.label_index import identify
from stream.labelled_record import decode_labelled
from stream.monitor_references import References
from stream.settings import Settings
from stream.telemetry_record import decode_telemetry
from stream.watch import Watch, memory_ms, open_alerts
from stream.watch_snapshot import WatchSnapshot

__all__ = ["MonitorState", "quality_memory_ms", "telemetry_memory_ms"]

#: Reasons for which a record is set aside here; those of the watch stand at stream.watch.
NOT_DECODED: Final = "not_decoded"
UNKNOWN_DECISION: Final = "unknown_decision"

OUTCOME: Final = {name: number for number, name in enumerate(OUTCOMES)}
WORDS: Final = {
    "roc_auc": "ROC AUC on labelled decisions",
    "review_recall": "the share of frauds not declined that went to review",
    "misses": "the share of frauds that were approved",
    "false_alarms": "the share of honest payments that were not approved",
    "": "the share of frauds among the labels",
}

Record = TypeVar("Record")


def telemetry_memory_ms(settings: Settings) -> int:
    """Return how far before the committed offset telemetry is read back."""
    return int(settings.monitor.read_back)


def quality_memory_ms(settings: Settings) -> int:
    """Return how far before the committed offset `labelled` is read back."""
    return int(settings.quality.window + settings.quality.delay)


class MonitorState:
    """said: everything in `alerts`. set_aside: called with topic, reason and what was wrong with a record."""

    def __init__(
        self,
        settings: Settings,
        references: References,
        said: Iterable[Alert] = (),
        set_aside: Callable[[str, str, str], object] = lambda *_: None,
    ) -> None:
        self._settings, self._references = settings, references
        self._said, self._set_aside = list(said), set_aside
        self._watch: Watch | None = None
        self._whole_log = False
        self._cut_ms: int | None = None
        self.frauds = self.honest = 0
        self.records: Counter[str] = Counter()
        quality = settings.quality
        self._quality = QualityWatch(
            window_ms=int(quality.window),
            delay_ms=int(quality.delay),
            every_ms=int(quality.every),
            max_events=quality.max_events,
            min_frauds=quality.min_frauds,
            max_segments=settings.telemetry.max_segments,
            holdout=references.metrics,
        )

    def begins_with(self, *, whole_log: bool, cut_ms: int | None = None) -> None:
        """Say, before the first record of telemetry, where the log was cut off.

        whole_log: not at all. cut_ms: everything stamped before this time was left out, and nothing else; None where
        that is not known, for the topic's retention cut it off.
        """
        self._whole_log, self._cut_ms = whole_log, cut_ms

    def telemetry(self, value: bytes | None, timestamp_ms: int) -> list[Alert]:
        """Take a record of `telemetry`; return what it raises and clears."""
        topic = self._settings.topics.telemetry
        record = self._decoded(topic, decode_telemetry, value)
        if record is None:
            return []
        if self._watch is None:
            self._watch = self._begin(timestamp_ms)
        return self._watch.observe(record, timestamp_ms)

    def labelled(self, value: bytes | None, timestamp_ms: int) -> list[Alert]:
        """Take a record of `labelled`; return what it raises and clears."""
        topic = self._settings.topics.labelled
        record = self._decoded(topic, decode_labelled, value)
        if record is None:
            return []
        outcome = OUTCOME.get(record.decision)
        if outcome is None:
            self._set_aside(topic, UNKNOWN_DECISION, "the decision is none of approve, review and decline")
            return []
        self.frauds += record.is_fraud
        self.honest += not record.is_fraud
        row = Decided(
            id=int.from_bytes(identify(record.user_id, record.transaction_id)[:8], "little"),
            user=xxhash.xxh3_64_intdigest(record.user_id.encode()),
            segment=record.segment,
            score=record.score,
            outcome=outcome,
            weight=record.weight,
            fraud=record.is_fraud,
        )
        changes = self._quality.label(
            record.model,
            row,
            event_time_ms=record.event_time,
            label_time_ms=record.label_time,
            at_ms=timestamp_ms,
            former=record.former,
        )
        return [_alert(change) for change in changes]

    def idle(self, now_ms: int) -> list[Alert]:
        """Let the clock of the labels go on where none has come; nothing before the first."""
        return [_alert(change) for change in self._quality.advance(now_ms)] if self._quality.clock_ms else []

    def refresh(self) -> None:
        """Bring the figures of quality that are shown up to now."""
        self._quality.refresh()

    def go_live(self) -> None:
        """End reading back."""
        open_now = open_alerts(self._said, self._quality.clock_ms + 1)
        self._quality.go_live(
            Change(True, "quality_drop", a.model, a.subject, a.statistic, a.value, a.bound, a.since, a.at)
            for a in open_now
            if a.signal == "quality_drop"
        )

    @property
    def watch(self) -> WatchSnapshot | None:
        """What the watch knows; None before the first record."""
        return None if self._watch is None else self._watch.snapshot()

    @property
    def quality(self) -> QualitySnapshot:
        """What is known of quality."""
        return self._quality.snapshot()

    def _decoded(self, topic: str, decode: Callable[[bytes], Record], value: bytes | None) -> Record | None:
        """Count a record; one that cannot be read is set aside, and None."""
        self.records[topic] += 1
        try:
            return decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._set_aside(topic, NOT_DECODED, str(error))
            return None

    def _begin(self, first_ms: int) -> Watch:
        settings = self._settings
        cut_ms = first_ms if self._cut_ms is None else min(first_ms, self._cut_ms)
        judge_from_ms = 0 if self._whole_log else cut_ms + memory_ms(settings.drift, settings.monitor)
        return Watch(
            settings.drift,
            settings.monitor,
            self._references.histograms,
            already=[
                alert
                for alert in open_alerts(self._said, judge_from_ms)
                if alert.signal not in ("quality_drop", "concept_drift", "label_rate_drift")
            ],
            judge_from_ms=judge_from_ms,
            max_segments=settings.telemetry.max_segments,
        )


def _alert(change: Change) -> Alert:
    what = WORDS.get(change.statistic) or WORDS[change.subject]
    value = "not known any more" if change.value is None else f"{change.value:.4f}"
    against = "" if change.bound is None else f" against {change.bound:.4f}"
    verb = "is" if change.raised else "is well again:"
    return Alert(
        id=alert_id(change.signal, change.subject, "", change.model, change.statistic, change.since_ms),
        state="raised" if change.raised else "cleared",
        signal=change.signal,
        subject=change.subject,
        segment="",
        model=change.model,
        statistic=change.statistic,
        value=change.value,
        bound=change.bound,
        since=change.since_ms,
        at=change.at_ms,
        runbook=change.signal,
        text=f"Model {change.model}: {what} {verb} {value}{against}.",
    )
