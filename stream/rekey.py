"""Copies a topic that is not keyed by user into one that is, exactly once.

Step 1  check     both topics as they are: a copy that would lose or restamp records is refused
Step 2  begin     init_transactions ends what a former run left open, and fences it if it still lives
Step 3  resume    read on at the offsets the last committed transaction of this copy stored, up to the end as it is now
Step 4  merge     the source's partitions by record timestamp; each partition's own order is kept
Step 5  copy      in one transaction: the records under their new keys, dead letters, and the offsets they came from

Value, headers and timestamp stay as they are. The timestamp must: whether an event lies too far ahead is judged by it,
and a record must be judged the same after the copy as before. No consumer group is joined, so no rebalance can come in
between; the transactional id, made of both topics' names, allows one copy of the two to run at a time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.clients import admin_config, copier_configs
from stream.coordinator import patiently
from stream.copy_check import check_copy, retention_warning
from stream.deadletter import DeadLetter
from stream.errors import BatchAborted, ProducerFenced, RecoveryError, StartupError, UsageError
from stream.merge import Merge
from stream.settings import Settings
from stream.topic_check import TopicState
from stream.topics import describe_topics, watermarks
from stream.user_finder import NoUserError, UserFinder

__all__ = ["Copied", "rekey"]

BROKER_SECS: Final = 30.0
POLL_SECS: Final = 0.1

# Records of one transaction: a few milliseconds of commit for tens of milliseconds of copying.
BATCH: Final = 5_000

# The same batch aborted so often in a row will not go through. Twice is normal: after a record that the broker refused,
# the next transaction finds a gap in the sequence numbers and is aborted too.
ABORTS: Final = 3
RETRY_SECS: Final = 0.1


@dataclass(slots=True)
class Copied:
    """What this run did. total: the offsets between its first and its last record, for a progress bar."""

    copied: int = 0
    dead: int = 0
    total: int = 0
    warning: str = ""


def rekey(
    settings: Settings,
    source: str,
    target: str,
    *,
    follow: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Copied], object] = lambda _: None,
) -> Copied:
    """Copy `source` into `target`, keyed by the user id that the mapping finds in each value.

    Records without one go to topics.dead_letters. Ends at the source's end as it was at the start, or with `follow`
    when stop() says so. May be killed at any moment and started again. Raises FraudstreamError with one sentence.
    """
    if source == target:
        raise UsageError(f"The topic {source} cannot be copied into itself: name another one to copy into.")
    dead_letters = settings.topics.dead_letters
    admin = AdminClient(admin_config(settings))
    states = describe_topics(admin, [source, target, dead_letters])
    # Step 1
    check_copy(states[source], states[target], states[dead_letters])
    copied = Copied(warning=retention_warning(states[source], states[target]))
    consumer_settings, producer_settings = copier_configs(settings, source, target, _batch_bytes(states))
    consumer = Consumer(consumer_settings)
    try:
        finder = UserFinder(settings.mapping())
        producer = Producer(producer_settings)
        copy = _Copy(admin, consumer, producer, finder, states[source], target, dead_letters, copied)
        copy.run(follow=follow, stop=stop, progress=progress)
    finally:
        consumer.close()
    return copied


def _batch_bytes(states: Mapping[str, TopicState]) -> int:
    return min(state.number("max.message.bytes", 1 << 20) for state in states.values())


class _Copy:
    """One run; see the module's steps."""

    def __init__(
        self,
        admin: AdminClient,
        consumer: Consumer,
        producer: Producer,
        find_user: UserFinder,
        source: TopicState,
        target: str,
        dead_letters: str,
        copied: Copied,
    ) -> None:
        self._admin = admin
        self._consumer = consumer
        self._producer = producer
        self._find_user = find_user
        self._source = source
        self._target = target
        self._dead_letters = dead_letters
        self._copied = copied
        self._places = [TopicPartition(source.name, number) for number in range(source.partitions)]
        self._ends: dict[int, int] = {}
        self._merge = Merge(())
        self._paused: set[int] = set()
        self._too_large: set[tuple[int, int]] = set()
        self._failed: dict[tuple[int, int], KafkaError] = {}

    def run(self, *, follow: bool, stop: Callable[[], bool], progress: Callable[[Copied], object]) -> None:
        """Copy until the end, or until told to stop."""
        # Step 2. Without a broker it knows, init_transactions waits half a second before it looks again.
        self._producer.list_topics(self._target, timeout=BROKER_SECS)
        self._call(lambda: self._producer.init_transactions(BROKER_SECS), "init_transactions")
        # Step 3
        self._copied.total = self._resume(first=True)
        aborts, learned = 0, 0
        while not stop() and (follow or not self._finished()):
            # Step 4
            self._read(follow=follow)
            ready = iter(self._merge.take())
            # Step 5
            try:
                while batch := list(islice(ready, BATCH)):
                    self._transact(batch)
                    aborts = 0
                    progress(self._copied)
            except BatchAborted:
                aborts = aborts + 1 if learned == len(self._too_large) else 1
                learned = len(self._too_large)
                if aborts == ABORTS:
                    raise
                self._resume(first=False)

    def _resume(self, *, first: bool) -> int:
        """Assign every partition at its committed offset, or the log's start; return how many offsets lie ahead."""
        ahead = 0
        committed = self._committed()
        ends = watermarks(self._admin, self._source.name, self._source.partitions)
        for place in committed:
            start, end = ends[place.partition]
            if place.offset < 0:
                place.offset = start
            elif not start <= place.offset <= end:
                raise RecoveryError(
                    f"The copy of {place.topic}[{place.partition}] stands at {place.offset}, but the log now goes from "
                    f"{start} to {end}: what lies between is lost, so copy what is left into a new topic."
                )
            if first:
                self._ends[place.partition] = end
            ahead += end - place.offset
        self._merge = Merge(place.partition for place in committed)
        for place in committed:
            self._merge.lanes[place.partition].ended = place.offset >= self._ends[place.partition]
        self._paused.clear()
        self._consumer.assign(committed)
        return ahead

    def _committed(self) -> list[TopicPartition]:
        def ask() -> Any:
            return self._consumer.committed(self._places, timeout=BROKER_SECS)

        try:
            places: list[TopicPartition] = patiently(ask, BROKER_SECS, pause=self._producer.poll)
        except KafkaException as error:
            raise StartupError(f"The offsets of the copy cannot be read: {error.args[0].str()}.") from error
        return places

    def _read(self, *, follow: bool) -> None:
        """Step 4: hand what came to the merge, and note which partitions have come to their end."""
        self._hold_back(follow=follow)
        for message in self._consumer.consume(BATCH, POLL_SECS):
            if message.error() is not None:
                raise RecoveryError(f"The topic {self._source.name} cannot be read on: {message.error().str()}.")
            if follow or message.offset() < self._ends[message.partition()]:
                self._merge.put(message)
        for place in self._consumer.position(self._places):
            # Also past the end lie transaction markers, which the position passes without a message.
            if place.offset >= self._ends[place.partition]:
                self._merge.lanes[place.partition].ended = True

    def _hold_back(self, *, follow: bool) -> None:
        """Pause the partitions that are far ahead of the others, or done."""
        full = {number for number, lane in self._merge.lanes.items() if lane.full or (lane.ended and not follow)}
        self._consumer.pause([TopicPartition(self._source.name, number) for number in full - self._paused])
        self._consumer.resume([TopicPartition(self._source.name, number) for number in self._paused - full])
        self._paused = full

    def _finished(self) -> bool:
        return all(lane.ended and not lane.waiting for lane in self._merge.lanes.values())

    def _transact(self, batch: list[Message]) -> None:
        """Step 5; BatchAborted once nothing of it counts."""
        self._failed.clear()
        try:
            self._call(self._producer.begin_transaction, "begin_transaction")
            dead = sum(self._route(message) for message in batch)
            offsets = {message.partition(): message.offset() + 1 for message in batch}
            self._call(lambda: self._send_offsets(offsets), "sending offsets")
            self._call(lambda: self._producer.commit_transaction(BROKER_SECS), "the commit")
        except BatchAborted:
            self._call(lambda: self._producer.abort_transaction(BROKER_SECS), "the abort")
            self._learn()
            raise
        self._copied.dead += dead
        self._copied.copied += len(batch) - dead

    def _send_offsets(self, offsets: Mapping[int, int]) -> None:
        places = [TopicPartition(self._source.name, number, offset) for number, offset in offsets.items()]
        group = self._consumer.consumer_group_metadata()
        self._producer.send_offsets_to_transaction(places, group, BROKER_SECS)

    def _route(self, message: Message) -> bool:
        """Queue one record for where it belongs; return whether that is with the dead letters."""
        value, headers = message.value(), message.headers() or []
        if (message.partition(), message.offset()) in self._too_large:
            letter = DeadLetter(
                message, "too_large", "", "the record does not fit where it belongs; its value is left out"
            )
            self._produce(message, self._dead_letters, message.key(), None, letter.headers())
            return True
        try:
            user = self._find_user(value)
        except NoUserError as error:
            letter = DeadLetter(message, error.error, error.field, error.detail)
            self._produce(message, self._dead_letters, message.key(), value, [*headers, *letter.headers()])
            return True
        self._produce(message, self._target, user, value, headers)
        return False

    def _produce(
        self, message: Message, topic: str, key: bytes | None, value: bytes | None, headers: list[Any]
    ) -> None:
        place = (message.partition(), message.offset())
        kind, timestamp_ms = message.timestamp()
        stamp = {"timestamp": timestamp_ms} if kind else {}

        def report(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._failed[place] = error

        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=report, headers=headers or None, **stamp)
            except BufferError:
                self._producer.poll(POLL_SECS)
            except KafkaException as error:
                self._failed[place] = error.args[0]
                raise BatchAborted(f"a record could not be queued: {error.args[0].str()}") from error
            else:
                return

    def _learn(self) -> None:
        """Note records that are too large to be written, so that the next attempt leaves their values out."""
        self._too_large |= {
            place for place, error in self._failed.items() if error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        }

    def _call(self, call: Callable[[], object], what: str) -> None:
        """Retriable: again. Abortable: BatchAborted. Fenced or fatal: ProducerFenced."""
        deadline = time.monotonic() + BROKER_SECS
        while True:
            try:
                call()
            except KafkaException as raised:
                error = raised.args[0]
                if error.fatal():
                    raise ProducerFenced(
                        f"{what} failed for good ({error.str()}): if the same copy runs elsewhere, let that one finish."
                    ) from raised
                if not error.retriable() or time.monotonic() > deadline:
                    raise BatchAborted(f"The copy cannot go on: {what} failed, {self._reason(error)}.") from raised
                self._producer.poll(RETRY_SECS)
            else:
                return

    def _reason(self, error: KafkaError) -> str:
        """Prefer what the broker said of a record to what the transaction says of itself."""
        return str(next(iter(self._failed.values()), error).str())
