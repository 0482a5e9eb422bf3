"""A store in one SQLite file: the embedded default, for one worker process.

The file is in WAL mode with ``synchronous=NORMAL``. A killed process loses nothing. A power cut may lose the last
transactions, but WAL keeps their order, so what is left is an earlier state of users and watermarks together (rule 6 of
``state.store``), and replay from the log mends it. ``FULL`` would pay one fsync a save for nothing.

Two connections, so that a load never waits for a checkpoint's save: WAL lets one read while the other writes.
"""

import contextlib
import os
import pathlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence

from state.errors import DamagedRecord, StoreMismatch
from state.sqlite_file import connect, in_sentences, lock_file, prepare, transaction
from state.store import (
    LastSeen,
    Loaded,
    Namespace,
    Row,
    Watermark,
    advanced,
    begun,
    check_registered,
    verified,
    wall_clock_ms,
)

__all__ = ["SqliteStore"]

_READ_CHUNK = 500  # users a query: below SQLite's oldest limit of 999 variables
_SWEEP_ROWS = 1000  # rows looked at for expiry after each save: a few ms, a million users in some hours

_SAVE = """
    INSERT INTO users (watermark, user, applied, newest_ms, written_at_ms, record) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (watermark, user) DO UPDATE SET applied = excluded.applied, newest_ms = excluded.newest_ms,
        written_at_ms = excluded.written_at_ms, record = excluded.record
    WHERE excluded.applied > users.applied
"""
_SWEEP = """
    SELECT max(id), min(written_at_ms) FROM (SELECT id, written_at_ms FROM users WHERE id > ? ORDER BY id LIMIT ?)
"""


