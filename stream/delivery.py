"""Writes a batch's output and its offsets: once (in one Kafka transaction) or at least once.

Both speak the same small protocol, used by the loop's thread:

Step 1  ready()   a producer that may write; fences a predecessor of the same name
Step 2  send()    puts everything into the producer's queue, then leaves the waiting to a thread of its own
Step 3  finish()  waits until the batch in flight is durable; BatchAborted or ProducerFenced if it is not

At most one batch is in flight. Consuming the next one, and scoring it once it is full, overlap with Step 3 of this one.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from stream.clients import LastingConsumer
from stream.errors import BatchAborted, BrokerSilent, DeliveryError, Oversized, ProducerFenced
from stream.observer import Observer

__all__ = ["AtLeastOnce", "Delivery", "ExactlyOnce", "Outgoing", "Output"]

RETRIES = 12  # with the back-off below about 10 s, the transaction timeout
BACKOFF_SECS = 0.02
LONGEST_BACKOFF_SECS = 2.0

SOURCE_PARTITION = "source.partition"
SOURCE_OFFSET = "source.offset"


@dataclass(slots=True)
class Outgoing:
    """One record to write; partition −1 lets the partitioner choose. source_offset names it in an error."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    kind: str
    source_partition: int
    source_offset: int


@dataclass(slots=True)
class Output:
    """What one batch leaves behind.

    decisions: (partition, key, value) columns, all for the decisions topic; rare: dead letters and feature batches.
    offsets: partition -> next offset to consume. metadata: partition -> text committed with it.
    """

    decisions_topic: str
    partitions: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    source_offsets: list[int] = field(default_factory=list)
    rare: list[Outgoing] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)
    metadata: dict[int, str] = field(default_factory=dict)


class Delivery(Protocol):
    """See the module's steps."""

    def ready(self) -> None:
        """Step 1. ProducerFenced when the cluster refuses us, BrokerSilent when it does not answer."""

    @property
    def in_flight(self) -> bool:
        """Whether finish() has something to wait for."""

    def send(self, output: Output, group: object) -> None:
        """Step 2. `group` is the consumer's group metadata taken while the batch's partitions were held."""

    def finish(self) -> dict[int, int] | None:
        """Step 3. The offsets that became durable, None if nothing was in flight."""

    def give_up(self) -> dict[int, int] | None:
        """Abort what is in flight, whatever its state; never raises for a batch that is lost anyway.

        Returns the offsets of a batch that turns out to be durable.
        """

    def renew(self) -> None:
        """Drop the producer; ready() makes a new one."""

    def close(self) -> None:
        """Leave; what is in flight must be finished or given up before."""


# Names with an underscore are how the client publishes its own, local error codes.
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}  # noqa: SLF001
)


_Flights = SimpleQueue[tuple[Future[dict[int, int]], Callable[[], dict[int, int]]] | None]


def _run_flights(flights: _Flights) -> None:
    """Run commits in turn, in a thread that lasts: to start one for each costs the loop a wait until it runs."""
    while (taken := flights.get()) is not None:
        flight, commit = taken
        try:
            flight.set_result(commit())
        except BaseException as error:  # noqa: BLE001 (finish() raises it)
            flight.set_exception(error)
        del taken, flight, commit  # a batch's output does not outlive it


