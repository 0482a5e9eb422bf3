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

import gc
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import compress
from typing import Final, TypeVar

import numpy as np
import orjson

from stream.deadletter import DeadLetter, MessageLike
from stream.joiner_records import Decided, read_decisions, read_labels
from stream.label_index import Found, LabelIndex, identify
from stream.label_waiting import Waiting
from stream.labelled_record import LabelledDecision, encode_labelled

__all__ = ["Clocks", "Join", "Joined", "by_place", "horizon_ms"]

Place = tuple[str, int]
M = TypeVar("M", bound=MessageLike)

#: The newest time read of each (topic, partition), epoch milliseconds.
Clocks = dict[Place, int]

#: A label, the decision it is about, and what that was labelled before.
Pair = tuple[Waiting, Found, bool | None]

#: Records of each topic and partition, in its order.
Records = Mapping[Place, Sequence[MessageLike]]

APPROVE: Final = "approve"
WRITTEN: Final = ("joined", "contradicting")

NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


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

    def apply(self, decisions: Records, labels: Records, clocks: Clocks) -> Joined:
        """Return what these records give, the index changed accordingly.

        clocks: the newest time read of each topic and partition, moved on here.
        """
        joined = Joined()
        with _collector_paused():
            arrived, spans = self._decisions(decisions, joined, clocks)
            waited = self._index.take_waiting(arrived)
            come = self._labels(labels, joined, clocks)
            # What waited has no decision but one that has just arrived.
            found = self._index.find([label[0] for label in waited], spans) if waited else {}
            if come:
                found |= self._index.find({label[0] for label in come} - found.keys())
            self._meet([*waited, *come], found, joined)
        return joined

    def expire(self, horizon_ms: int, joined: Joined) -> None:
        """Let what is past the horizon leave the index; counted in `joined`."""
        joined.dropped, given_up = self._index.expire(horizon_ms)
        for label in given_up:
            joined.outcomes["expired" if self._in_sample(label[0]) else "unsampled"] += 1

    def _in_sample(self, id_: bytes) -> bool:
        return int.from_bytes(id_[:8], "little") < self._sampled_below

    def _decisions(self, messages: Records, joined: Joined, clocks: Clocks) -> tuple[list[bytes], Collection[int]]:
        """Index decisions, a column at a time; return the ids of those that are kept, and their spans."""
        read: list[Decided] = []
        for place, some in messages.items():
            decided, letters = read_decisions(some)
            joined.refused_decisions.update(letter.error for letter in letters)
            # An event dated ahead of the moment it was scored must not let others expire.
            newest_ms = max([min(one.event_time, one.scored_at) for one in decided], default=-1)
            clocks[place] = max(newest_ms, clocks.get(place, -1))
            read += decided
        count = len(read)
        read = [one for one in read if not one.flags or "duplicate" not in one.flags]
        ids = [identify(one.user_id, one.transaction_id) for one in read]
        joined.repeated = count - len(read)
        if self._rate < 1:
            kept = [one.decision != APPROVE or self._in_sample(id_) for id_, one in zip(ids, read, strict=True)]
            ids, read = list(compress(ids, kept)), list(compress(read, kept))
        kind = self._index.kind
        scores = np.array([one.score for one in read], np.float32).view(np.int32).tolist()
        entries = [
            (id_, score, one.event_time, one.partition, one.offset, kind((one.decision, one.model, one.segment)))
            for id_, score, one in zip(ids, scores, read, strict=True)
        ]
        joined.indexed, spans = self._index.add(entries)
        joined.repeated += len(entries) - joined.indexed
        return ids, spans

    def _labels(self, messages: Records, joined: Joined, clocks: Clocks) -> list[Waiting]:
        come: list[Waiting] = []
        for place, some in messages.items():
            read, letters = read_labels(some)
            joined.letters += letters
            newest_ms = max([label.label_time for label in read], default=-1)
            clocks[place] = max(newest_ms, clocks.get(place, -1))
            joined.newest_label_ms = max(newest_ms, joined.newest_label_ms)
            for label in read:
                user_id, transaction_id = label.key
                id_ = identify(user_id, transaction_id)
                come.append((id_, label.is_fraud, label.label_time, transaction_id, user_id))
        return come

    def _meet(self, labels: Sequence[Waiting], found: Mapping[bytes, Found], joined: Joined) -> None:
        """Give each label its outcome, in order."""
        said: dict[bytes, bool] = {}
        pairs: list[Pair] = []
        unmatched: list[Waiting] = []
        outcomes: list[str] = []
        for label in labels:
            id_, is_fraud = label[0], label[1]
            decision = found.get(id_)
            if decision is None:
                unmatched.append(label)
                continue
            former = said.get(id_, decision.label)
            outcomes.append(outcome := self._outcome(label, decision, former))
            if outcome in WRITTEN:
                pairs.append((label, decision, former))
                said[id_] = is_fraud
        joined.outcomes.update(outcomes)
        if unmatched:
            joined.outcomes["unmatched"] += len(unmatched)
            self._index.await_decisions(unmatched)
        self._index.set_labels(
            (found[id_].span, id_, is_fraud) for id_, is_fraud in said.items() if is_fraud is not found[id_].label
        )
        self._write(pairs, joined)

    def _outcome(self, label: Waiting, decision: Found, former: bool | None) -> str:
        if abs(label[2] - decision.time_ms) > self._index.retention_ms:
            return "expired"
        if former is None:
            return "joined"
        return "repeated" if former is label[1] else "contradicting"

    def _write(self, pairs: Sequence[Pair], joined: Joined) -> None:
        kind_of, approved_weight = self._index.kind_of, 1.0 / self._rate
        scores = _scores([decision.score for _, decision, _ in pairs])
        for score, (label, decision, former) in zip(scores, pairs, strict=True):
            _, is_fraud, label_time, transaction_id, user_id = label
            what, model, segment = kind_of(decision.kind)
            record = LabelledDecision(
                transaction_id=transaction_id,
                user_id=user_id,
                score=score,
                decision=what,
                model=model,
                segment=segment,
                event_time=decision.time_ms,
                partition=decision.partition,
                offset=decision.offset,
                is_fraud=is_fraud,
                label_time=label_time,
                delay_ms=label_time - decision.time_ms,
                weight=1.0 if what != APPROVE else approved_weight,
                former=former,
            )
            joined.written.append((user_id.encode(), encode_labelled(record)))
        joined.delays_ms += [label[2] - decision.time_ms for label, decision, _ in pairs]
        joined.frauds += sum(label[1] for label, _, _ in pairs)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Let nobody look for cycles: a batch makes a hundred thousand tuples and none, and looking takes a fifth of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def by_place(messages: Iterable[M]) -> dict[Place, list[M]]:
    """Return the records of each topic and partition, in their order."""
    found: defaultdict[Place, list[M]] = defaultdict(list)
    for message in messages:
        found[message.topic() or "", message.partition()].append(message)
    return found


def horizon_ms(clocks: Clocks, decisions: str, behind: Iterable[tuple[str, int]]) -> int:
    """Return the event time that all of the log read so far has come to, −1 where there is none.

    That of the newest decision, except that a partition with records still to be read holds it back: a label that lies
    in the log is judged before its decision leaves, however far one topic is read ahead of the other.
    """
    newest = max((at_ms for (topic, _), at_ms in clocks.items() if topic == decisions), default=-1)
    return min([newest, *(clocks.get(place, -1) for place in behind)])


def _scores(bits: list[int]) -> list[float]:
    """Return the shortest numbers that read as these float32, as their decisions have them."""
    scores: list[float] = orjson.loads(orjson.dumps(np.array(bits, np.int32).view(np.float32), None, NUMPY))
    return scores
