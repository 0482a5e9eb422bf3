"""The index of decisions that wait for labels: one SQLite file, a function of the log up to its watermarks.

    decisions_N     id, score, time, partition, offset, kind, label     payments of the N-th span of event time
    kinds           (decision, model, segment) as one small number
    waiting         labels whose decision has not been read yet
    watermarks      per topic and partition: everything before this offset is in here; and that partition's clock

id is the 128-bit xxh3 of user and transaction: 64 bits to find a decision by and 64 to tell it from any other. Among
10⁸ decisions two meet with a probability of 10⁻²³. Ids themselves are not kept: a label brings its own.

Why tables by time: keys are random, so one table of 10⁸ would touch a page of its own for each insert, and would have
to be searched to expire anything. A table of one span is a sixteenth of the retention, takes its rows sorted in
batches, and is dropped whole. A label does not say when its payment was, so it looks into each: 17 look-ups of about
3 µs, against 127 if there were one a day.

Times are the stream's own. A span leaves once the horizon, the event time that all of the log read so far has come to,
is past its end by `kept_ms` = retention + 7 days (at most the retention once more), as the topic keeps decisions.
"""

# Statements are put together from span numbers and our own table names only.
# ruff: noqa: S608

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import xxhash

from stream.label_index_file import in_sentences, open_index, want
from stream.label_waiting import Waiting, WaitingLabels
from stream.topics import OUTAGE_MS

__all__ = ["Entry", "Found", "LabelIndex", "Mark", "Waiting", "identify"]

Place = tuple[str, int]

SPANS: Final = 16

_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS decisions_{number} (
        id BLOB PRIMARY KEY, score INTEGER, time INTEGER, partition INTEGER, offset INTEGER, kind INTEGER, label INTEGER
    ) WITHOUT ROWID
"""


#: A decision to be kept: id, bits of its float32 score, event time in ms, partition, offset, kind (LabelIndex.kind).
Entry = tuple[bytes, int, int, int, int, int]


class Found(NamedTuple):
    """A decision that was kept, and what it is labelled so far (None: not at all)."""

    partition: int
    offset: int
    score: int
    time_ms: int
    kind: int
    label: bool | None
    span: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything of a partition before `offset` is in the index; clock_ms: the newest time read there, −1 before."""

    offset: int
    clock_ms: int = -1


def identify(user_id: str | int, transaction_id: str | int) -> bytes:
    """Return the 16 bytes by which a decision and its labels find each other; 42 and "42" are the same."""
    user_id = str(user_id)
    return xxhash.xxh3_128_digest(f"{len(user_id)}:{user_id}{transaction_id}".encode())


