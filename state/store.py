"""The contract of the durable stores, and the rules about watermarks that all of them share.

A store keeps, for one namespace, each partition's users and a watermark W. Everything in it can be made again from the
log, so it promises little, and exactly this:

1. **Higher wins.** Of all versions of a user ever saved under one token, the store holds the one with the highest
   applied offset. Repeating a save, or saving an older version late, changes nothing.
2. **W vouches.** Every user touched at an offset below W was saved, before W was written, at a state of W or later.
   The caller orders the two: ``save`` returns, then ``advance``.
3. **W only rises.** ``advance`` never lowers it; only ``begin`` sets it anew.
4. **A token names an incarnation.** ``begin`` draws a random token and forgets the partition's users. Whoever still
   holds the former token can neither read nor write a user of the new incarnation.
5. **One snapshot.** ``load`` reads W in the same snapshot as the users, and refuses if W or its token is not what this
   object last saw: the store was wiped, put back or begun anew, and what is read from it does not fit what was read
   before.
6. **Suffix loss only.** A store that loses writes in a crash loses the latest ones, users and W alike, never an
   earlier one alone. Replay from W then mends it.
7. **Safe to repeat.** A call that failed with StoreUnavailable may or may not have taken effect; repeating it is right.

Life of a partition, in the caller's steps:

1. ``open`` the store; compare ``registered`` with the own namespace; refuse, or ``begin`` what has no watermark.
2. ``watermark`` of each partition assigned: this is what the object remembers as last seen.
3. ``load`` users as they appear; ``save`` what changed, then ``advance``.
4. On StoreRolledBack: drop the partition's memory and go on at step 2.
"""

import dataclasses
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from state.errors import StoreMismatch, StoreRolledBack

__all__ = [
    "LastSeen",
    "Loaded",
    "Namespace",
    "Row",
    "Store",
    "Watermark",
    "advanced",
    "begun",
    "check_registered",
    "verified",
    "wall_clock_ms",
]


def wall_clock_ms() -> int:
    """Return the wall clock, epoch ms."""
    return time.time_ns() // 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Namespace:
    """Whose state it is. All but ``partitions`` identify it: state is kept apart for each combination.

    ``partitions`` is how many the topic had when the state was begun. With another number users have moved between
    partitions, which a worker has to notice, so it is recorded but does not hide the state.
    """

    cluster_id: str
    group: str
    topic: str
    topic_id: str
    state_hash: str
    partitions: int

    @property
    def digest(self) -> str:
        """16 hex digits that name the identity inside keys; stable across processes and versions."""
        return _digest(self.cluster_id, self.group, self.topic, self.topic_id, self.state_hash)

    @property
    def family(self) -> str:
        """16 hex digits shared by every namespace of this cluster, group and topic name."""
        return _digest(self.cluster_id, self.group, self.topic)

    def to_json(self) -> str:
        """Write it as a store registers it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Namespace":
        """Read back what ``to_json`` wrote."""
        return cls(**json.loads(text))


def _digest(*parts: str) -> str:
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        encoded = part.encode()
        hashed.update(len(encoded).to_bytes(4, "big") + encoded)
    return hashed.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Watermark:
    """The first offset that a partition's stored users do not vouch for.

    Attributes:
        offset: every user touched below it is stored at this offset or later.
        token: 12 random characters, drawn by ``begin``: this incarnation of the partition's state.
        written_at_ms: wall clock of the last ``begin`` or ``advance``, epoch ms. A store drops users that were not
            written for the retention and a margin. So once nobody has held the partition for longer than that margin
            while its log went on, W may vouch for users that are gone: rebuild it.

    """

    offset: int
    token: str
    written_at_ms: int = dataclasses.field(default=0, compare=False)


class Row(NamedTuple):
    """One user to save: the key's bytes, the applied offset, the encoded record, the newest event time in epoch ms."""

    user: bytes
    applied: int
    record: bytes
    newest_ms: int


class Loaded(NamedTuple):
    """What one batched read found: a record or None for each user asked for, in that order, and W beside them."""

    records: list[bytes | None]
    watermark: Watermark


