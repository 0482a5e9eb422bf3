"""Labels whose decision has not been read yet, in the order they came.

    add ─▶ fresh, in memory ── flush ─▶ stored, the table `waiting` ── take ─▶ their decision came
                 └──────────── take ─▶ (most: never on disk)      └── give_up ─▶ none can come any more

What is fresh is lost in a crash, with all that was read since the index was stored, and is read again with it.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from stream.label_index_file import want

__all__ = ["Waiting", "WaitingLabels"]

#: A label that waits: id, is fraud, label_time, transaction_id, user_id.
Waiting = tuple[bytes, bool, int, str, str]

NEVER_MS: Final = 1 << 62


class WaitingLabels:
    """Both halves as one. The caller opens the transaction that take(), give_up() and flush() change the file in."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.load()

    def load(self) -> None:
        """Go back to what the table holds."""
        self._fresh: dict[bytes, list[Waiting]] = {}
        self._fresh_count, self._fresh_earliest_ms = 0, NEVER_MS
        self._stored = self._ids()
        # Nothing stored is earlier than this; what leaves early does not move it.
        self._stored_count: int
        self._stored_count, earliest_ms, number = self._connection.execute(
            "SELECT count(*), min(label_time), max(number) FROM waiting"
        ).fetchone()
        self._stored_earliest_ms = NEVER_MS if earliest_ms is None else earliest_ms
        self._number = -1 if number is None else number

    def __len__(self) -> int:
        return self._fresh_count + self._stored_count

    def add(self, labels: Sequence[Waiting]) -> None:
        """Let labels wait."""
        fresh = self._fresh
        for label in labels:
            fresh.setdefault(label[0], []).append(label)
        self._fresh_count += len(labels)
        self._fresh_earliest_ms = min(self._fresh_earliest_ms, min((label[2] for label in labels), default=NEVER_MS))

    def take(self, ids: Iterable[bytes]) -> list[Waiting]:
        """Return the labels that waited for these decisions, those of one in the order they came; they wait no more."""
        if not self:
            return []
        wanted = set(ids)
        rows: list[Any] = []
        if stored := wanted & self._stored:
            want(self._connection, stored)
            rows = self._connection.execute(
                "SELECT number, id, is_fraud, label_time, transaction_id, user_id "
                "FROM wanted CROSS JOIN waiting USING (id)"
            ).fetchall()
            self._connection.execute("DELETE FROM waiting WHERE id IN (SELECT id FROM wanted)")
            self._stored -= stored
            self._stored_count -= len(rows)
            rows.sort()
        fresh = list(chain.from_iterable(map(self._fresh.pop, wanted & self._fresh.keys())))
        self._fresh_count -= len(fresh)
        # What is fresh came after all that is stored.
        return [_label(row) for row in rows] + fresh

    def give_up(self, before_ms: int) -> list[Waiting]:
        """Return the labels that became known before this; they wait no more."""
        given_up = []
        if self._fresh_earliest_ms < before_ms:
            left = [label for label in chain.from_iterable(self._fresh.values()) if label[2] >= before_ms]
            given_up += [label for label in chain.from_iterable(self._fresh.values()) if label[2] < before_ms]
            self._fresh, self._fresh_count, self._fresh_earliest_ms = {}, 0, NEVER_MS
            self.add(left)
        if self._stored_earliest_ms < before_ms:
            rows = self._connection.execute(
                "SELECT number, id, is_fraud, label_time, transaction_id, user_id FROM waiting WHERE label_time < ?",
                (before_ms,),
            ).fetchall()
            self._connection.executemany(
                "DELETE FROM waiting WHERE id = ? AND number = ?", [(r[1], r[0]) for r in rows]
            )
            given_up += map(_label, rows)
            self._stored_earliest_ms = before_ms
            self._stored_count -= len(rows)
            self._stored = self._ids()
        return given_up

    def flush(self) -> None:
        """Put what is fresh into the table."""
        rows = []
        for id_ in sorted(self._fresh):
            for label in self._fresh[id_]:
                self._number += 1
                rows.append((id_, self._number, *label[1:]))
        self._connection.executemany("INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._stored.update(self._fresh)
        self._stored_count += self._fresh_count
        self._stored_earliest_ms = min(self._stored_earliest_ms, self._fresh_earliest_ms)
        self._fresh, self._fresh_count, self._fresh_earliest_ms = {}, 0, NEVER_MS

    def content(self) -> list[tuple[Any, ...]]:
        """Return all of it, sorted."""
        rows = self._connection.execute("SELECT id, is_fraud, label_time, transaction_id, user_id FROM waiting")
        return sorted([*rows, *chain.from_iterable(self._fresh.values())])

    def _ids(self) -> set[bytes]:
        return {id_ for (id_,) in self._connection.execute("SELECT DISTINCT id FROM waiting")}


def _label(row: Sequence[Any]) -> Waiting:
    _, id_, is_fraud, label_time, transaction_id, user_id = row
    return id_, bool(is_fraud), label_time, transaction_id, user_id
