"""What a batch of decisions and labels gives: the rules of the join, without Kafka.

    decisions of (u, t)   ────── D ─────────────────── D′ ─────────────▶  the first stands; D′ is counted
    labels of (u, t)      ─ L₁ ───────── L₂ ──── L₃ ──────────── L₄ ────▶
                          fraud         fraud   honest          honest
    written                  └─▶ (D, L₁)        (D, L₃, former=fraud)
    outcome              unmatched, repeated  contradicting   repeated
                         then joined

A user's decisions come in the order of their partition, and so do its labels; how the two are interleaved is chance,
and the rules do not depend on it:

1. The first decision of a user and transaction stands. One that the worker flagged `duplicate` is never the first.
2. A label joins if it is no further from the payment than `labels.retention`, either way; else it is `expired`.
3. Of those, the first is `joined`, one that says the same as the last is `repeated` (not written), one that says
   otherwise is `contradicting`, and names what stood before as `former`.
4. A label whose decision was not read yet waits (`unmatched`), in order, until it comes or the stream's time is so far
   that none can: then it is `expired`, or `unsampled` where sampling would have left an approval of it out.

So each written record belongs to the later of its decision and its label, and replaying both gives the same index.
The rules ask that a user's labels share a partition (key them by user), and its decisions too (the worker's doing).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

import numpy as np

from stream.deadletter import DeadLetter, MessageLike
from stream.joiner_records import Label, Unreadable, read_decisions, read_label
from stream.label_index import Found, LabelIndex, Waiting, identify
from stream.labelled_record import LabelledDecision, encode_labelled

__all__ = ["Clocks", "Join", "Joined", "horizon_ms"]

#: The newest time read of each (topic, partition), epoch milliseconds.
Clocks = dict[tuple[str, int], int]

APPROVE: Final = "approve"


@dataclass(slots=True)
class Joined:
    """What a batch gave: records for `labelled` as (user, JSON), dead letters of labels, and what is counted of it."""

    written: list[tuple[bytes, bytes]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    refused_decisions: Counter[str] = field(default_factory=Counter)
    delays_ms: list[int] = field(default_factory=list)
    frauds: int = 0
    indexed: int = 0
    repeated: int = 0
    dropped: int = 0
    newest_label_ms: int = -1


class Join:
    """Applies batches to an index, in any interleaving of the two topics; a partition's own order must be kept."""

    def __init__(self, index: LabelIndex, sample_rate: float = 1.0) -> None:
        self._index = index
        self._rate = sample_rate
        self._sampled_below = round(sample_rate * (1 << 64))

    def apply(self, decisions: Sequence[MessageLike], labels: Sequence[MessageLike], clocks: Clocks) -> Joined:
        """Return what these records give, the index changed accordingly.

        clocks: the newest time read of each topic and partition, moved on here.
        """
        joined = Joined()
        arrived = self._decisions(decisions, joined, clocks)
        waited = self._index.take_waiting(arrived)
        come = self._labels(labels, joined, clocks)
        self._meet([*waited, *come], joined)
        return joined

    def expire(self, horizon_ms: int, joined: Joined) -> None:
        """Let what is past the horizon leave the index; counted in `joined`."""
        joined.dropped, given_up = self._index.expire(horizon_ms)
        for label in given_up:
            joined.outcomes["expired" if self._in_sample(label.id) else "unsampled"] += 1

    def _in_sample(self, id_: bytes) -> bool:
        return int.from_bytes(id_[:8], "little") < self._sampled_below

    def _decisions(self, messages: Sequence[MessageLike], joined: Joined, clocks: Clocks) -> list[bytes]:
        """Index decisions, a column at a time; return the ids of those that are kept."""
        messages, read, letters = read_decisions(messages)
        joined.refused_decisions.update(letter.error for letter in letters)
        for message, decided in zip(messages, read, strict=True):
            # An event dated ahead of the moment it was scored must not let others expire.
            place, at_ms = (message.topic() or "", message.partition()), min(decided.event_time, decided.scored_at)
            if at_ms > clocks.get(place, -1):
                clocks[place] = at_ms
        count = len(read)
        read = [decided for decided in read if not decided.flags or "duplicate" not in decided.flags]
        joined.repeated = count - len(read)
        ids = [identify(str(decided.user_id), str(decided.transaction_id)) for decided in read]
        if self._rate < 1:
            kept = [one.decision != APPROVE or self._in_sample(id_) for id_, one in zip(ids, read, strict=True)]
            ids, read = list(compress(ids, kept)), list(compress(read, kept))
        kind = self._index.kind
        scores = np.array([decided.score for decided in read], np.float32).view(np.int32).tolist()
        entries = [
            (id_, score, one.event_time, one.partition, one.offset, kind((one.decision, one.model, one.segment)))
            for id_, score, one in zip(ids, scores, read, strict=True)
        ]
        joined.indexed = self._index.add(entries)
        joined.repeated += len(entries) - joined.indexed
        return ids

    def _labels(self, messages: Sequence[MessageLike], joined: Joined, clocks: Clocks) -> list[Waiting]:
        read = []
        for message in messages:
            try:
                label: Label = read_label(message)
            except Unreadable as error:
                joined.letters.append(error.letter)
                continue
            place = (message.topic() or "", message.partition())
            clocks[place] = max(label.label_time, clocks.get(place, -1))
            joined.newest_label_ms = max(label.label_time, joined.newest_label_ms)
            user_id, transaction_id = str(label.user_id), str(label.transaction_id)
            id_ = identify(user_id, transaction_id)
            read.append(Waiting(-1, id_, label.is_fraud, label.label_time, transaction_id, user_id))
        return read

    def _meet(self, labels: Sequence[Waiting], joined: Joined) -> None:
        """Give each label its outcome, in order."""
        if not labels:
            return
        found = self._index.find(label.id for label in labels)
        known: dict[bytes, bool | None] = {id_: decision.label for id_, decision in found.items()}
        for label in labels:
            decision = found.get(label.id)
            if decision is None:
                self._index.await_decision(*label[1:])
                joined.outcomes["unmatched"] += 1
                continue
            outcome = self._outcome(label, decision, known[label.id])
            joined.outcomes[outcome] += 1
            if outcome in ("joined", "contradicting"):
                self._write(label, decision, known[label.id], joined)
                known[label.id] = label.is_fraud
        self._index.set_labels(
            (decision.span, id_, verdict)
            for id_, decision in found.items()
            if (verdict := known[id_]) is not None and verdict is not decision.label
        )

    def _outcome(self, label: Waiting, decision: Found, former: bool | None) -> str:
        if abs(label.label_time - decision.time_ms) > self._index.retention_ms:
            return "expired"
        if former is None:
            return "joined"
        return "repeated" if former is label.is_fraud else "contradicting"

    def _write(self, label: Waiting, decision: Found, former: bool | None, joined: Joined) -> None:
        what, model, segment = self._index.kind_of(decision.kind)
        delay_ms = label.label_time - decision.time_ms
        record = LabelledDecision(
            transaction_id=label.transaction_id,
            user_id=label.user_id,
            score=_score(decision.score),
            decision=what,
            model=model,
            segment=segment,
            event_time=decision.time_ms,
            partition=decision.partition,
            offset=decision.offset,
            is_fraud=label.is_fraud,
            label_time=label.label_time,
            delay_ms=delay_ms,
            weight=1.0 if what != APPROVE else 1.0 / self._rate,
            former=former,
        )
        joined.written.append((label.user_id.encode(), encode_labelled(record)))
        joined.delays_ms.append(delay_ms)
        joined.frauds += label.is_fraud


def horizon_ms(clocks: Clocks, decisions: str, behind: Iterable[tuple[str, int]]) -> int:
    """Return the event time that all of the log read so far has come to, −1 where there is none.

    That of the newest decision, except that a partition with records still to be read holds it back: a label that lies
    in the log is judged before its decision leaves, however far one topic is read ahead of the other.
    """
    newest = max((at_ms for (topic, _), at_ms in clocks.items() if topic == decisions), default=-1)
    return min([newest, *(clocks.get(place, -1) for place in behind)])


def _score(bits: int) -> float:
    """Return the shortest number that reads as this float32, as the decision has it."""
    return float(str(np.int32(bits).view(np.float32)))
