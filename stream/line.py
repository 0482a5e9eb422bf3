"""The straight line of one batch: decode, observe, score, decide, encode.

State is observed per event and in order, so two payments of one user in one batch see each other; scoring is per batch.
Nothing here waits for Kafka; the only wait is the batched read of users that are not in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from state.errors import StoreUnavailable
from state.windows import Flag
from stream.codec import DeadLetter, DecisionEncoder, Decoded, Decoder
from stream.delivery import Outgoing, Output
from stream.errors import Oversized, StateAhead
from stream.feature_log import FeatureLog
from stream.observer import BatchReport, Scored, ScoredBy
from stream.partition import Partition, Phase

__all__ = ["Judge", "Line", "Scorer", "Topics", "Verdicts"]

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
_TOLD = (Flag.LATE, Flag.DUPLICATE, Flag.CONFLICT, Flag.TRUNCATED)


@dataclass(frozen=True, slots=True)
class Topics:
    """Where output goes; no feature log where features is empty."""

    decisions: str
    dead_letters: str
    features: str


@dataclass(frozen=True, slots=True)
class Verdicts:
    """scores: float32[n]; outcomes: uint8[n], indices into outcome_names; reasons by row, for those not approved."""

    scores: F32
    outcomes: U8
    reasons: dict[int, Sequence[Any]]


class Judge(Protocol):
    """The ensemble and its policy, as app.py composes them."""

    outcome_names: Sequence[str]

    def judge(self, features: F32, currencies: npt.NDArray[np.uint16]) -> Verdicts:
        """Score and decide float32[n, k]; currencies: the codes uint16[n] in which reasons say amounts."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """What one version of a model brings to the line."""

    judge: Judge
    encoder: DecisionEncoder
    feature_log: FeatureLog
    scored_by: ScoredBy


@dataclass(slots=True)
class _Part:
    """One partition's share of a batch; rows before `live` are replayed without output."""

    partition: Partition
    decoded: Decoded
    dead: list[DeadLetter]
    next_offset: int
    live: int = 0
    features: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    flags: U8 = field(default_factory=lambda: np.empty(0, np.uint8))

    def live_rows(self) -> Decoded:
        """Return the rows from `live` on."""
        return self.decoded.rows(slice(self.live, None)) if self.live else self.decoded


@dataclass(slots=True)
class _Rows:
    """The live rows of all parts, one part after another, to be scored and encoded together."""

    decoded: Decoded
    features: F32
    flags: U8

    @classmethod
    def of(cls, live: list[_Part]) -> "_Rows":
        """Join the live rows of at least one part."""
        decoded = Decoded.joined([part.live_rows() for part in live])
        if len(live) == 1:
            return cls(decoded, live[0].features, live[0].flags)
        return cls(
            decoded,
            np.concatenate([part.features for part in live]),
            np.concatenate([part.flags for part in live]),
        )


