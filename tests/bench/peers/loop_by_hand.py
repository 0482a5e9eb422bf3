"""The loop by hand: a consumer, Redis sorted sets and the libraries' own predict, as many a team writes it first.

    python loop_by_hand.py JOB [BATCH]     one event at a time, or up to BATCH at once

A user's payments are a sorted set by event time, packed. Each payment is added, what left the 30 days is removed, the
rest is read back and the 24 features are computed from it. At least once: offsets are committed once decisions are out.
"""

import json
import sys

import orjson
import redis
from confluent_kafka import Consumer, Producer

from listed_windows import HORIZON_MS, ITEM, features, packed, unpacked
from native_model import Model

COMMIT_EVERY = 100


def remember(pipe, payment):
    """Queue the three commands that keep a payment and read the user's window."""
    key, at = payment["user_id"], payment["event_time"]
    pipe.zadd(key, {packed(payment) + payment["transaction_id"].encode(): at})
    pipe.zremrangebyscore(key, "-inf", at - HORIZON_MS)
    pipe.zrange(key, 0, -1)


def row(members):
    """Return the features of the newest of a user's payments."""
    return features(*unpacked(b"".join([member[: ITEM.size] for member in members])))


def one_at_a_time(consumer, producer, store, model, topic):
    done = 0
    while True:
        record = consumer.poll(0.1)
        if record is None or record.error():
            continue
        payment = orjson.loads(record.value())
        pipe = store.pipeline(transaction=False)
        remember(pipe, payment)
        (score,) = model.score_rows([row(pipe.execute()[2])])
        producer.produce(topic, model.decision(payment, score), record.key())
        producer.poll(0)
        done += 1
        if done % COMMIT_EVERY == 0:
            producer.flush()
            consumer.commit(asynchronous=False)


def batched(consumer, producer, store, model, topic, size):
    while True:
        records = [record for record in consumer.consume(size, 0.05) if not record.error()]
        if not records:
            continue
        payments = [orjson.loads(record.value()) for record in records]
        pipe = store.pipeline(transaction=False)
        for payment in payments:
            remember(pipe, payment)
        windows = pipe.execute()[2::3]
        scores = model.score_rows([row(members) for members in windows])
        for record, payment, score in zip(records, payments, scores, strict=True):
            producer.produce(topic, model.decision(payment, score), record.key())
        producer.flush()
        consumer.commit(asynchronous=False)


def main():
    job, size = json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    consumer = Consumer(
        {
            "bootstrap.servers": job["bootstrap"],
            "group.id": job["group"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job["source"]])
    producer = Producer({"bootstrap.servers": job["bootstrap"], "linger.ms": 5, "partitioner": "murmur2_random"})
    store = redis.Redis.from_url(job["redis"])
    store.flushdb()
    loop = (consumer, producer, store, Model(job["bundle"]), job["decisions"])
    one_at_a_time(*loop) if size == 1 else batched(*loop, size)


if __name__ == "__main__":
    main()
