"""Writes what the joiner joined, and the offsets of both topics, in one Kafka transaction a batch."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream.deadletter import DeadLetter
from stream.errors import BatchAborted, BrokerSilent, ProducerFenced
from stream.joiner_observer import JoinerObserver

__all__ = ["JoinerWriter"]

Place = tuple[str, int]

BROKER_SECS: Final = 30.0
RETRY_SECS: Final = 0.1

# Names with an underscore are how the client publishes its own, local error codes.
_FENCED: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)  # noqa: SLF001 (public codes)

_TWIN: Final = (
    "Another joiner of monitor.group = {group} has taken over, or this one was held up for longer than a transaction "
    "lasts: let that one run, or give this monitor a group of its own ({error})."
)


class JoinerWriter:
    """A transactional producer that is replaced when it is beyond repair, unless a twin fenced it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        group: str,
        labelled: str,
        dead_letters: str,
        observer: JoinerObserver,
    ) -> None:
        self._config, self._group = config, group
        self._labelled, self._dead_letters = labelled, dead_letters
        self._observer = observer
        self._producer: Producer | None = None
        self._too_large: set[tuple[str | None, int, int]] = set()

    def ready(self) -> None:
        """Make a producer if there is none, which ends what a predecessor left open; BrokerSilent, ProducerFenced."""
        if self._producer is not None:
            return
        producer = Producer(dict(self._config))
        try:
            # Without a broker at hand init_transactions waits for a timer of 500 ms before it looks for one.
            self._call(producer, lambda: producer.list_topics(timeout=BROKER_SECS), "finding a broker")
            self._call(producer, lambda: producer.init_transactions(BROKER_SECS), "init_transactions")
        except BatchAborted as aborted:
            raise BrokerSilent(aborted.reason) from aborted
        self._producer = producer

    def write(
        self,
        written: Iterable[tuple[bytes, bytes]],
        letters: Iterable[DeadLetter],
        offsets: Mapping[Place, int],
        consumer: Consumer,
        broker_secs: float = BROKER_SECS,
    ) -> None:
        """Make all of it durable together; BatchAborted once nothing of it counts, ProducerFenced.

        broker_secs: how long the broker may take for each step.
        """
        self.ready()
        producer = self._producer
        assert producer is not None
        places = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        group = consumer.consumer_group_metadata()
        try:
            self._call(producer, producer.begin_transaction, "begin_transaction", broker_secs)
            produce, labelled = producer.produce, self._labelled
            for user, value in written:
                try:
                    produce(labelled, value, user)
                except (BufferError, KafkaException):
                    self._produce(producer, labelled, user, value)
            for letter in letters:
                self._bury(producer, letter)
            self._observer.produced()
            send = producer.send_offsets_to_transaction
            self._call(producer, lambda: send(places, group, broker_secs), "the offsets", broker_secs)
            self._observer.committing()
            self._call(producer, lambda: producer.commit_transaction(broker_secs), "the commit", broker_secs)
        except BatchAborted:
            self._abort(producer, broker_secs)
            raise

    def close(self) -> None:
        """Leave; nothing may be in flight."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaException):  # what a fenced producer says to everything
                producer.purge()
                producer.flush(0)

    def _abort(self, producer: Producer, broker_secs: float) -> None:
        try:
            self._call(producer, lambda: producer.abort_transaction(broker_secs), "the abort", broker_secs)
        except BatchAborted:
            # The next producer ends the transaction by its epoch.
            self.close()

    def _bury(self, producer: Producer, letter: DeadLetter) -> None:
        message = letter.message
        place = (message.topic(), message.partition(), message.offset())
        value = message.value()
        if place in self._too_large:
            letter = DeadLetter(message, "too_large", "", "the record does not fit where it belongs")
            value = None

        def report(error: KafkaError | None, _: object) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                self._too_large.add(place)

        self._produce(producer, self._dead_letters, message.key(), value, headers=letter.headers(), on_delivery=report)

    def _produce(self, producer: Producer, topic: str, key: bytes | None, value: bytes | None, **more: Any) -> None:
        deadline = time.monotonic() + BROKER_SECS
        while True:
            try:
                producer.produce(topic, value, key, **more)
            except BufferError:
                if time.monotonic() > deadline:
                    raise BatchAborted(f"the producer's queue stayed full for {BROKER_SECS:.0f} s") from None
                producer.poll(RETRY_SECS)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE and "on_delivery" in more:
                    more["on_delivery"](error.args[0], None)
                raise BatchAborted(f"a record could not be queued: {error.args[0].str()}") from error
            else:
                return

    def _call(
        self, producer: Producer, call: Callable[[], object], what: str, broker_secs: float = BROKER_SECS
    ) -> None:
        """Retriable: again. Abortable, or not done in time: BatchAborted. Fenced or fatal: ProducerFenced."""
        deadline = time.monotonic() + broker_secs
        while True:
            try:
                call()
            except KafkaException as raised:
                error = raised.args[0]
                # After a fence the client calls every error fatal, whatever its code.
                if error.code() in _FENCED or error.fatal():
                    self.close()
                    raise ProducerFenced(_TWIN.format(group=self._group, error=error.str())) from raised
                if error.txn_requires_abort() or not error.retriable() or time.monotonic() > deadline:
                    raise BatchAborted(f"{what} failed: {error.str()}") from raised
                producer.poll(RETRY_SECS)
            else:
                return
