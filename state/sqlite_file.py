"""The SQLite file behind ``SqliteStore``: its lock, its format, its transactions, and its errors as sentences."""

import contextlib
import fcntl
import os
import pathlib
import sqlite3
from collections.abc import Iterator

from state.errors import StoreMismatch, StoreUnavailable

__all__ = ["connect", "in_sentences", "lock_file", "prepare", "transaction"]

_APPLICATION_ID = 0x46525354  # "FRST": what file(1) and a foreign SQLite program can tell our file by
_SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 5.0  # longer than any transaction here; only another program's lock is waited for that long

_SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS namespaces (digest TEXT PRIMARY KEY, family TEXT NOT NULL, namespace TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS watermarks (
        id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, partition INTEGER NOT NULL,
        offset INTEGER NOT NULL, token TEXT NOT NULL, written_at_ms INTEGER NOT NULL,
        UNIQUE (namespace, partition)
    );
    CREATE TABLE IF NOT EXISTS users (
        id INTEGER PRIMARY KEY, watermark INTEGER NOT NULL, user BLOB NOT NULL, applied INTEGER NOT NULL,
        newest_ms INTEGER NOT NULL, written_at_ms INTEGER NOT NULL, record BLOB NOT NULL,
        UNIQUE (watermark, user)
    );
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_SCHEMA_VERSION};
"""


def connect(path: pathlib.Path) -> sqlite3.Connection:
    """Open a connection that threads may hand around, with transactions begun by hand."""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def prepare(connection: sqlite3.Connection, path: pathlib.Path) -> None:
    """Check that the file is ours, lay it out if it is new, and prove that it may be written."""
    _check_ours(connection, path)
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")


def _check_ours(connection: sqlite3.Connection, path: pathlib.Path) -> None:
    """Refuse another program's file, another version's, and a file system that cannot do WAL."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != _APPLICATION_ID and (tables or application_id or version):
        raise StoreMismatch(f"{path} is another program's SQLite file: give the state a path of its own")
    if tables and version != _SCHEMA_VERSION:
        raise StoreMismatch(
            f"{path} was written by another version (format {version}, this one reads {_SCHEMA_VERSION}): "
            "give the state a new path and rebuild it from the log"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreMismatch(f"{path} is on a file system that cannot hold a SQLite WAL: choose a local disk")


def lock_file(path: pathlib.Path) -> int:
    """Take the lock beside the file; the system frees it however the process ends."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreMismatch(
            f"the state file {path} is in use by another worker process: stop that one, "
            "or choose the redis store, which several workers can share"
        ) from None
    return descriptor


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection | None, begin: str) -> Iterator[sqlite3.Connection]:
    """Run the block between ``begin`` and COMMIT; None is a store that was closed."""
    if connection is None:
        raise StoreUnavailable("the store is closed")
    connection.execute(begin)
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has SQLite roll back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def in_sentences(path: pathlib.Path, *, opening: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into ours: what a person must mend is a mismatch, what may pass is unavailability."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise StoreMismatch(
                f"{path} is not a readable SQLite file ({error}): move it away, the state is rebuilt from the log"
            ) from error
        if opening and name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
            raise StoreMismatch(f"the state file {path} cannot be written ({error}): mend its permissions") from error
        raise StoreUnavailable(f"the state file {path} cannot be used now: {error}") from error
