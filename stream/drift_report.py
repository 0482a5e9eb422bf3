"""The drift report from the logs: telemetry, labelled decisions and alerts of a period, into one value.

Step 1  read `telemetry` from the period's beginning on, by timestamp
Step 2  read `labelled` of the same period, and `alerts` from their beginning: one may be older and still open
Step 3  compute the figures, and say what they cannot say
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Message

from models.drift_report import Coverage, DriftReport, Raised
from models.histograms import Histograms
from stream.alert_record import Alert, decode_alert
from stream.drift_period import DriftPeriod
from stream.drift_quality import LabelsOfPeriod
from stream.drift_subjects import mix_moments, model_drift, segment_mixes, whole_psi
from stream.errors import StartupError
from stream.labelled_record import decode_labelled
from stream.settings import Settings
from stream.telemetry_record import decode_telemetry
from stream.times import rfc3339
from stream.topic_scan import TopicScan, scan_config

__all__ = ["drift_report"]

#: A record may lie so far behind one with a later timestamp; after that, nothing of the period comes any more.
ASTRAY_MS: Final = 600_000
#: The JSON has all of them.
SILENCES_NAMED: Final = 3

Tell = Callable[[str, int], object]


def drift_report(
    settings: Settings,
    since_ms: int,
    until_ms: int,
    references: Callable[[str], Histograms | None],
    tell: Tell = lambda _topic, _records: None,
) -> DriftReport:
    """Return the report of [since_ms, until_ms), epoch milliseconds, until not in the future.

    references: the reference histograms of a model version, None where unknown. tell: called with a topic and the
    records of it read so far. Raises StartupError where there is no topic of telemetry or no broker.
    """
    topics, unknown = settings.topics, []
    period = DriftPeriod(since_ms, until_ms, references)
    labels, alerts, unreadable = LabelsOfPeriod(period), _Alerts(period), Counter[str]()
    with TopicScan(scan_config(settings)) as scan:
        # Step 1
        for message in _since(scan, topics.telemetry, since_ms, until_ms, tell):
            _take(message, decode_telemetry, period.add, unreadable, topics.telemetry)
        period.end()
        # Step 2
        try:
            for message in _since(scan, topics.labelled, since_ms, until_ms, tell):
                _take(message, decode_labelled, labels.add, unreadable, topics.labelled)
        except StartupError as error:
            unknown.append(f"How good the decisions were: {error}")
        try:
            for message in _since(scan, topics.alerts, None, until_ms, tell):
                _take(message, decode_alert, alerts.add, unreadable, topics.alerts)
        except StartupError as error:
            unknown.append(f"What the monitor raised: {error}")
    # Step 3
    raised = alerts.raised()
    models = [model_drift(period, traffic, settings.drift, raised) for traffic in period.models.values()]
    quality = labels.quality(settings.quality.min_frauds)
    report = DriftReport(
        since_ms=since_ms,
        until_ms=until_ms,
        psi_bound=settings.drift.psi,
        whole_psi_bound=whole_psi(since_ms, until_ms, settings.drift),
        missing_bound=settings.drift.missing,
        min_events=settings.drift.min_events,
        models=sorted(models, key=lambda one: -one.last_ms),
        mix=mix_moments(period),
        segments=segment_mixes(period, settings.drift),
        quality=quality,
        labels=labels.moments(),
        alerts=raised,
        coverage=_coverage(period, unreadable.total()),
        unknown=unknown,
    )
    return replace(report, unknown=[*unknown, *_unknown(report, settings, labels)])


class _Alerts:
    """The alerts that were open at some time of the period."""

    def __init__(self, period: DriftPeriod) -> None:
        self._period = period
        self._raised: dict[str, Alert] = {}
        self._cleared: dict[str, int] = {}

    def add(self, alert: Alert, _: int) -> None:
        """Take an alert; its own time counts, which is the stream's."""
        if alert.at >= self._period.until_ms:
            return
        if alert.state == "raised":
            self._raised.setdefault(alert.id, alert)
        else:
            self._cleared[alert.id] = alert.at

    def raised(self) -> list[Raised]:
        """Return them in the order in which they were found."""
        found = []
        for alert in sorted(self._raised.values(), key=lambda one: (one.at, one.signal, one.subject, one.segment)):
            cleared_ms = self._cleared.get(alert.id)
            if cleared_ms is None or cleared_ms >= self._period.since_ms:
                found.append(
                    Raised(
                        signal=alert.signal,
                        subject=alert.subject,
                        segment=alert.segment,
                        model=alert.model,
                        statistic=alert.statistic,
                        value=alert.value,
                        bound=alert.bound,
                        since_ms=alert.since,
                        at_ms=alert.at,
                        cleared_ms=cleared_ms,
                        text=alert.text,
                    )
                )
        return found