class _Writer:
    """The producer, its failed deliveries and the one batch in flight; what both deliveries share."""

    def __init__(
        self,
        make_producer: Callable[[Callable[..., None]], Producer],
        source_topic: str,
        observer: Observer,
        patience_secs: float,
    ) -> None:
        self._make = make_producer
        self._source_topic = source_topic
        self._observer = observer
        self._producer: Producer | None = None
        self._patience = patience_secs
        self._flight: Future[dict[int, int]] | None = None
        self._flights: _Flights | None = None
        self._failed: list[tuple[Any, Any]] = []

    @property
    def in_flight(self) -> bool:
        """Whether a batch was sent and not yet finished."""
        return self._flight is not None

    def finish(self) -> dict[int, int] | None:
        """Step 3. A flight that does not end is left behind with its producer; the next one fences it."""
        flight, self._flight = self._flight, None
        if flight is None:
            return None
        try:
            return flight.result(self._patience)
        except TimeoutError:
            self._producer = None
            self._leave_thread()
            reason = f"the commit did not return within {self._patience:.0f} s"
            self._observer.aborted(reason)
            raise BatchAborted(reason) from None

    def _fly(self, commit: Callable[[], dict[int, int]]) -> None:
        if self._flights is None:
            self._flights = SimpleQueue()
            # librdkafka can keep a caller for ever (its issues 5456 and 5511); a daemon does not keep the process.
            threading.Thread(target=_run_flights, args=(self._flights,), name="commit", daemon=True).start()
        self._flight = Future()
        self._flights.put((self._flight, commit))

    def _leave_thread(self) -> None:
        """Let the thread end when it can; the next flight has another."""
        flights, self._flights = self._flights, None
        if flights is not None:
            flights.put(None)

    def renew(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaException):  # what a fenced producer says to everything
                producer.purge()
                producer.flush(0)

    def close(self) -> None:
        self._leave_thread()
        self.renew()

    @property
    def producer(self) -> Producer:
        """The producer of Step 1."""
        if self._producer is None:
            raise DeliveryError("ready() comes before send()")
        return self._producer

    def _report(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append((error, message))

    def _produce(self, output: Output) -> None:
        """Queue everything; a full local queue is served until there is room."""
        self._failed.clear()
        producer, topic = self.producer, output.decisions_topic
        produce = producer.produce
        for partition, key, value, offset in zip(
            output.partitions, output.keys, output.values, output.source_offsets, strict=True
        ):
            try:
                produce(topic, value, key, partition)
            except BufferError:
                self._wait_for_room(topic, value, key, partition)
            except KafkaException as error:
                raise self._aborted(error, [Oversized("decision", partition, offset)]) from error
        for record in output.rare:
            self._produce_rare(record)
        producer.poll(0)

    def _produce_rare(self, record: Outgoing) -> None:
        try:
            self.producer.produce(
                record.topic, record.value, record.key, record.partition, headers=list(record.headers) or None
            )
        except BufferError:
            self._wait_for_room(record.topic, record.value, record.key, record.partition, list(record.headers) or None)
        except KafkaException as error:
            oversized = Oversized(record.kind, record.source_partition, record.source_offset)
            raise self._aborted(error, [oversized]) from error

    def _wait_for_room(self, topic: str, value: Any, key: Any, partition: int, headers: Any = None) -> None:
        deadline = time.monotonic() + 10
        while True:
            self.producer.poll(0.01)
            try:
                self.producer.produce(topic, value, key, partition, headers=headers)
            except BufferError:
                if time.monotonic() > deadline:
                    raise BatchAborted("the producer's queue stayed full for 10 s") from None
            else:
                return

    def _aborted(self, error: KafkaException, oversized: list[Oversized]) -> BatchAborted:
        if error.args[0].code() in _TOO_LARGE:
            return BatchAborted(f"an output is too large: {error.args[0].str()}", oversized)
        return BatchAborted(f"an output could not be queued: {error.args[0].str()}")

    def _oversized(self, output: Output) -> list[Oversized]:
        """Name the failed deliveries the broker found too large by the records they came from."""
        found: list[Oversized] = []
        if not self._failed:
            return found
        offset_of = dict(zip(zip(output.partitions, output.values, strict=True), output.source_offsets, strict=True))
        for error, message in self._failed:
            if error.code() not in _TOO_LARGE:
                continue
            topic, value = message.topic(), message.value()
            if topic == output.decisions_topic:
                found.append(Oversized("decision", message.partition(), offset_of[message.partition(), value]))
                continue
            found += [
                Oversized(r.kind, r.source_partition, r.source_offset)
                for r in output.rare
                if (r.topic, r.key, r.value) == (topic, message.key(), value)
            ]
        return found


class ExactlyOnce(_Writer):
    """Decisions, dead letters, feature log and offsets in one Kafka transaction a batch.

    make_producer gets the delivery-report callback and returns a producer with a transactional id.
    """

    def __init__(
        self,
        make_producer: Callable[[Callable[..., None]], Producer],
        source_topic: str,
        observer: Observer,
        *,
        timeout_secs: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        # By then the broker has ended the transaction in any case.
        super().__init__(make_producer, source_topic, observer, patience_secs=3 * timeout_secs)
        self._timeout = timeout_secs
        self._rng = rng or random.Random()

    def ready(self) -> None:
        """Make a producer if there is none; init_transactions ends the transaction a predecessor left open."""
        if self._producer is not None:
            return
        producer = self._make(self._report)
        try:
            # Without a broker at hand init_transactions waits for a timer of 500 ms before it looks for one.
            patience = 3 * self._timeout  # the loop waits here, and with it a group that rebalances
            self._retry(lambda: producer.list_topics(timeout=self._timeout), "finding a broker", within_secs=patience)
            self._retry(lambda: producer.init_transactions(self._timeout), "init_transactions", within_secs=patience)
        except BatchAborted as aborted:
            raise BrokerSilent(aborted.reason) from aborted
        self._producer = producer

    def send(self, output: Output, group: object) -> None:
        """Begin, produce, hand offsets and commit to the thread; nothing else waits inside the transaction."""
        # Step 1: everything is scored; only now does the transaction begin.
        self._retry(self.producer.begin_transaction, "begin_transaction")
        try:
            self._produce(output)
        except BatchAborted as aborted:
            self._abort(self.producer, aborted.reason)
            raise
        self._observer.produced()
        # Step 2: offsets and commit wait for the broker, so they wait elsewhere.
        producer = self.producer
        self._fly(lambda: self._commit(producer, output, group))

    def give_up(self) -> dict[int, int] | None:
        """Wait for the thread; a batch that turns out committed stays committed, one that does not is aborted."""
        with suppress(DeliveryError):
            return self.finish()
        return None

    def _commit(self, producer: Producer, output: Output, group: object) -> dict[int, int]:
        started = time.perf_counter()
        offsets = [
            TopicPartition(self._source_topic, p, o, metadata=output.metadata.get(p, ""))
            for p, o in output.offsets.items()
        ]
        try:
            self._retry(
                lambda: producer.send_offsets_to_transaction(offsets, group, self._timeout),
                "sending offsets",
                within_secs=self._timeout,
            )
            self._observer.offsets_sent()
            self._observer.committing()
            self._retry(lambda: producer.commit_transaction(self._timeout), "the commit")
        except BatchAborted as aborted:
            self._abort(producer, aborted.reason)
            # After the abort: only then has every failed delivery been reported.
            raise BatchAborted(aborted.reason, self._oversized(output)) from aborted
        self._observer.committed(time.perf_counter() - started)
        return output.offsets

    def _abort(self, producer: Producer, reason: str) -> None:
        self._observer.aborted(reason)
        try:
            self._retry(lambda: producer.abort_transaction(self._timeout), "the abort")
        except BatchAborted as error:
            # An abort that cannot be had leaves the transaction to the coordinator's timeout and to our next epoch.
            raise ProducerFenced(f"the transaction could not be aborted: {error.reason}") from error

    def _retry(self, call: Callable[[], object], what: str, *, within_secs: float = math.inf) -> None:
        """Retriable: back off with jitter. Abortable, or not done in time: BatchAborted. Fatal: ProducerFenced."""
        deadline = time.monotonic() + within_secs
        for attempt in range(RETRIES):
            try:
                call()
            except KafkaException as raised:
                error = raised.args[0]
                if error.fatal():
                    raise ProducerFenced(f"{what} failed for good: {error.str()}") from raised
                if error.txn_requires_abort():  # also a fence that only looks like one, right after a rebalance
                    raise BatchAborted(f"{what} failed: {error.str()}") from raised
                if error.code() in _FENCED:
                    raise ProducerFenced(f"{what} failed for good: {error.str()}") from raised
                if not error.retriable() or attempt == RETRIES - 1 or time.monotonic() >= deadline:
                    raise BatchAborted(f"{what} failed: {error.str()}") from raised
                pause = min(LONGEST_BACKOFF_SECS, BACKOFF_SECS * 2**attempt)
                time.sleep(pause * (0.5 + self._rng.random()))
            else:
                return


class AtLeastOnce(_Writer):
    """Everything acknowledged, then the offsets: a crash in between repeats decisions, equal but for scored_at."""

    def __init__(
        self,
        make_producer: Callable[[Callable[..., None]], Producer],
        source_topic: str,
        observer: Observer,
        consumer: LastingConsumer,
        *,
        timeout_secs: float = 30.0,
    ) -> None:
        super().__init__(make_producer, source_topic, observer, patience_secs=3 * timeout_secs)
        self._consumer = consumer
        self._timeout = timeout_secs

    def ready(self) -> None:
        """Make a producer if there is none."""
        if self._producer is None:
            self._producer = self._make(self._report)

    def send(self, output: Output, group: object) -> None:  # noqa: ARG002 (the commit goes through the consumer)
        """Produce, and hand flush and commit to the thread."""
        self._produce(output)
        self._observer.produced()
        producer = self.producer
        self._fly(lambda: self._commit(producer, output))

    def give_up(self) -> dict[int, int] | None:
        """Wait for the thread; whatever it says, the records from the committed offset on are decided again."""
        with suppress(DeliveryError):
            return self.finish()
        return None

    def _commit(self, producer: Producer, output: Output) -> dict[int, int]:
        started = time.perf_counter()
        left = producer.flush(self._timeout)
        if left or self._failed:
            reason = f"{left} records unacknowledged in {self._timeout:.0f} s" if left else str(self._failed[0][0])
            self._observer.aborted(reason)
            raise BatchAborted(reason, self._oversized(output))
        self._observer.committing()
        offsets = [
            TopicPartition(self._source_topic, p, o, metadata=output.metadata.get(p, ""))
            for p, o in output.offsets.items()
        ]
        try:
            committed = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._observer.aborted(error.args[0].str())
            raise BatchAborted(f"the commit failed: {error.args[0].str()}") from error
        refused = [tp.error for tp in committed if tp.error is not None]
        if refused:
            raise BatchAborted(f"the commit failed: {refused[0].str()}")
        self._observer.committed(time.perf_counter() - started)
        return output.offsets
