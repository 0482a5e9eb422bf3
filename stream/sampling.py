"""The newest records of a topic, for a look at what its producers do."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

__all__ = ["newest_records"]

ANSWER_SECS: Final = 5.0


def newest_records(consumer: Consumer, topic: str, partitions: Sequence[int], limit: int) -> list[Message]:
    """Return up to `limit` of each partition's newest records.

    consumer: one of its own for this, never the worker's; it is assigned the topic, and nothing is committed.
    Raises KafkaException.
    """
    places = [TopicPartition(topic, number) for number in partitions]
    ends: dict[int, int] = {}
    for place in places:
        start, ends[place.partition] = consumer.get_watermark_offsets(place, ANSWER_SECS)
        place.offset = max(start, ends[place.partition] - limit)
    unread = {place.partition for place in places if place.offset < ends[place.partition]}
    consumer.assign(places)
    records: list[Message] = []
    while unread:
        batch = consumer.consume(1_000, 1.0)
        if not batch:
            break  # the rest lies behind an open transaction, or the broker is slow: what there is will do
        for record in batch:
            if record.error() is None:
                records.append(record)
            elif record.error().code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 (the client's public name for it)
                raise KafkaException(record.error())
        positions = consumer.position([TopicPartition(topic, number) for number in unread])
        unread -= {place.partition for place in positions if place.offset >= ends[place.partition]}
    consumer.unassign()
    return records