def _since(scan: TopicScan, topic: str, since_ms: int | None, until_ms: int, tell: Tell) -> Iterator[Message]:
    """Yield the records of a topic stamped since then; None: all of them."""
    partitions = scan.partitions(topic)
    starts = (
        dict.fromkeys(partitions, OFFSET_BEGINNING)
        if since_ms is None
        else scan.offsets_at(topic, dict.fromkeys(partitions, since_ms))
    )
    read, past = 0, set[int]()
    with closing(scan.records(topic, starts)) as batches:
        for batch in batches:
            read += len(batch)
            tell(topic, read)
            yield from batch
            past |= {one.partition() for one in batch if one.timestamp()[1] >= until_ms + ASTRAY_MS}
            if past.issuperset(partitions):
                return


def _take(
    message: Message,
    decode: Callable[[bytes], Any],
    add: Callable[[Any, int], object],
    unreadable: "Counter[str]",
    topic: str,
) -> None:
    try:
        record = decode(message.value() or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        unreadable[topic] += 1
        return
    add(record, message.timestamp()[1])


def _coverage(period: DriftPeriod, unreadable: int) -> Coverage:
    covered = {number: sum(end - first for first, end in held) for number, held in sorted(period.covered.items())}
    spans = {number: held[-1][1] - held[0][0] for number, held in period.covered.items() if held}
    return Coverage(
        records=period.records,
        events=period.events,
        workers=sorted(period.workers),
        repeated=period.repeated,
        lost=period.lost,
        dropped=period.dropped,
        unreadable=unreadable,
        covered=covered,
        uncovered={number: spans.get(number, 0) - count for number, count in covered.items()},
        silent_ms=period.silent_ms,
        dead_letters=dict(sorted(period.dead_letters.items())),
        set_aside=dict(sorted(period.set_aside.items())),
    )


def _unknown(report: DriftReport, settings: Settings, labels: LabelsOfPeriod) -> Iterator[str]:
    """Yield a sentence for each thing that the report cannot say."""
    topics, coverage = settings.topics, report.coverage
    if not coverage.records:
        yield (
            f"Everything about the traffic: the topic {topics.telemetry} holds nothing of this period. No worker ran, "
            "telemetry.enabled is false, or the period is older than the topic's retention."
        )
    if coverage.records:
        yield from _silences(coverage.silent_ms)
    for number, count in coverage.uncovered.items():
        if count:
            yield (
                f"{count:,} committed records of partition {number} of {topics.transactions}: no telemetry covers "
                "them, for a worker ended between its commit and its record."
            )
    for model in report.models:
        if not model.compared:
            yield (
                f"The drift of model {model.version} ({model.events:,} events): its reference histograms are not at "
                f"hand. Put its bundle under {settings.registry.directory} and make the report again."
            )
        elif model.compared < model.events:
            left = model.events - model.compared
            yield f"The drift in {left:,} events of model {model.version}: their counts are over other bins."
        elif model.compared < report.min_events:
            yield (
                f"Whether model {model.version} drifts: {model.compared:,} events are fewer than drift.min_events "
                f"({report.min_events:,}); its figures are shown, but not judged."
            )
    if coverage.records and not report.quality:
        yield (
            f"How good the decisions were: no label came in this period (topic {topics.labelled}). Labels come hours "
            "to months after the payment; give a longer period."
        )
    for one in report.quality:
        if not one.segment and one.frauds < settings.quality.min_frauds:
            yield (
                f"How good model {one.model} was: {one.frauds} labelled frauds are fewer than quality.min_frauds "
                f"({settings.quality.min_frauds})."
            )
    younger = labels.younger(settings.quality.delay)
    for one in report.quality:
        if not one.segment and 2 * younger[one.model] > one.events:
            yield (
                f"How good model {one.model} is on what it decided last: {younger[one.model]:,} of its {one.events:,} "
                f"labelled decisions are younger than quality.delay ({settings.quality.delay}), and of such mostly "
                "frauds found early are known. The monitor waits that long before it counts one."
            )
    if labels.unknown_decisions:
        yield f"{labels.unknown_decisions:,} labels of decisions that are neither approve, review nor decline."
    if coverage.records and not report.alerts:
        yield (
            "Whether anybody watched: no alert was open in this period. Either all was well or no monitor ran; its own "
            "metrics tell the two apart."
        )
    if coverage.unreadable:
        yield f"{coverage.unreadable:,} records of these topics that are not what they should be."


def _silences(silent_ms: Sequence[tuple[int, int]]) -> Iterator[str]:
    longest = sorted(silent_ms, key=lambda one: one[0] - one[1])[:SILENCES_NAMED]
    for begin, end in sorted(longest):
        yield f"What happened from {_clock(begin)} to {_clock(end)}: no worker wrote telemetry."
    if left := len(silent_ms) - len(longest):
        minutes = (sum(end - begin for begin, end in silent_ms) - sum(end - begin for begin, end in longest)) / 60_000
        yield f"What happened in {left:,} shorter times without telemetry, {minutes:,.0f} minutes together."


def _clock(at_ms: int) -> str:
    return f"{rfc3339(at_ms)[:19].replace('T', ' ')} UTC"
