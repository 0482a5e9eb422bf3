"""A whole topic, from its beginning to its end as it is now, without a consumer group."""

import time
import uuid
from collections.abc import Iterator
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from stream.clients import consumer_config
from stream.errors import StartupError
from stream.settings import Settings

__all__ = ["read_topic"]

BATCH: Final = 5_000
POLL_SECS: Final = 0.1
#: A transaction that stays open holds readers up for at most its timeout, a broker that restarts for less.
SILENT_SECS: Final = 60.0


def read_topic(settings: Settings, topic: str) -> Iterator[list[Message]]:
    """Yield the committed records of every partition, in lists, each partition's in order of offset.

    The end is fixed at the start, so that a topic in use can be read. Raises StartupError where the topic is missing or
    cannot be read to its end.
    """
    # A name that nobody else has: nothing is committed and no group is joined, but the client asks for one.
    consumer = Consumer({**consumer_config(settings), "group.id": f"{settings.kafka.group}-read-{uuid.uuid4().hex}"})
    try:
        ends = _ends(consumer, topic)
        yield from _read(consumer, topic, ends)
    except KafkaException as error:
        raise StartupError(f"The topic {topic} cannot be read: {error.args[0].str()}.") from error
    finally:
        consumer.close()


def _ends(consumer: Consumer, topic: str) -> dict[int, int]:
    """Return the end of each partition that holds anything."""
    found = consumer.list_topics(topic, timeout=SILENT_SECS).topics.get(topic)
    if found is None or found.error is not None or not found.partitions:
        raise StartupError(f"The topic {topic} does not exist, or this user may not describe it: correct its name.")
    ends = {}
    for number in found.partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=SILENT_SECS)
        if high > low:
            ends[number] = high
    return ends


def _read(consumer: Consumer, topic: str, ends: dict[int, int]) -> Iterator[list[Message]]:
    if not ends:
        return
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
    moved = time.monotonic()
    while True:
        found = consumer.consume(BATCH, POLL_SECS)
        for message in found:
            if message.error() is not None:
                raise KafkaException(message.error())
        if found:
            moved = time.monotonic()
            if records := [message for message in found if message.offset() < ends[message.partition()]]:
                yield records
        # The position also passes markers of transactions, which end most logs and are no messages.
        places = consumer.position([TopicPartition(topic, number) for number in ends])
        if all(place.offset >= ends[place.partition] for place in places):
            return
        if time.monotonic() - moved > SILENT_SECS:
            raise StartupError(
                f"The topic {topic} could not be read to its end within {SILENT_SECS:.0f} s: a transaction is still "
                f"open, or a partition has no leader; try again later."
            )
