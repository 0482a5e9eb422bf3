"""What the transport alone costs: consume → produce of the bytes the worker writes, with its clients and delivery.

    python tests/bench/null_pipeline.py '{"kafka.group": "g", ...}' WRITTEN

WRITTEN is the scene's file of decisions and feature-log records of ours, which are written in turn: bytes that compress
as ours do. A record of features has the size that ours has for as many rows. Same partitions, client settings, delivery
mode and batch sizes as the worker, the same overlap of commit and next batch, the same filling of a batch while the one
before is not durable; nothing is decoded, kept, scored or encoded.
"""

import json
import signal
import sys
import threading
from itertools import cycle, islice
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Producer

from line_process import Teller
from stream.clients import consumer_config, producer_config
from stream.delivery import AtLeastOnce, ExactlyOnce, Outgoing, Output
from stream.observer import BatchReport
from stream.settings import load_settings


class Features:
    """Cuts of real feature-log records, one behind the other and from the start again."""

    def __init__(self, records: list[bytes], one_row: int, further_row: float) -> None:
        self._bytes, self._at = b"".join(records), 0
        self._one_row, self._further_row = one_row, further_row

    def cut(self, rows: int) -> bytes:
        """Return as many bytes as a record of so many rows has."""
        size = round(self._one_row + self._further_row * (rows - 1))
        if self._at + size > len(self._bytes):
            self._at = 0
        self._at += size
        return self._bytes[self._at - size : self._at]


def main() -> None:
    settings = load_settings(None, {}, json.loads(sys.argv[1]))
    written = msgspec.msgpack.decode(Path(sys.argv[2]).read_bytes())
    decisions = cycle(written["decisions"])
    features = Features(written["records"], written["one_row"], written["further_row"])
    teller, stop = Teller(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    consumer = Consumer(consumer_config(settings))
    exactly_once = settings.kafka.delivery == "exactly_once"

    def make(report):
        config = producer_config(settings, transactional=exactly_once)
        return Producer({**config, "on_delivery": report, "delivery.report.only.error": True})

    topics = settings.topics
    if exactly_once:
        delivery = ExactlyOnce(make, topics.transactions, teller)
    else:
        delivery = AtLeastOnce(make, topics.transactions, teller, consumer)
    delivery.ready()
    group = []

    def assigned(client, partitions):
        for partition in partitions:
            partition.offset = 0
        client.assign(partitions)
        group[:] = [client.consumer_group_metadata()]
        teller.assigned([p.partition for p in partitions])

    consumer.subscribe([topics.transactions], on_assign=assigned)
    while not stop.is_set():
        records = consumer.consume(1, settings.worker.poll_timeout_ms / 1000)
        if not records:
            delivery.finish()
            continue
        records += consumer.consume(settings.worker.max_batch - 1, 0)
        if len(records) < settings.worker.max_batch and delivery.in_flight:
            delivery.finish()
            records += consumer.consume(settings.worker.max_batch - len(records), 0)
        output = Output(topics.decisions)
        rows: dict[int, int] = {}
        for record in records:
            number = record.partition()
            output.partitions.append(number)
            output.keys.append(record.key())
            output.source_offsets.append(record.offset())
            output.offsets[number] = record.offset() + 1
            rows[number] = rows.get(number, 0) + 1
        output.values += islice(decisions, len(records))
        for number, count in rows.items():
            value = features.cut(count)
            output.rare.append(Outgoing(topics.features, number, None, value, (), "features", number, 0))
        delivery.finish()
        delivery.send(output, group[0])
        teller.batch(BatchReport(events=len(records)))
    delivery.finish()
    consumer.close()
    delivery.close()


if __name__ == "__main__":
    main()