class Line:
    """Turns consumed records into output.

    retention_ms: what the commit's coverage is measured against. load: brings unknown users of a partition into its
    windows; StoreUnavailable puts the partition's share aside.
    now_ms: epoch milliseconds for scored_at, the only wall clock here; it enters no state.
    """

    def __init__(
        self,
        decoder: Decoder,
        scorer: Scorer,
        topics: Topics,
        load: Callable[[Partition, list[bytes]], None],
        now_ms: Callable[[], int],
        *,
        retention_ms: int,
    ) -> None:
        self._retention_ms = retention_ms
        self._decoder = decoder
        self._scorer = scorer
        self._topics = topics
        self._load = load
        self._now_ms = now_ms
        self._oversized: set[tuple[str, int, int]] = set()

    def use(self, scorer: Scorer) -> None:
        """Score with another model from the next batch on. Windows must be of its feature set by then."""
        self._scorer = scorer

    @property
    def scored_by(self) -> ScoredBy:
        """What the next batch will be scored with."""
        return self._scorer.scored_by

    def run(self, batch: dict[Partition, list[Any]]) -> tuple[Output, BatchReport, list[Partition]]:
        """Return the output, a report, and the partitions that must wait for the store: nothing of theirs is done."""
        report, output = BatchReport(), Output(self._topics.decisions)
        clock = _Stages(report.stage_secs)
        parts, waiting = [], []
        for part in self._decode(batch):
            clock.lap("decode")
            try:
                self._observe(part)
            except StoreUnavailable:
                waiting.append(part.partition)
            else:
                parts.append(part)
            clock.lap("windows")
        for part in parts:
            report.replayed += part.live
            self._account(part, output, report)
        live = [part for part in parts if part.live < len(part.decoded)]
        if live:
            rows = _Rows.of(live)
            verdicts = self._scorer.judge.judge(rows.features, rows.decoded.events.currency)
            clock.lap("score")
            self._encode(rows, verdicts, output, report)
            clock.lap("encode")
        report.offsets = output.offsets
        return output, report, waiting

    def too_large(self, oversized: Sequence[Oversized]) -> bool:
        """Remember outputs the broker refused for their size; return whether the next attempt writes smaller ones."""
        smaller = False
        for found in oversized:
            place = (found.kind, found.partition, found.offset)
            if found.kind == "features":
                smaller |= self._scorer.feature_log.halve()
                continue
            if found.kind == "dead_letter" and place in self._oversized:
                place = ("dead_letter_key", found.partition, found.offset)
            smaller |= place not in self._oversized
            self._oversized.add(place)
        return smaller

    def _decode(self, batch: dict[Partition, list[Any]]) -> Iterator[_Part]:
        found = self._decoder.decode_each([(partition.number, records) for partition, records in batch.items()])
        for (partition, records), (decoded, dead) in zip(batch.items(), found, strict=True):
            part = _Part(partition, decoded, dead, records[-1].offset() + 1)
            if partition.phase is Phase.REPLAYING:
                part.live = int(np.searchsorted(decoded.events.offset, partition.live_from))
                part.dead = [letter for letter in dead if letter.message.offset() >= partition.live_from]
            yield part

    def _observe(self, part: _Part) -> None:
        """Bring the part's users into memory, then let the windows see every event in order."""
        windows, decoded = part.partition.windows, part.decoded
        if not len(decoded):
            return
        slots = windows.find(decoded.users)
        if slots.min() < 0:
            self._load(part.partition, list(dict.fromkeys(decoded.users[i] for i in np.flatnonzero(slots < 0))))
            slots = windows.find(decoded.users)
        if part.live:
            windows.replay(slots[: part.live], decoded.events[: part.live])
        if part.live < len(decoded):
            events = decoded.events[part.live :]
            part.features, part.flags = windows.observe(slots[part.live :], events)
            if (part.flags & Flag.SKIPPED).any():
                _drop_decided(part)

    def _account(self, part: _Part, output: Output, report: BatchReport) -> None:
        """Count the part, queue its dead letters, and note how far it reaches."""
        partition, number = part.partition, part.partition.number
        if len(part.decoded):
            partition.coverage.observe(part.next_offset, int(part.decoded.events.time_ms.max()), self._retention_ms)
        if part.next_offset > partition.live_from:
            output.offsets[number] = part.next_offset
            output.metadata[number] = partition.coverage.text()
        for letter in part.dead:
            report.dead_letters[letter.error] = report.dead_letters.get(letter.error, 0) + 1
            report.first_dead.setdefault(letter.error, (number, letter.message.offset(), letter.field))
            output.rare.append(self._dead_letter(letter))

    def _encode(self, rows: _Rows, verdicts: Verdicts, output: Output, report: BatchReport) -> None:
        """Append decisions and feature records."""
        now_ms, decoded = self._now_ms(), rows.decoded
        scorer, names = self._scorer, self._scorer.judge.outcome_names
        report.scored = Scored(scorer.scored_by, rows.features, verdicts.scores, verdicts.outcomes, names, decoded)
        values = scorer.encoder.encode(
            decoded, verdicts.scores, verdicts.outcomes, rows.flags, verdicts.reasons, now_ms
        )
        output.partitions += decoded.partitions.tolist()
        output.keys += decoded.users
        output.values += values
        output.source_offsets += decoded.events.offset.tolist()
        report.noted += [values[row] for row in verdicts.reasons]
        self._log_features(rows, output)
        if self._oversized:
            self._replace_oversized(decoded, output, report)
        self._report(rows, verdicts, now_ms, report)

    def _log_features(self, rows: _Rows, output: Output) -> None:
        topic, decoded = self._topics.features, rows.decoded
        if not topic:
            return
        events = decoded.events
        for partition, offset, record in self._scorer.feature_log.encode(
            decoded.transaction_column(), decoded.partitions, events.offset, events.time_ms, rows.features
        ):
            output.rare.append(Outgoing(topic, partition, None, record, (), "features", partition, offset))

    def _dead_letter(self, letter: DeadLetter) -> Outgoing:
        message = letter.message
        partition, offset = message.partition(), message.offset()
        key, value, headers = message.key(), message.value(), letter.headers()
        if ("dead_letter", partition, offset) in self._oversized:
            value, headers = None, [*headers, ("value.dropped", b"too large for the dead-letter topic")]
        if ("dead_letter_key", partition, offset) in self._oversized:
            key, headers = None, [*headers, ("key.dropped", b"too large for the dead-letter topic")]
        return Outgoing(self._topics.dead_letters, -1, key, value, headers, "dead_letter", partition, offset)

    def _replace_oversized(self, decoded: Decoded, output: Output, report: BatchReport) -> None:
        """Take decisions out that the broker refused for their size; a dead letter says so in their place."""
        keep = [
            i
            for i, (p, o) in enumerate(zip(output.partitions, output.source_offsets, strict=True))
            if ("decision", p, o) not in self._oversized
        ]
        if len(keep) == len(output.values):
            return
        sources = {(m.partition(), m.offset()): m for m in decoded.messages}
        for i in sorted(set(range(len(output.values))) - set(keep)):
            message = sources[output.partitions[i], output.source_offsets[i]]
            letter = DeadLetter(message, "too_large", "", "the decision is larger than the decisions topic allows")
            output.rare.append(self._dead_letter(letter))
            report.dead_letters[letter.error] = report.dead_letters.get(letter.error, 0) + 1
        output.partitions = [output.partitions[i] for i in keep]
        output.keys = [output.keys[i] for i in keep]
        output.values = [output.values[i] for i in keep]
        output.source_offsets = [output.source_offsets[i] for i in keep]

    def _report(self, rows: _Rows, verdicts: Verdicts, now_ms: int, report: BatchReport) -> None:
        report.events = len(rows.decoded)
        report.latency_ms = (now_ms - rows.decoded.timestamps_ms).astype(np.float64)
        counts = np.bincount(verdicts.outcomes, minlength=len(self._scorer.judge.outcome_names))
        report.outcomes = dict(zip(self._scorer.judge.outcome_names, counts.tolist(), strict=True))
        if rows.flags.any():
            for flag in _TOLD:
                count = int(np.count_nonzero(rows.flags & flag))
                if count:
                    report.flags[str(flag.name).lower()] = count


class _Stages:
    """Adds the time since the last lap to a stage."""

    def __init__(self, secs: dict[str, float]) -> None:
        self._secs = secs
        self._at = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self._secs[stage] = self._secs.get(stage, 0.0) + now - self._at
        self._at = now


def _drop_decided(part: _Part) -> None:
    """Leave out rows that stored users already hold; only right where a checkpoint outlived the committed offset."""
    if not part.partition.decided_ahead:
        raise StateAhead(
            part.partition.number,
            int(part.decoded.events.offset[part.live :][(part.flags & Flag.SKIPPED) != 0].max()),
            f"Stored users of partition {part.partition.number} hold events that were never committed: choose "
            f"store.recovery = rebuild to replay the log.",
        )
    keep = np.flatnonzero((part.flags & Flag.SKIPPED) == 0)
    part.decoded = part.live_rows().rows(keep)
    part.live, part.features, part.flags = 0, part.features[keep], part.flags[keep]