class LabelIndex:
    """One open file; one thread, and one process at a time. Every method raises LabelIndexError.

    Changes lie in one open transaction until store() or roll_back(). identity: what the file must have been made of and
    for (topic ids, sample rate, …); where it differs the file is emptied, and `marks` is empty.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], retention_ms: int) -> None:
        self.path = path
        self.retention_ms = retention_ms
        self.span_ms = max(1, retention_ms // SPANS)
        self.kept_ms = retention_ms + min(OUTAGE_MS, retention_ms)
        self.marks: dict[Place, Mark] = {}
        self._spans: dict[int, int] = {}
        self._kinds: dict[int, tuple[str, str, str]] = {}
        self._expired = -(1 << 62)
        self._connection = open_index(path, {**identity, "retention_ms": str(retention_ms)})
        with in_sentences(path):
            self._load()

    def close(self) -> None:
        """Close the file; what was not stored is gone, and read again from the log."""
        with in_sentences(self.path):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.close()

    @property
    def decisions(self) -> int:
        """How many decisions it holds."""
        return sum(self._spans.values())

    @property
    def waiting(self) -> int:
        """How many labels wait."""
        return len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """What it takes on disk, the write-ahead log included."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def kind(self, triple: tuple[str, str, str]) -> int:
        """Return the small number of a decision, its model and its segment."""
        found = self._numbers.get(triple)
        if found is None:
            with in_sentences(self.path):
                found = self._execute("INSERT INTO kinds VALUES (NULL, ?, ?, ?)", triple).lastrowid or 0
            self._numbers[triple], self._kinds[found] = found, triple
        return found

    def kind_of(self, number: int) -> tuple[str, str, str]:
        """Return decision, model and segment."""
        return self._kinds[number]

    def add(self, entries: Iterable[Entry]) -> tuple[int, Collection[int]]:
        """Keep decisions, of equal ids the first; return how many were new to their span, and all their spans."""
        spans: defaultdict[int, list[Any]] = defaultdict(list)
        span_ms = self.span_ms
        for id_, score, time_ms, partition, offset, kind in entries:
            number = time_ms // span_ms
            spans[number].append((id_, score, time_ms - number * span_ms, partition, offset, kind))
        before = self.decisions
        with in_sentences(self.path):
            for number, rows in spans.items():
                if number not in self._spans:
                    self._execute(_TABLE.format(number=number))
                # Sorted, so that neighbours in a page are written together; a stable sort keeps the first one first.
                rows.sort(key=itemgetter(0))
                done = self._many(f"INSERT OR IGNORE INTO decisions_{number} VALUES (?, ?, ?, ?, ?, ?, NULL)", rows)
                self._spans[number] = self._spans.get(number, 0) + done.rowcount
        return self.decisions - before, spans.keys()

    def find(self, ids: Iterable[bytes], spans: Iterable[int] | None = None) -> dict[bytes, Found]:
        """Return the decisions of these ids that are kept; of several, the one whose transaction was read first.

        spans: which of them to look into; None: each.
        """
        found: dict[bytes, Found] = {}
        with in_sentences(self.path):
            self._begin()
            want(self._connection, ids)
            for number in self._spans if spans is None else spans:
                rows = self._connection.execute(
                    f"SELECT id, partition, offset, score, {number * self.span_ms} + time, kind, label "
                    f"FROM wanted CROSS JOIN decisions_{number} USING (id)"
                )
                for id_, partition, offset, score, time_ms, kind, label in rows:
                    verdict = None if label is None else bool(label)
                    one = Found(partition, offset, score, time_ms, kind, verdict, number)
                    if id_ not in found or one < found[id_]:
                        found[id_] = one
        return found

    def set_labels(self, labels: Iterable[tuple[int, bytes, bool]]) -> None:
        """Note what decisions are labelled now: (span, id, is fraud)."""
        with in_sentences(self.path):
            for span, group in groupby(sorted(labels), key=itemgetter(0)):
                rows = [(label, id_) for _, id_, label in group]
                self._many(f"UPDATE decisions_{span} SET label = ? WHERE id = ?", rows)

    def await_decisions(self, labels: Sequence[Waiting]) -> None:
        """Keep labels until their decisions are read."""
        self._waiting.add(labels)

    def take_waiting(self, ids: Iterable[bytes]) -> list[Waiting]:
        """Return the labels that waited for these decisions, those of one in the order they came; they wait no more."""
        with in_sentences(self.path):
            self._begin()
            return self._waiting.take(ids)

    def expire(self, horizon_ms: int) -> tuple[int, list[Waiting]]:
        """Drop what no label, and no decision, can come for; return how many decisions, and the labels given up."""
        self._expired = number = max(self._expired, (horizon_ms - self.kept_ms) // self.span_ms)
        dropped = 0
        with in_sentences(self.path):
            self._begin()
            for span in [span for span in self._spans if span < number]:
                self._execute(f"DROP TABLE decisions_{span}")
                dropped += self._spans.pop(span)
            given_up = self._waiting.give_up(number * self.span_ms)
        return dropped, given_up

    def store(self, marks: Mapping[Place, Mark]) -> None:
        """Make all changes durable together with the marks they stand at."""
        with in_sentences(self.path):
            self._begin()
            self._waiting.flush()
            rows = [(*place, mark.offset, mark.clock_ms) for place, mark in marks.items()]
            self._many("INSERT OR REPLACE INTO watermarks VALUES (?, ?, ?, ?)", rows)
            self._execute("DELETE FROM spans")
            self._many("INSERT INTO spans VALUES (?, ?)", list(self._spans.items()))
            self._connection.execute("COMMIT")
        self.marks.update(marks)

    def roll_back(self) -> None:
        """Go back to what was stored last."""
        with in_sentences(self.path):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._load()

    def clear(self) -> None:
        """Forget everything, watermarks too."""
        with in_sentences(self.path):
            self.roll_back()
            self._begin()
            for span in self._spans:
                self._execute(f"DROP TABLE decisions_{span}")
            for table in ("kinds", "waiting", "watermarks", "spans"):
                self._execute(f"DELETE FROM {table}")
            self._connection.execute("COMMIT")
            self._load()

    def content(self) -> list[tuple[object, ...]]:
        """Return all it holds in an order of its own, to compare two indexes by."""
        rows: list[tuple[object, ...]] = []
        for span in sorted(self._spans):
            found = self._execute(f"SELECT id, score, time, partition, offset, kind, label FROM decisions_{span}")
            rows += [("decision", span, *row[:5], *self._kinds[row[5]], row[6]) for row in found]
        return [*rows, *(("waiting", *row) for row in self._waiting.content())]

    def _load(self) -> None:
        rows = self._connection.execute("SELECT topic, partition, offset, clock_ms FROM watermarks")
        self.marks = {(topic, partition): Mark(offset, clock_ms) for topic, partition, offset, clock_ms in rows}
        self._spans = dict(self._connection.execute("SELECT number, decisions FROM spans"))
        self._kinds = {row[0]: row[1:] for row in self._connection.execute("SELECT * FROM kinds")}
        self._numbers = {triple: number for number, triple in self._kinds.items()}
        self._waiting = WaitingLabels(self._connection)
        self._expired = -(1 << 62)

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    def _execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        if not statement.startswith("SELECT"):
            self._begin()
        return self._connection.execute(statement, values)

    def _many(self, statement: str, rows: Sequence[Sequence[object]]) -> sqlite3.Cursor:
        self._begin()
        return self._connection.executemany(statement, rows)
