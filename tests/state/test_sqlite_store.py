"""What only the SQLite store promises: one process, one file of ours, full disks, crashes, expiry."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from state.errors import DamagedRecord, StoreMismatch, StoreUnavailable
from state.sqlite_store import SqliteStore
from state.store import Namespace, Row

ROOT = Path(__file__).resolve().parents[2]
DAY_MS = 86_400_000

HOLDER = """
import dataclasses, sys
from state.sqlite_store import SqliteStore
from state.store import Namespace, Row
store = SqliteStore(sys.argv[1], Namespace("cluster", "group", "transactions", "id", "hash", 4))
store.open()
known = store.begin(0, 0)
step = 0
while True:
    store.save(0, [Row(b"user-%d" % number, step, b"%d" % step, 0) for number in range(100)])
    known = store.advance(0, known, step + 1)
    step += 1
    print(known.offset, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "state.db"


@pytest.fixture
def store(path: Path, namespace: Namespace) -> Iterator[SqliteStore]:
    store = SqliteStore(path, namespace)
    store.open()
    yield store
    store.close()


def raw(path: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def refusal(path: Path, namespace: Namespace) -> str:
    with pytest.raises(StoreMismatch) as refused:
        SqliteStore(path, namespace).open()
    return str(refused.value)


def test_a_second_process_is_refused_and_a_killed_one_leaves_w_true(path: Path) -> None:
    namespace = Namespace("cluster", "group", "transactions", "id", "hash", 4)
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            acknowledged = [int(holder.stdout.readline()) for _ in range(30)][-1]
            assert "in use by another worker process" in refusal(path, namespace)
            watcher = SqliteStore(path, namespace, exclusive=False)
            watcher.open()
            assert watcher.watermark(0).offset >= acknowledged
            watcher.close()
        finally:
            holder.kill()
    store = SqliteStore(path, namespace)
    store.open()
    records, watermark = store.load(0, [b"user-%d" % number for number in range(100)])
    assert watermark.offset >= acknowledged
    assert min(int(record) for record in records) >= watermark.offset - 1
    store.close()


def test_a_store_that_fails_to_open_lets_go_of_its_lock(path: Path, namespace: Namespace) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    assert "not a readable SQLite file" in refusal(path, namespace)
    path.unlink()
    store = SqliteStore(path, namespace)
    store.open()
    store.close()


def test_another_programs_database_is_refused_and_left_as_it_was(path: Path, namespace: Namespace) -> None:
    path.parent.mkdir()
    raw(path, "CREATE TABLE theirs (id INTEGER)")
    before = path.read_bytes()
    assert "another program's SQLite file" in refusal(path, namespace)
    assert path.read_bytes() == before


def test_another_versions_file_is_refused(path: Path, store: SqliteStore, namespace: Namespace) -> None:
    store.close()
    raw(path, "PRAGMA user_version = 99")
    assert "written by another version (format 99, this one reads 1)" in refusal(path, namespace)


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, namespace: Namespace) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot be created" in refusal(tmp_path / "file" / "state.db", namespace)
    (tmp_path / "folder").mkdir()
    assert "cannot be written" in refusal(tmp_path / "folder", namespace)


def test_a_corrupt_page_is_an_error_and_never_an_empty_window(
    path: Path, store: SqliteStore, namespace: Namespace
) -> None:
    store.begin(0, 0)
    users = [b"user-%d" % number for number in range(500)]
    store.save(0, [Row(user, 1, bytes(1000), 0) for user in users])
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 8 :] = b"\xa5" * (len(content) - 4096 * 8)
    path.write_bytes(content)
    store = SqliteStore(path, namespace)
    store.open()
    with pytest.raises(StoreMismatch, match="not a readable SQLite file"):
        store.load(0, users)
    store.close()


def test_a_record_of_another_type_is_damage_that_names_the_key(path: Path, store: SqliteStore) -> None:
    store.begin(0, 0)
    store.save(0, [Row(b"a", 1, b"record", 0), Row(b"b", 1, b"record", 0)])
    raw(path, "UPDATE users SET record = 'text' WHERE user = x'62'")
    assert store.load(0, [b"a"]).records == [b"record"]
    with pytest.raises(DamagedRecord) as damaged:
        store.load(0, [b"a", b"b"])
    assert damaged.value.key == store.key(0, b"b")
    assert damaged.value.key in str(damaged.value)


def test_a_full_disk_is_unavailable_keeps_what_was_and_passes(store: SqliteStore) -> None:
    began = store.begin(0, 0)
    store.save(0, [Row(b"a", 1, b"first", 0)])
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages + 10}")
    many = [Row(b"a", 2, b"second", 0), *(Row(b"user-%d" % number, 2, bytes(1000), 0) for number in range(1000))]
    with pytest.raises(StoreUnavailable, match="full"):
        store.save(0, many)
    assert store.load(0, [b"a", b"user-0"]) == ([b"first", None], began)
    store._writer.execute("PRAGMA max_page_count = 1000000")
    store.save(0, many)
    assert store.load(0, [b"a", b"user-999"]).records == [b"second", bytes(1000)]


def test_a_save_that_fails_halfway_leaves_nothing(store: SqliteStore) -> None:
    store.begin(0, 0)
    with pytest.raises(OverflowError):
        store.save(0, [Row(b"a", 1, b"record", 0), Row(b"b", 1 << 63, b"record", 0)])
    assert store.load(0, [b"a", b"b"]).records == [None, None]


def test_a_file_locked_by_another_program_is_unavailable_and_passes(path: Path, store: SqliteStore) -> None:
    known = store.begin(0, 0)
    store._writer.execute("PRAGMA busy_timeout = 50")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.advance(0, known, 5)
        assert store.load(0, []).watermark == known
        other.execute("ROLLBACK")
    assert store.advance(0, known, 5).offset == 5


def test_users_not_written_for_long_are_swept_by_later_saves(path: Path, namespace: Namespace) -> None:
    now_ms = [100 * DAY_MS]
    store = SqliteStore(path, namespace, expire_after_ms=32 * DAY_MS, now_ms=lambda: now_ms[0])
    store.open()
    store.begin(0, 0)
    idle = [b"idle-%d" % number for number in range(2500)]
    store.save(0, [Row(user, 1, b"record", 0) for user in [*idle, b"busy"]])
    now_ms[0] += 32 * DAY_MS
    for step in range(2, 10):
        store.save(0, [Row(b"busy", step, b"record", 0)])
    assert store.load(0, idle).records == [b"record"] * len(idle)
    now_ms[0] += 1
    for step in range(10, 18):
        store.save(0, [Row(b"another", step, b"record", 0)])
    assert store.load(0, [*idle, b"busy"]).records == [None] * len(idle) + [b"record"]
    assert raw(path, "SELECT count(*) FROM users") == [(2,)]
    store.close()


def test_the_file_is_in_wal_mode_and_names_its_program(path: Path, store: SqliteStore) -> None:
    assert raw(path, "PRAGMA journal_mode") == [("wal",)]
    assert raw(path, "PRAGMA application_id") == [(int.from_bytes(b"FRST", "big"),)]
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (1,)
