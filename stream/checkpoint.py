"""Stores what changed, behind the stream's back.

Step 1  at a boundary (nothing in flight, all acknowledged) copy the users changed longest ago, a bounded slice
Step 2  in a thread of its own: store them, higher applied offset wins
Step 3  then, and only then, advance the watermark to the first offset not yet stored
Step 4  back in the loop's thread: acknowledge the slice, so that its users may be evicted

At full speed a boundary costs what would overlap, so each copies much. At low rates there is one between any two
batches, and what it copies is what the next batch waits for: then a checkpoint is spread over many.

A slice whose write failed is written again as it is: a user's state at an offset never changes.

The watermark of a partition that nothing comes to is renewed once a day. It says that somebody holds the partition and
is not behind, so that users which expired meanwhile are those no window reaches any more.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass

from state.errors import StoreRolledBack, StoreUnavailable
from state.store import Row, Store, Watermark, wall_clock_ms
from stream.breaker import Breaker
from stream.observer import Observer
from stream.partition import Partition, Phase, Unwritten

__all__ = ["Checkpointer"]

RENEW_AFTER_MS = 86_400_000  # well within the days for which a watermark vouches for users the store lets expire
SLICE_USERS = 4096  # copied of each partition within a few milliseconds at the boundary
GENTLY_USERS = 256  # copied of all partitions in a quarter of a millisecond,
GENTLY_SHARE = 16  # but at least such a part of what changed, so that what is left shrinks faster than it grows


@dataclass(slots=True)
class _Write:
    partition: Partition
    slice: Unwritten
    future: Future[tuple[Watermark, float]]


class Checkpointer:
    """Owned by the loop's thread; only the writes run elsewhere.

    clock gives monotonic seconds, now_ms the wall clock that watermarks are stamped with.
    """

    def __init__(
        self,
        store: Store,
        observer: Observer,
        breaker: Breaker,
        clock: Callable[[], float],
        *,
        interval_secs: float,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._store = store
        self._observer = observer
        self._breaker = breaker
        self._clock = clock
        self._interval = interval_secs
        self._now_ms = now_ms
        self._next_at = clock() + interval_secs
        self._left: set[int] = set()  # the partitions that this checkpoint has not copied whole
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writes: list[_Write] = []

    def due(self) -> bool:
        """Whether a boundary is wanted: the interval has passed, or the last checkpoint has slices left."""
        if self._writes or not self._breaker.allows():
            return False
        return bool(self._left) or self._clock() >= self._next_at

    def hurry(self) -> None:
        """Want a boundary as soon as the store allows."""
        self._next_at = self._clock()

    def begin(self, partitions: Iterable[Partition], *, gently: bool = False) -> None:
        """Step 1, then hand over. Call only at a boundary. gently: copy little, and the rest at the next ones."""
        due = {p.number: p for p in partitions if self._is_due(p)}
        if gently:
            if self._clock() < self._next_at:
                due = {number: p for number, p in due.items() if number in self._left}
            users = max(GENTLY_USERS, sum(p.windows.changed_users for p in due.values()) // GENTLY_SHARE)
        else:
            users = SLICE_USERS * len(due)
        if self._clock() >= self._next_at:
            self._next_at = self._clock() + self._interval
        self._left = set(due)
        for partition in due.values():
            if users <= 0:
                break
            assert partition.watermark is not None
            if partition.unwritten is None:
                partition.unwritten = _copy(partition, min(users, SLICE_USERS))
            users -= len(partition.unwritten.snapshot.users)
            if partition.unwritten.snapshot.boundary is None:
                self._left.remove(partition.number)
            future = self._thread.submit(self._write, partition.number, partition.unwritten, partition.watermark)
            self._writes.append(_Write(partition, partition.unwritten, future))

    def collect(self) -> list[Partition]:
        """Step 4 for every write that has ended; returns partitions whose store was rolled back."""
        rolled_back: list[Partition] = []
        pending: list[_Write] = []
        for write in self._writes:
            if not write.future.done():
                pending.append(write)
            elif self._settle(write):
                rolled_back.append(write.partition)
        self._writes = pending
        return rolled_back

    def wait(self, timeout_secs: float) -> list[Partition]:
        """Wait for the writes under way, then collect."""
        wait_for([w.future for w in self._writes], timeout=timeout_secs)
        return self.collect()

    def complete(self, partitions: list[Partition], timeout_secs: float) -> bool:
        """At a boundary: store everything of these partitions, so that W = C. False if time or the store ran out."""
        deadline = self._clock() + timeout_secs
        self.wait(timeout_secs)
        while any(p.behind for p in partitions if p.watermark is not None and p.phase is not Phase.WAITING):
            left = deadline - self._clock()
            if left <= 0 or self._writes or not self._breaker.allows():
                return False
            self.begin(partitions)
            if self.wait(left):
                return False
        return True

    def close(self) -> None:
        """Let the write under way end."""
        self._thread.shutdown(wait=True)

    def _is_due(self, partition: Partition) -> bool:
        """Whether there is something to write, W alone once a day."""
        if partition.phase is Phase.WAITING or partition.watermark is None:
            return False
        return partition.behind or self._now_ms() - partition.watermark.written_at_ms >= RENEW_AFTER_MS

    def _settle(self, write: _Write) -> bool:
        error = write.future.exception()
        if error is None:
            self._breaker.succeeded()
            if write.partition.unwritten is write.slice:  # else its memory was dropped meanwhile
                watermark, secs = write.future.result()
                write.partition.windows.stored(write.slice.snapshot)
                write.partition.unwritten = None
                write.partition.watermark = watermark
                self._observer.checkpointed(
                    write.partition.number, users=len(write.slice.snapshot.users), watermark=watermark.offset, secs=secs
                )
            return False
        if isinstance(error, StoreUnavailable):
            self._breaker.failed(str(error))
            self._left.add(write.partition.number)
            return False
        if isinstance(error, StoreRolledBack):
            return write.partition.unwritten is write.slice
        raise error

    def _write(self, number: int, unwritten: Unwritten, known: Watermark) -> tuple[Watermark, float]:
        started, snapshot = self._clock(), unwritten.snapshot
        if snapshot.users:
            rows = [
                Row(user, applied, record, newest)
                for user, applied, record, newest in zip(
                    snapshot.users, snapshot.applied, snapshot.records, snapshot.newest_ms, strict=True
                )
            ]
            self._store.save(number, rows)
        self._observer.users_written()
        watermark = self._store.advance(number, known, unwritten.target)
        return watermark, self._clock() - started


def _copy(partition: Partition, most_users: int) -> Unwritten:
    snapshot = partition.windows.changed(most_users)
    return Unwritten(snapshot, partition.position if snapshot.boundary is None else snapshot.boundary)
