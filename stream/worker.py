"""The data plane's one visible loop.

    consume → line (decode → observe → score → decide → encode) → send → commit
                                                                    └ overlaps with the next batch's line, if it is full

Each turn, and before it the one moment at which another model may take over (stream.swap)
    Step 1  consume what is there, waiting only for the first record; a batch that is not full goes on filling until the
            batch before is durable, as it could not be sent sooner
    Step 2  run the line over it
    Step 3  wait until the batch before is durable
    Step 4  send this one
    Step 5  at a boundary (Step 3 again) copy what changed for the checkpoint, when one is due
Whatever goes wrong, memory is dropped, and the partition begins again at its committed offset: state is a pure function
of the log.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile, groupby
from time import perf_counter
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from state.errors import DamagedRecord, StoreRolledBack, StoreUnavailable
from state.store import Store
from state.windows import Windows
from stream.assignment import Assignment
from stream.breaker import Breaker
from stream.checkpoint import Checkpointer
from stream.clients import LastingConsumer
from stream.delivery import Delivery
from stream.errors import (
    BatchAborted,
    BrokerSilent,
    ConsumerFenced,
    FraudstreamError,
    ProducerFenced,
    StartupError,
    StateAhead,
)
from stream.line import Line
from stream.observer import Observer
from stream.partition import Partition, Phase

__all__ = ["Limits", "Swaps", "Worker"]

FENCED_PAUSE_SECS = 1.0  # lets a twin that fenced us finish joining before we decide whether we still have a place
TWIN_SECS = 60.0  # a twin that we fence in turn fences us again well within this
MEMORY_LOW = 0.9  # evict down to this share of the limit, so that not every turn evicts
GAUGE_SECS = 1.0
TWIN = (
    "Another worker joined with the same kafka.instance_id, or this one did not reach the broker for longer than "
    "kafka.session_timeout_ms, so it gives way: give each its own, and start this one again."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """max_batch records a turn; poll_secs to wait for the first; bytes of windows in memory and of unwritten changes.

    max_aborts: batches aborted in a row before the worker gives up; something a restart or a person has to look at.
    """

    max_batch: int
    poll_secs: float
    memory_bytes: int
    unwritten_bytes: int
    max_aborts: int
    shutdown_secs: float


class Swaps(Protocol):
    """Models that take over from one another."""

    def swap(self, line: Line, renew: Callable[[Callable[[], Windows]], bool]) -> None:
        """Let the line go on with the model that waits, if one does. renew: begins with windows of its feature set."""


class Worker:
    """Composed in app.py; runs until stop() is called from another thread."""

    def __init__(
        self,
        consumer: LastingConsumer,
        topic: str,
        assignment: Assignment,
        delivery: Delivery,
        store: Store,
        checkpointer: Checkpointer,
        breaker: Breaker,
        observer: Observer,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._assignment = assignment
        self._delivery = delivery
        self._store = store
        self._checkpointer = checkpointer
        self._breaker = breaker
        self._observer = observer
        self._limits = limits
        self._clock = clock
        self._stop = threading.Event()
        self._fences = 0
        self._fenced_at = -TWIN_SECS
        self._aborts = 0
        self._gauges_at = 0.0
        self._gently = False  # whether batches are not full, so that latency counts and not what could overlap

    def stop(self) -> None:
        """Finish the batch, commit, checkpoint, leave."""
        self._stop.set()

    def run(self, line: Line, swaps: Swaps | None = None) -> None:
        """Run until stopped; raises FraudstreamError or StateError when it cannot go on.

        swaps: told between two batches, when the line may go on with another model.
        """
        self._assignment.join()
        try:
            while not self._stop.is_set():
                try:
                    self._turn(line, swaps)
                except ConsumerFenced as fenced:
                    self._join_anew(fenced)
                self._observer.turned()
            self._drain()
        finally:
            self._leave()

    def load(self, partition: Partition, users: list[bytes]) -> None:
        """Bring unknown users into memory with one batched read, which also proves the store was not put back."""
        users = partition.carry_over(users)
        if not users:
            return
        if not self._breaker.allows():
            raise StoreUnavailable("the store failed a moment ago")
        started = perf_counter()
        try:
            loaded = self._store.load(partition.number, users)
        except StoreUnavailable as error:
            self._breaker.failed(str(error))
            raise
        self._breaker.succeeded()
        try:
            partition.windows.add(users, loaded.records, [self._store.key(partition.number, user) for user in users])
        except DamagedRecord as damaged:
            if not self._assignment.distrust(partition.number):
                raise
            raise StoreRolledBack(f"{damaged}, as chosen") from damaged
        if partition.phase is Phase.REPLAYING:
            self._check_applied(partition, users)
        self._observer.loaded(len(users), perf_counter() - started)

    def _renew(self, make_windows: Callable[[], Windows]) -> bool:
        """Go on with windows of another feature set, which takes a boundary; False if that cannot be had now."""
        self._finish()
        return self._assignment.renew(make_windows)

    def _turn(self, line: Line, swaps: Swaps | None = None) -> None:
        try:
            if swaps is not None:
                swaps.swap(line, self._renew)
            # Step 1
            started = perf_counter()
            batch = self._batch(self._consume())
            consumed = perf_counter()
            if batch:
                # Step 2
                output, report, waiting = line.run(batch)
                self._processed(batch, waiting)
                # Steps 3 and 4
                self._finish()
                if output.offsets:
                    self._delivery.send(output, self._assignment.group)
                report.stage_secs["consume"] = consumed - started
                self._observer.batch(report)
                for value in report.noted:
                    self._observer.decision(value)
            else:
                self._finish()
            # Step 5
            self._tend()
        except BatchAborted as aborted:
            if not line.too_large(aborted.oversized):  # each record too large costs an abort; those are progress
                self._aborts += 1
            if self._aborts > self._limits.max_aborts:
                raise
            # The broker counts refused records in their sequence, and librdkafka keeps to a group coordinator that left
            # the cluster (its issue 5511): with the same producer the next batch would fail too.
            self._delivery.renew()
            self._begin_again()
        except StoreRolledBack:
            self._begin_again()
        except StateAhead as ahead:
            self._begin_again(ahead)
        except BrokerSilent as silent:
            self._observer.aborted(str(silent))
            self._assignment.note(self._delivery.give_up())
            self._join_again()
        except ProducerFenced as fenced:
            self._rejoin(fenced)

    def _consume(self) -> list[Any]:
        """Wait for the first record, then take what is there; consume(n, t) alone waits out t for the n-th."""
        self._gently = False
        records = self._take([], self._limits.poll_secs)
        if records:
            records = self._take(records)
            fills = len(records) < self._limits.max_batch and self._delivery.in_flight
            # What the client says in place of a record it says once: lost if the batch before turns out to have failed.
            if fills and all(record.error() is None for record in records):
                # Decided now, it would wait for the batch before all the same, and what comes meanwhile for both.
                self._finish()
                records = self._take(records)
            self._gently = len(records) < self._limits.max_batch
        return records

    def _take(self, records: list[Any], wait_secs: float = 0) -> list[Any]:
        """Return these records and what is there beside them; with a time, the first one that comes within it."""
        wanted = 1 if wait_secs else self._limits.max_batch - len(records)
        held = self._assignment.held
        try:
            more: list[Any] = self._consumer.consume(wanted, wait_secs)
        except KafkaException as error:
            raise self._fatal(error.args[0]) from error
        if self._assignment.held is not held:
            # A rebalance came in between; whoever holds the partitions now reads the records again. What the client
            # says in place of one it says once.
            return [record for record in records if record.error() is not None] + more
        return records + more

    def _batch(self, records: list[Any]) -> dict[Partition, list[Any]]:
        """Sort records by partition; drop those of partitions that are not held (any more) or have no plan yet."""
        held = self._assignment.held
        by_number: dict[int, list[Any]] = {
            number: p.held_back for number, p in held.items() if p.held_back and self._breaker.allows()
        }
        if any(map(Message.error, records)):
            for record in records:
                if record.error() is not None:
                    self._event(record)
            records = [record for record in records if record.error() is None]
        # The client hands records over in runs, one fetched piece of a partition after the other.
        for number, run in groupby(records, Message.partition):
            partition = held.get(number)
            if partition is None or partition.phase is Phase.WAITING:
                continue
            share = by_number.get(number, partition.held_back)
            share.extend(dropwhile(partition.has_passed, run))
            if share:
                by_number[number] = share
        return {held[number]: share for number, share in by_number.items()}

    def _processed(self, batch: dict[Partition, list[Any]], waiting: list[Partition]) -> None:
        """Move positions on; partitions that wait for the store keep their records and are paused."""
        for partition, records in batch.items():
            if partition in waiting:
                if not partition.paused:
                    partition.paused = True
                    self._assignment.pause([partition], "unknown users, and the store is not available")
                partition.held_back = records
                continue
            partition.held_back = []
            partition.advance(records[-1].offset() + 1, self._observer)
            if partition.paused:
                partition.paused = False
                if not self._assignment.full:
                    self._assignment.resume([partition])

    def _finish(self) -> None:
        offsets = self._delivery.finish()
        if offsets:
            self._fences = self._aborts = 0
            self._assignment.note(offsets)

    def _tend(self) -> None:
        """Step 5, and everything that is not per batch."""
        self._pass_gaps()
        for partition in self._checkpointer.collect():
            if self._assignment.held.get(partition.number) is partition:
                self._finish()
                self._assignment.recover([partition])
        if self._checkpointer.due():
            self._finish()
            self._checkpointer.begin(self._assignment.held.values(), gently=self._gently)
        self._assignment.retry_waiting()
        self._bound_memory()
        if self._clock() >= self._gauges_at:
            self._gauges_at = self._clock() + GAUGE_SECS
            self._gauge()

    def _pass_gaps(self) -> None:
        """End replays where only transaction markers lie between the last record and C."""
        replaying = [p for p in self._assignment.held.values() if p.phase is Phase.REPLAYING and not p.held_back]
        for partition, position in zip(replaying, self._positions(replaying), strict=True):
            if position >= partition.live_from:
                partition.advance(partition.live_from, self._observer)

    def _positions(self, partitions: list[Partition]) -> list[int]:
        """Return the offset after the last consumed record and the markers behind it; negative after a seek."""
        if not partitions:
            return []
        found = self._consumer.position([TopicPartition(self._topic, p.number) for p in partitions])
        return [tp.offset for tp in found]

    def _bound_memory(self) -> None:
        """Evict idle users above the limit; pause all intake while too much is unwritten."""
        held = self._assignment.held.values()
        unwritten = sum(p.windows.unwritten_bytes for p in held)
        if unwritten > self._limits.unwritten_bytes and not self._assignment.full:
            self._assignment.full = True
            self._checkpointer.hurry()
            self._assignment.pause([p for p in held if not p.waits], "too much is unwritten")
        elif self._assignment.full and unwritten <= self._limits.unwritten_bytes // 2:
            self._assignment.full = False
            self._assignment.resume([p for p in held if not p.waits])
        used = sum(p.size_bytes for p in held)
        if used > self._limits.memory_bytes:
            for p in held:
                p.former = None  # all of it is in the store
            used = sum(p.size_bytes for p in held)
        if used <= self._limits.memory_bytes:
            return
        evicted = sum(
            p.windows.evict(int(p.windows.bytes * MEMORY_LOW * self._limits.memory_bytes / used)) for p in held
        )
        self._observer.evicted(evicted)
        if not evicted:
            self._checkpointer.hurry()

    def _gauge(self) -> None:
        partitions = list(self._assignment.held.values())
        for p, position in zip(partitions, self._positions(partitions), strict=True):
            _, log_end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, p.number), cached=True)
            # Behind the last record may lie transaction markers, which the position has passed: they are no lag.
            self._observer.position(p.number, committed=p.committed, lag=max(0, log_end - max(position, p.committed)))
            w = p.windows
            if p.coverage.newest_ms is not None and (dropped := w.drop_expired(p.coverage.newest_ms)):
                self._observer.evicted(dropped)
            self._observer.memory(
                p.number, users=w.users, size_bytes=p.size_bytes, events=w.events, unwritten=w.changed_users
            )

    def _begin_again(self, ahead: StateAhead | None = None) -> None:
        """Abort what is in flight and recover every partition from its committed offset."""
        self._assignment.note(self._delivery.give_up())
        try:
            if ahead is not None:
                self._assignment.doubt(ahead)
            self._delivery.ready()
            self._assignment.recover(list(self._assignment.held.values()))
        except BrokerSilent as silent:
            self._observer.aborted(str(silent))
            self._join_again()
        except ProducerFenced as fenced:
            self._rejoin(fenced)

    def _rejoin(self, fenced: ProducerFenced) -> None:
        """Rejoin, then take a new producer; a second fence in a row means a twin lives, and this process gives way."""
        self._fences += 1
        self._observer.aborted(str(fenced))
        if self._fences > 1:
            twin = self._clock() < self._fenced_at + TWIN_SECS  # both of ours are fenced: what the consumer says helps
            raise ConsumerFenced(TWIN) if twin else fenced
        self._give_up_and_pause()
        self._join_again()

    def _join_anew(self, fenced: ConsumerFenced) -> None:
        """Join with a new consumer; fenced again soon, a twin lives, and this process, the older one, gives way.

        librdkafka calls a static member fenced, too, whose own attempt to join has taken its place while the answer was
        lost with the broker; nothing tells the two apart but that a twin comes back while the broker is there.
        """
        fenced_at, self._fenced_at = self._fenced_at, self._clock()
        if self._fenced_at < fenced_at + TWIN_SECS and not self._consumer.missed_broker:
            raise fenced
        self._observer.aborted("the group has another member under this worker's name: joining anew")
        self._give_up_and_pause()
        self._assignment.rejoin(anew=True)

    def _give_up_and_pause(self) -> None:
        self._assignment.note(self._delivery.give_up())
        self._delivery.renew()
        self._stop.wait(FENCED_PAUSE_SECS * (0.5 + random.random()))

    def _join_again(self) -> None:
        try:
            self._assignment.rejoin()
        except KafkaException as error:  # fenced meanwhile, which no poll has told yet
            raise self._fatal(error.args[0]) from error

    def _event(self, record: Any) -> None:
        """Handle what librdkafka says in place of a record."""
        error = record.error()
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 (the client's public name for it)
            raise BatchAborted(f"offset {record.offset()} of partition {record.partition()} is not in the log")
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise StartupError(f"The broker denies access: {error.str()}; grant this user Read on topic and group.")
        if error.fatal() or code == KafkaError._FATAL:  # noqa: SLF001 (said once, after which the consumer is silent)
            raise self._fatal(error)

    def _fatal(self, error: KafkaError) -> FraudstreamError:
        # _FATAL is what a fenced consumer says to everything after the fence itself.
        if error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED, KafkaError._FATAL):  # noqa: SLF001
            return ConsumerFenced(TWIN)
        return FraudstreamError(f"The consumer cannot go on: {error.str()}.")

    def _check_applied(self, partition: Partition, loaded: list[bytes]) -> None:
        # All at once: one user at a time took two thirds of a replay in which each payment's user had to be loaded.
        applied = int(partition.windows.applied_offsets(partition.windows.find(loaded)).max())
        if applied >= partition.live_from:
            raise StateAhead(
                partition.number,
                applied,
                f"A stored user of partition {partition.number} stands at {applied}, ahead of the committed offset "
                f"{partition.live_from}: choose store.recovery = rebuild to replay the log.",
            )

    def _drain(self) -> None:
        """Finish the batch in flight and store what is unwritten, so that W = C; within the deadline."""
        try:
            self._finish()
        except (BatchAborted, ProducerFenced):
            return  # nothing of it was committed, so nothing of it may be stored; who starts next recovers
        self._checkpointer.complete(list(self._assignment.held.values()), self._limits.shutdown_secs)

    def _leave(self) -> None:
        self._assignment.leaving = True
        self._assignment.note(self._delivery.give_up())
        self._consumer.close()
        self._delivery.close()
        self._checkpointer.close()
        self._store.close()
        self._observer.stopped()