class Store(Protocol):
    """One namespace in a durable store. The module's docstring states the rules.

    Any thread may call any method at any time: checkpoints are saved behind the loop that loads. Each object remembers
    for each partition the highest watermark it has seen, and reads it itself if a partition is used without
    ``watermark`` or ``begin`` before. Every method may raise StoreUnavailable; after ``close`` all of them do.
    """

    def open(self) -> None:
        """Connect and check that the store may be used.

        Raises StoreMismatch, saying what to change, or StoreUnavailable.
        """

    def registered(self) -> list[Namespace]:
        """Every namespace that was ever begun for this cluster, group and topic name, in no particular order.

        From it a worker tells that its topic was created anew, has another number of partitions, or that the state
        was kept under another state hash.
        """

    def register(self) -> None:
        """Record the namespace, in place of one that differs in its number of partitions only.

        ``begin`` does it when there is none. Call it to accept the state after partitions were added.
        """

    def watermark(self, partition: int) -> Watermark | None:
        """Read W, None if the partition was never begun; from now on this is the W last seen."""

    def begin(self, partition: int, offset: int) -> Watermark:
        """Start the partition's state anew at ``offset``: a new token, W there, no user known.

        Registers the namespace. Raises StoreMismatch if it is registered with another number of partitions.
        """

    def load(self, partition: int, users: Sequence[bytes]) -> Loaded:
        """Read many users and W in one snapshot.

        Raises StoreRolledBack (rule 5), or DamagedRecord if something stored under a user's key is not a record.
        """

    def save(self, partition: int, rows: Sequence[Row]) -> None:
        """Keep each row unless the store has a version with an equal or higher applied offset.

        Raises StoreRolledBack (rule 5), or DamagedRecord. By then rows may be written, which rule 1 makes harmless.
        Without rows nothing is done.
        """

    def advance(self, partition: int, known: Watermark, offset: int) -> Watermark:
        """Set W to the higher of the stored one and ``offset``, and renew its ``written_at_ms``; return what stands.

        Raises StoreRolledBack if the stored token is not ``known``'s or the stored W is below it. A W above is fine:
        another owner of the partition vouched for it.
        """

    def key(self, partition: int, user: bytes) -> str:
        """Name a user's record as an operator finds it in the store. Contains the user id: hash it before logging."""

    def close(self) -> None:
        """Let go of connections, files and locks. Closing twice is fine."""


def check_registered(own: Namespace, held: Namespace) -> None:
    """Raise StoreMismatch if ``held``, registered under the same identity, has another number of partitions."""
    if own.partitions != held.partitions:
        raise StoreMismatch(
            f"the state of group {own.group} was begun when topic {own.topic} had {held.partitions} partitions and it "
            f"has {own.partitions} now, so users have moved; rekey into a new topic, or accept a cold start for them"
        )


def begun(offset: int, now_ms: int) -> Watermark:
    """Draw the first watermark of a new incarnation."""
    return Watermark(offset, secrets.token_urlsafe(9), now_ms)


def verified(partition: int, known: Watermark | None, stored: Watermark | None) -> Watermark:
    """Return ``stored`` if it continues ``known``; else raise StoreRolledBack with what must have happened."""
    if stored is None:
        since = "it was never begun" if known is None else f"W = {known.offset} was written and is gone: it was wiped"
        raise StoreRolledBack(f"the store has no watermark for partition {partition}, {since}; recover from the log")
    if known is None:
        return stored
    if stored.token != known.token:
        raise StoreRolledBack(
            f"the state of partition {partition} is not the one this worker knew: another worker began it anew "
            f"or the store was put back, and W is {stored.offset} now; recover from the log"
        )
    if stored.offset < known.offset:
        raise StoreRolledBack(
            f"the store was put back to an older state: W of partition {partition} was {known.offset} "
            f"and is {stored.offset} now; recover from the log"
        )
    return stored


def advanced(partition: int, known: Watermark, stored: Watermark | None, offset: int, now_ms: int) -> Watermark:
    """Return the watermark to write in place of ``stored``, or raise StoreRolledBack."""
    current = verified(partition, known, stored)
    return Watermark(max(current.offset, offset), current.token, max(current.written_at_ms, now_ms))


class LastSeen:
    """The highest watermark seen of each partition, for one store object. Safe under threads.

    A load may begin before an advance and return after it: what it brings back never lowers what is remembered.
    """

    def __init__(self) -> None:
        self._watermarks: dict[int, Watermark] = {}
        self._lock = threading.Lock()

    def get(self, partition: int) -> Watermark | None:
        """Return what was last seen, None if nothing was."""
        return self._watermarks.get(partition)

    def put(self, partition: int, watermark: Watermark | None) -> None:
        """Start anew with what ``watermark()`` read or ``begin`` wrote; None forgets."""
        with self._lock:
            if watermark is None:
                self._watermarks.pop(partition, None)
            else:
                self._watermarks[partition] = watermark

    def rise(self, partition: int, watermark: Watermark) -> None:
        """Remember ``watermark`` if it continues the one held."""
        with self._lock:
            held = self._watermarks.get(partition)
            if held is None or (held.token == watermark.token and held.offset <= watermark.offset):
                self._watermarks[partition] = watermark
