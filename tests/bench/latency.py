"""From when an event was due to its decision read committed, open loop, beside the null pipeline."""

import sys
import threading
import time
from collections import defaultdict

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import create_line
from spread import spread
from throughput import NullProcess
from traffic import payments
from worker_process import WorkerProcess

RATE = 500
WARM_SECS = 4
MEASURED_SECS = 16
BOUNDS = {"at_least_once": 3.0, "exactly_once": 2.0}  # p99, times the null pipeline's


def latencies(topics: Topics, worker: WorkerProcess, source: str, decisions: str) -> np.ndarray:
    """Send at the rate whatever happens, and return ms from due to decided, of all but the warm-up."""
    start, at, ms = timed_latencies(topics, worker, source, decisions, RATE * (WARM_SECS + MEASURED_SECS))
    return ms[at >= start + WARM_SECS]


def timed_latencies(
    topics: Topics, worker: WorkerProcess, source: str, decisions: str, total: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Send so many at the rate; return when it began, when each was due, and ms from then to decided."""
    worker.wait_for("assigned")
    due: dict[int, list[float]] = defaultdict(list)
    seen: dict[int, list[float]] = defaultdict(list)
    done = threading.Event()

    def read() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": topics.bootstrap,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
            }
        )
        consumer.assign([TopicPartition(decisions, p, 0) for p in range(4)])
        count = 0
        while count < total and not done.is_set():
            for record in consumer.consume(1000, 0.001):
                if record.error() is None:
                    seen[record.partition()].append(time.perf_counter())
                    count += 1
        consumer.close()

    reader = threading.Thread(target=read)
    reader.start()
    producer = Producer({"bootstrap.servers": topics.bootstrap, "linger.ms": 0, "partitioner": "murmur2_random"})

    def delivered(at: float):
        return lambda _error, message: due[message.partition()].append((message.offset(), at))

    start = time.perf_counter() + 0.1
    for number, (key, value) in enumerate(payments(total, seed=time.time_ns())):
        at = start + number / RATE
        while (left := at - time.perf_counter()) > 0:
            producer.poll(0)
            time.sleep(left)  # the client's own waits are whole milliseconds: below that they spin on a core
        producer.produce(source, value, key, on_delivery=delivered(at))
    producer.flush(30)
    reader.join(30)
    done.set()
    reader.join()
    found = [
        (at, (decided - at) * 1000)
        for p, sent in due.items()
        for (_, at), decided in zip(sorted(sent), seen[p], strict=True)
    ]
    assert len(found) == total, f"{len(found)} of {total} decisions came"
    at, ms = np.array(found).T
    return start, at, ms


def table(rounds: int = 3) -> list[tuple[str, str, str]]:
    rows = []
    with KafkaServer() as kafka:
        topics = Topics(kafka.bootstrap)
        for delivery, bound in BOUNDS.items():
            p50, p99 = defaultdict(list), defaultdict(list)
            for _ in range(rounds):
                for kind in ("ours", "null"):
                    line = create_line(topics)
                    settings = line.settings() | {
                        "kafka.bootstrap_servers": kafka.bootstrap,
                        "kafka.group": f"{kind}-{line.decisions}",
                        "kafka.delivery": delivery,
                        "kafka.consumer": {"fetch.wait.max.ms": "5"},
                        "model.engine": "constant",
                        "metrics.enabled": False,
                        "store.kind": "memory",
                    }
                    worker = WorkerProcess(settings) if kind == "ours" else NullProcess(settings, 260, 130)
                    try:
                        found = latencies(topics, worker, line.transactions, line.decisions)
                        assert worker.stop() == 0
                    finally:
                        worker.close()
                    p50[kind].append(float(np.percentile(found, 50)))
                    p99[kind].append(float(np.percentile(found, 99)))
                    print(delivery, kind, np.percentile(found, [50, 90, 99, 99.9]).round(2), file=sys.stderr)
            ratios = [a / b for a, b in zip(p99["ours"], p99["null"], strict=True)]
            rows.append((f"p99 at {RATE} events/s, {delivery}: worker / null", spread(ratios), f"≤ {bound}"))
            rows += [
                (f"  {kind}: p50 / p99 ms", f"{spread(p50[kind])} / {spread(p99[kind])}", "")
                for kind in ("ours", "null")
            ]
    return rows


if __name__ == "__main__":
    for row in table():
        print(*row, sep=" | ")
