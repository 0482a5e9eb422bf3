"""Every durable store behind one face, so that one suite can run over all of them and do to each what befalls it."""

import abc
import contextlib
import copy
import itertools
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from redis_server import RedisServer
from state.memory_store import MemoryBacking, MemoryStore
from state.redis_store import RedisStore
from state.sqlite_store import SqliteStore
from state.store import Namespace, Store


def new_namespace() -> Namespace:
    """Name a namespace that nothing was ever kept under."""
    return Namespace("cluster", f"group-{uuid.uuid4()}", "transactions", "topic-id", "state-hash", 4)


class Backend(abc.ABC):
    """A place where stores keep their data. It outlives the store objects that look at it."""

    def __init__(self) -> None:
        self._opened: list[Store] = []

    def open(self, namespace: Namespace, **options: Any) -> Store:
        """Open one more store object on the same data."""
        store = self.store(namespace, **options)
        store.open()
        self._opened.append(store)
        return store

    def close(self) -> None:
        """Close what was opened."""
        for store in self._opened:
            store.close()
        self._opened.clear()

    @abc.abstractmethod
    def store(self, namespace: Namespace, **options: Any) -> Store:
        """Make a store object, not yet open."""

    @abc.abstractmethod
    def crash(self) -> None:
        """End whatever holds the data, without warning, and bring it back."""

    @abc.abstractmethod
    def wipe(self) -> None:
        """Lose all data under the open stores."""

    @abc.abstractmethod
    def snapshot(self) -> Any:
        """Keep the data as it is now."""

    @abc.abstractmethod
    def restore(self, snapshot: Any) -> None:
        """Put the data back under the open stores."""


class Memory(Backend):
    """One ``MemoryBacking``."""

    def __init__(self) -> None:
        super().__init__()
        self._backing = MemoryBacking()

    def store(self, namespace: Namespace, **options: Any) -> Store:
        options.pop("expire_after_ms", None)
        return MemoryStore(namespace, self._backing, **options)

    def crash(self) -> None:
        """Nothing outlives this process but the backing, which is meant to."""

    def wipe(self) -> None:
        self._backing.wipe()

    def snapshot(self) -> Any:
        return copy.deepcopy((self._backing.namespaces, self._backing.partitions))

    def restore(self, snapshot: Any) -> None:
        self._backing.namespaces, self._backing.partitions = copy.deepcopy(snapshot)


class Sqlite(Backend):
    """One file, which several store objects may open: that one process has it alone is tested by itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "state.db"
        self._snapshots = itertools.count()

    def store(self, namespace: Namespace, **options: Any) -> Store:
        return SqliteStore(self.path, namespace, exclusive=False, **options)

    def crash(self) -> None:
        """A file has no server. What a killed process leaves behind is tested by itself."""

    def wipe(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as operator, operator:
            for table in ("users", "watermarks", "namespaces"):
                operator.execute(f"DELETE FROM {table}")

    def snapshot(self) -> Path:
        path = self.path.with_name(f"snapshot-{next(self._snapshots)}.db")
        self._copy(self.path, path)
        return path

    def restore(self, snapshot: Path) -> None:
        self._copy(snapshot, self.path)

    def _copy(self, source: Path, target: Path) -> None:
        with contextlib.closing(sqlite3.connect(source)) as held, contextlib.closing(sqlite3.connect(target)) as copied:
            held.backup(copied)


class Redis(Backend):
    """One server, which no other test may need at the same time."""

    def __init__(self, server: RedisServer, *, cluster: bool) -> None:
        super().__init__()
        self.server = server
        self._cluster = cluster

    def store(self, namespace: Namespace, **options: Any) -> Store:
        return RedisStore(self.server.url, namespace, cluster=self._cluster, **options)

    def crash(self) -> None:
        self.server.kill()
        self.server.start()

    def wipe(self) -> None:
        self.server.flush()

    def snapshot(self) -> Path:
        return self.server.snapshot()

    def restore(self, snapshot: Path) -> None:
        self.server.restore(snapshot)