class SqliteStore:
    """``Store`` in the SQLite file at ``path``, created with its folder if missing."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        namespace: Namespace,
        *,
        expire_after_ms: int | None = None,
        exclusive: bool = True,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Bind to a namespace of the file.

        ``expire_after_ms``: users not written for so long, by the wall clock, are deleted as later saves sweep by;
        the retention and a margin that covers how far behind the worker may fall. None keeps all.
        ``exclusive``: refuse a file that another process has open. False is for who only looks.
        """
        self._path = pathlib.Path(path)
        self._namespace = namespace
        self._digest = namespace.digest
        self._expire_after_ms = expire_after_ms
        self._exclusive = exclusive
        self._now_ms = now_ms
        self._last_seen = LastSeen()
        self._swept_id = 0
        self._lock_file: int | None = None
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writing = threading.Lock()
        self._reading = threading.Lock()

    def open(self) -> None:
        """Take the file's lock, check that the file is ours and may be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = lock_file(self._path) if self._exclusive else None
        except OSError as error:
            raise StoreMismatch(f"the state file {self._path} cannot be created: {error.strerror}") from error
        try:
            with in_sentences(self._path, opening=True):
                self._writer = connect(self._path)
                prepare(self._writer, self._path)
                self._reader = connect(self._path)
                self._reader.execute("PRAGMA query_only = ON")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close both connections, then let go of the lock."""
        with self._writing, self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def registered(self) -> list[Namespace]:
        """List the namespaces begun in this file for the same cluster, group and topic."""
        with self._read() as reader:
            rows = reader.execute(
                "SELECT namespace FROM namespaces WHERE family = ?", (self._namespace.family,)
            ).fetchall()
        return [Namespace.from_json(text) for (text,) in rows]

    def register(self) -> None:
        """Record the namespace with its number of partitions."""
        with self._write() as writer:
            writer.execute("INSERT OR REPLACE INTO namespaces VALUES (?, ?, ?)", self._registration())

    def watermark(self, partition: int) -> Watermark | None:
        """Read W and remember it as last seen."""
        with self._read() as reader:
            stored = self._stored(reader, partition)
        self._last_seen.put(partition, stored[1] if stored else None)
        return stored[1] if stored else None

    def begin(self, partition: int, offset: int) -> Watermark:
        """Start the partition anew and delete its users, in one transaction."""
        watermark = begun(offset, self._now_ms())
        with self._write() as writer:
            writer.execute("INSERT OR IGNORE INTO namespaces VALUES (?, ?, ?)", self._registration())
            (held,) = writer.execute("SELECT namespace FROM namespaces WHERE digest = ?", (self._digest,)).fetchone()
            check_registered(self._namespace, Namespace.from_json(held))
            former = self._stored(writer, partition)
            if former is not None:
                writer.execute("DELETE FROM users WHERE watermark = ?", (former[0],))
                writer.execute("DELETE FROM watermarks WHERE id = ?", (former[0],))
            writer.execute(
                "INSERT INTO watermarks (namespace, partition, offset, token, written_at_ms) VALUES (?, ?, ?, ?, ?)",
                (self._digest, partition, watermark.offset, watermark.token, watermark.written_at_ms),
            )
        self._last_seen.put(partition, watermark)
        return watermark

    def load(self, partition: int, users: Sequence[bytes]) -> Loaded:
        """Read many users and W in one read transaction."""
        found: dict[bytes, bytes] = {}
        with self._read() as reader:
            watermark_id, watermark = self._verified(reader, partition)
            for start in range(0, len(users), _READ_CHUNK):
                chunk = users[start : start + _READ_CHUNK]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT user, record FROM users WHERE watermark = ? AND user IN ({marks})"  # noqa: S608 - question marks only
                found.update(reader.execute(query, (watermark_id, *chunk)))
        for user, record in found.items():
            if not isinstance(record, bytes):
                raise DamagedRecord(self.key(partition, user), "is not a blob")
        self._last_seen.rise(partition, watermark)
        return Loaded([found.get(user) for user in users], watermark)

    def save(self, partition: int, rows: Sequence[Row]) -> None:
        """Keep the newer version of each user, all in one transaction."""
        if not rows:
            return
        now_ms = self._now_ms()
        with self._write() as writer:
            watermark_id, _ = self._verified(writer, partition)
            writer.executemany(
                _SAVE, ((watermark_id, user, applied, newest, now_ms, record) for user, applied, record, newest in rows)
            )
            if self._expire_after_ms is not None:
                self._sweep(writer, now_ms - self._expire_after_ms)

    def advance(self, partition: int, known: Watermark, offset: int) -> Watermark:
        """Raise W in one transaction."""
        with self._write() as writer:
            stored = self._stored(writer, partition)
            watermark = advanced(partition, known, stored[1] if stored else None, offset, self._now_ms())
            writer.execute(
                "UPDATE watermarks SET offset = ?, written_at_ms = ? WHERE namespace = ? AND partition = ?",
                (watermark.offset, watermark.written_at_ms, self._digest, partition),
            )
        self._last_seen.rise(partition, watermark)
        return watermark

    def key(self, partition: int, user: bytes) -> str:
        """Name a user's record."""
        return f"{self._path}:{self._digest}:{partition}:{user.decode(errors='backslashreplace')}"

    def _registration(self) -> tuple[str, str, str]:
        return self._digest, self._namespace.family, self._namespace.to_json()

    def _stored(self, connection: sqlite3.Connection, partition: int) -> tuple[int, Watermark] | None:
        row = connection.execute(
            "SELECT id, offset, token, written_at_ms FROM watermarks WHERE namespace = ? AND partition = ?",
            (self._digest, partition),
        ).fetchone()
        return (row[0], Watermark(*row[1:])) if row is not None else None

    def _verified(self, connection: sqlite3.Connection, partition: int) -> tuple[int, Watermark]:
        # Before the read that it judges, so that W may rise meanwhile.
        known = self._last_seen.get(partition)
        stored = self._stored(connection, partition)
        watermark = verified(partition, known, stored[1] if stored else None)
        assert stored is not None
        return stored[0], watermark

    def _sweep(self, writer: sqlite3.Connection, before_ms: int) -> None:
        """Delete the expired among the next rows by id: an index on the time written would cost every save."""
        last_id, oldest_ms = writer.execute(_SWEEP, (self._swept_id, _SWEEP_ROWS)).fetchone()
        if last_id is None:
            self._swept_id = 0
            return
        if oldest_ms < before_ms:
            writer.execute(
                "DELETE FROM users WHERE id > ? AND id <= ? AND written_at_ms < ?", (self._swept_id, last_id, before_ms)
            )
        self._swept_id = last_id

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._reading, in_sentences(self._path), transaction(self._reader, "BEGIN") as reader:
            yield reader

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._writing, in_sentences(self._path), transaction(self._writer, "BEGIN IMMEDIATE") as writer:
            yield writer
