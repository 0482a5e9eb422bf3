"""A store in the process's own memory, for demonstrations and tests: it lasts as long as its ``MemoryBacking``."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence

from state.errors import StoreUnavailable
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

__all__ = ["MemoryBacking", "MemoryStore"]


@dataclasses.dataclass(slots=True)
class _Partition:
    watermark: Watermark
    rows: dict[bytes, tuple[int, bytes]] = dataclasses.field(default_factory=dict)  # user: (applied, record)


class MemoryBacking:
    """The data of one or more ``MemoryStore`` objects: pass the same one to each that shall see the same state."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.namespaces: dict[str, Namespace] = {}
        self.partitions: dict[tuple[str, int], _Partition] = {}

    def wipe(self) -> None:
        """Forget everything."""
        with self.lock:
            self.namespaces.clear()
            self.partitions.clear()


class MemoryStore:
    """``Store`` over a ``MemoryBacking``. Users never expire here: nothing outlives the process."""

    def __init__(
        self, namespace: Namespace, backing: MemoryBacking | None = None, *, now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        """Bind to ``namespace``; without a ``backing`` the state is this object's own."""
        self._namespace = namespace
        self._digest = namespace.digest
        self._backing = backing if backing is not None else MemoryBacking()
        self._now_ms = now_ms
        self._last_seen = LastSeen()
        self._open = False

    def open(self) -> None:
        """Allow the other calls."""
        self._open = True

    def close(self) -> None:
        """Refuse further calls; the backing keeps the data."""
        self._open = False

    def registered(self) -> list[Namespace]:
        """List the namespaces begun in this backing for the same cluster, group and topic."""
        with self._use() as backing:
            return [other for other in backing.namespaces.values() if other.family == self._namespace.family]

    def register(self) -> None:
        """Record the namespace with its number of partitions."""
        with self._use() as backing:
            backing.namespaces[self._digest] = self._namespace

    def watermark(self, partition: int) -> Watermark | None:
        """Read W and remember it as last seen."""
        with self._use():
            stored = self._stored(partition)
        self._last_seen.put(partition, stored)
        return stored

    def begin(self, partition: int, offset: int) -> Watermark:
        """Start the partition anew."""
        watermark = begun(offset, self._now_ms())
        with self._use() as backing:
            check_registered(self._namespace, backing.namespaces.setdefault(self._digest, self._namespace))
            backing.partitions[self._digest, partition] = _Partition(watermark)
        self._last_seen.put(partition, watermark)
        return watermark

    def load(self, partition: int, users: Sequence[bytes]) -> Loaded:
        """Read many users and W under one lock."""
        with self._use() as backing:
            watermark = verified(partition, self._last_seen.get(partition), self._stored(partition))
            rows = backing.partitions[self._digest, partition].rows
            records = [row[1] if (row := rows.get(user)) is not None else None for user in users]
        self._last_seen.rise(partition, watermark)
        return Loaded(records, watermark)

    def save(self, partition: int, rows: Sequence[Row]) -> None:
        """Keep the newer version of each user."""
        if not rows:
            return
        with self._use() as backing:
            verified(partition, self._last_seen.get(partition), self._stored(partition))
            kept = backing.partitions[self._digest, partition].rows
            for row in rows:
                held = kept.get(row.user)
                if held is None or row.applied > held[0]:
                    kept[row.user] = (row.applied, row.record)

    def advance(self, partition: int, known: Watermark, offset: int) -> Watermark:
        """Raise W under one lock."""
        with self._use() as backing:
            watermark = advanced(partition, known, self._stored(partition), offset, self._now_ms())
            backing.partitions[self._digest, partition].watermark = watermark
        self._last_seen.rise(partition, watermark)
        return watermark

    def key(self, partition: int, user: bytes) -> str:
        """Name a user's record."""
        return f"memory:{self._digest}:{partition}:{user.decode(errors='backslashreplace')}"

    @contextlib.contextmanager
    def _use(self) -> Iterator[MemoryBacking]:
        if not self._open:
            raise StoreUnavailable("the store is closed")
        with self._backing.lock:
            yield self._backing

    def _stored(self, partition: int) -> Watermark | None:
        held = self._backing.partitions.get((self._digest, partition))
        return held.watermark if held is not None else None
