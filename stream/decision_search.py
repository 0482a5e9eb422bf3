"""Finds the decisions of one transaction in the decisions topic.

The topic is keyed by user, not by transaction, so it is read: every record's bytes are searched for what is wanted as
it would stand there, and only where they hold it is the JSON read. What is known of the transaction makes that less: a
user or a source partition names the one partition to read, a time where to begin.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import orjson
from confluent_kafka import OFFSET_BEGINNING, Message

from stream.decision import Reason
from stream.errors import UsageError
from stream.murmur2 import partition_of
from stream.topic_scan import TopicScan

__all__ = ["Decided", "FoundDecision", "Wanted", "find_decisions"]


class Decided(msgspec.Struct, frozen=True):
    """What is needed of a decision; another version's may hold more."""

    transaction_id: str
    user_id: str
    decision: str
    score: float
    model: str
    engine: str
    feature_set: str
    event_time: int
    scored_at: int
    partition: int
    offset: int
    flags: list[str] = []
    reasons: list[Reason] = []


@dataclass(frozen=True, slots=True)
class FoundDecision:
    """One decision, and the time of its Kafka record in epoch ms (its sender's or the broker's, as the topic says)."""

    decided: Decided
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decision: by its transaction id, by the place its transaction was read at, or both.

    user_id and since_ms (epoch ms, the earliest time of the decision) only narrow the search. Raises UsageError.
    """

    transaction_id: str | None = None
    partition: int | None = None
    offset: int | None = None
    user_id: str | None = None
    since_ms: int | None = None

    def __post_init__(self) -> None:
        if self.transaction_id is None and (self.partition is None or self.offset is None):
            raise UsageError("Which decision? Give a transaction id, or --partition and --offset of the transaction.")

    def needles(self) -> Iterator[bytes]:
        """Yield byte sequences of which every wanted decision holds each, as the worker writes JSON."""
        if self.transaction_id is not None:
            yield b'"transaction_id":' + orjson.dumps(self.transaction_id)
        if self.offset is not None:
            yield b'"offset":%d' % self.offset

    def fits(self, decided: Decided) -> bool:
        """Whether this is one of the decisions wanted."""
        pairs = (
            (self.transaction_id, decided.transaction_id),
            (self.partition, decided.partition),
            (self.offset, decided.offset),
            (self.user_id, decided.user_id),
        )
        return all(wanted is None or wanted == there for wanted, there in pairs)

    def rounds(self, partitions: list[int]) -> list[list[int]]:
        """Return the partitions to read: all of a round, and the next only where nothing was found in it.

        A decision stands on its transaction's partition number. That of a user is murmur2's where the producers
        partition as Java's do; others may not.
        """
        if self.partition is not None:
            return [[self.partition]] if self.partition in partitions else []
        if self.user_id is None:
            return [partitions]
        likely = partition_of(self.user_id.encode(), len(partitions))
        return [[likely], [number for number in partitions if number != likely]]


_DECODER: Final = msgspec.json.Decoder(Decided)


def find_decisions(
    scan: TopicScan, topic: str, wanted: Wanted, tell: Callable[[int, int | None], object] = lambda _, __: None
) -> list[FoundDecision]:
    """Return every decision wanted, in the order they were written; none where there is none.

    tell: told how many records were read, of at most how many. Raises StartupError.
    """
    for numbers in wanted.rounds(scan.partitions(topic)):
        if not numbers:
            continue
        starts = dict.fromkeys(numbers, OFFSET_BEGINNING)
        if wanted.since_ms is not None:
            starts = scan.offsets_at(topic, dict.fromkeys(numbers, wanted.since_ms))
        total, done = scan.counts(topic, starts), 0
        found: list[FoundDecision] = []
        for records in scan.records(topic, starts):
            done += len(records)
            found += _matches(records, wanted)
            tell(done, total)
        if found:
            return sorted(found, key=lambda one: one.timestamp_ms)
    return []


def _matches(records: Iterable[Message], wanted: Wanted) -> Iterator[FoundDecision]:
    needles = list(wanted.needles())
    first = needles[0]
    for record in records:
        value = record.value()
        if value is None or first not in value or any(needle not in value for needle in needles):
            continue
        try:
            decided = _DECODER.decode(value)
        except msgspec.MsgspecError:
            continue  # not one of ours: someone else writes to this topic too
        if wanted.fits(decided):
            yield FoundDecision(decided, record.timestamp()[1])
