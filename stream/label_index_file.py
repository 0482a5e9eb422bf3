"""The SQLite file of the label index: whose it is, how it is laid out, and its errors as sentences."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from stream.errors import LabelIndexError

__all__ = ["in_sentences", "open_index", "want"]

APPLICATION_ID: Final = 0x4652534C  # "FRSL": what file(1) and a foreign SQLite program can tell our file by
FORMAT: Final = 2

LOCK_SECS: Final = 5.0

#: What the write-ahead log keeps on disk once it is written into the file.
LOG_BYTES: Final = 4 << 20

_SCHEMA: Final = f"""
    BEGIN EXCLUSIVE;
    CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE watermarks (
        topic TEXT, partition INTEGER, offset INTEGER NOT NULL, clock_ms INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    );
    CREATE TABLE spans (number INTEGER PRIMARY KEY, decisions INTEGER NOT NULL);
    CREATE TABLE kinds (number INTEGER PRIMARY KEY, decision TEXT, model TEXT, segment TEXT);
    CREATE TABLE waiting (
        id BLOB, number INTEGER, is_fraud INTEGER, label_time INTEGER, transaction_id TEXT, user_id TEXT,
        PRIMARY KEY (id, number)
    ) WITHOUT ROWID;
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {FORMAT};
    COMMIT;
"""


def open_index(path: Path, identity: Mapping[str, str]) -> sqlite3.Connection:
    """Open the file, laid out anew where it is missing, of another format or identity; nobody else may have it open.

    Emptying a file of ours loses nothing: it is a function of the log. Another program's is refused. Raises
    LabelIndexError.
    """
    with in_sentences(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabelIndexError(
                f"The folder of {path} cannot be made ({error.strerror}): correct labels.index."
            ) from None
        connection = _connect(path)
        try:
            if not _is_same(connection, path, identity):
                connection.close()
                for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                    path.with_name(name).unlink(missing_ok=True)
                connection = _connect(path)
                connection.executescript(_SCHEMA)
                connection.executemany("INSERT INTO identity VALUES (?, ?)", identity.items())
        except BaseException:
            connection.close()
            raise
        return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LOCK_SECS, isolation_level=None, check_same_thread=False)
    try:
        # Held until the end: two processes would each believe the file to be where only they have brought it.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last transactions, never a part of one; the log is then read again from an older W.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -65536")
        # What leaves need not be overwritten: whoever reads this file may read the topics it is made of.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        connection.execute("PRAGMA temp_store = MEMORY")
        # Ids to look up at once: joined with a table, they cost half of what as many parameters do.
        connection.execute("CREATE TEMP TABLE wanted (id BLOB PRIMARY KEY) WITHOUT ROWID")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def want(connection: sqlite3.Connection, ids: Iterable[bytes]) -> None:
    """Fill the temporary table `wanted` with these, each once; inside a transaction."""
    connection.execute("DELETE FROM wanted")
    connection.executemany("INSERT INTO wanted VALUES (?)", [(id_,) for id_ in sorted(set(ids))])


def _is_same(connection: sqlite3.Connection, path: Path, identity: Mapping[str, str]) -> bool:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID:
        if tables or application_id or version:
            raise LabelIndexError(f"{path} is another program's file: give labels.index a path of its own.")
        return False
    if version != FORMAT or not tables:
        return False
    return dict(connection.execute("SELECT name, value FROM identity")) == dict(identity)


@contextlib.contextmanager
def in_sentences(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one sentence each."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            sentence = f"{path} is in use by another process: stop that one, or give labels.index a path of its own."
        elif name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            sentence = (
                f"{path} is not a readable SQLite file ({error}): move it away, and the index is read from the log."
            )
        elif name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
            sentence = f"The index {path} cannot be written ({error}): mend its permissions, or correct labels.index."
        else:
            sentence = (
                f"The index {path} cannot be used now ({error}): make room or mend the disk, and start again; nothing "
                f"is lost, since what was not stored is read again from the log."
            )
        raise LabelIndexError(sentence) from error
