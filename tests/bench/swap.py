"""Latency while a promoted model is loaded and takes over, beside the seconds before; and how long until it is ready.

Open loop at a steady rate. Models of 600 trees take turns. Each promotion is compared with what came just before it, so
that a busy machine is busy for both. The models hold 2 % of the payments.

PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/swap.py [ROUNDS]   1 by default, of eight swaps
"""

import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from figures import Row
from held import holding
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import create_line
from models.bundle import Bundle
from small_models import promote, small_model
from spread import claim, spread
from traffic import payments
from worker_process import WorkerProcess

TREES = 300  # of each library
ROWS = 20_000
SEED = 1
RATE = 500  # events a second
WARM_SECS = 4
SWAPS = 8
APART_SECS = 5.0
WINDOW_SECS = 2.0  # from the promotion on: loading, taking over, and what queued up meanwhile; as long before it
P99_BOUND = "≤ 2"
READY_BOUND = "≤ 2"  # seconds


class Promoter(threading.Thread):
    """Promotes in turn, at a steady pace, and notes when."""

    def __init__(self, registry: Path, bundles: list[Bundle]) -> None:
        super().__init__(daemon=True)
        self._registry, self._bundles = registry, bundles
        self.at: list[float] = []

    def run(self) -> None:
        begin = time.perf_counter() + WARM_SECS
        for number in range(SWAPS):
            while (left := begin + (number + 1) * APART_SECS - WINDOW_SECS - time.perf_counter()) > 0:
                time.sleep(left)
            self.at.append(time.perf_counter())
            promote(self._registry, self._bundles[(number + 1) % len(self._bundles)])


def swaps(topics: Topics, folder: Path, bundles: list[Bundle]) -> tuple[list[float], list[float], list[float]]:
    """Return p99 ms before and during each swap, and the seconds each model took to be ready."""
    line, registry = create_line(topics), folder / "registry"
    promote(registry, bundles[0])
    worker = WorkerProcess(
        line.settings()
        | {
            "kafka.bootstrap_servers": topics.bootstrap,
            "kafka.group": f"swap-{line.decisions}",
            "kafka.consumer": {"fetch.wait.max.ms": "5"},
            "model.follow": str(registry),
            "model.cache": str(folder / "cache"),
            "model.poll_interval": "50ms",
            "metrics.enabled": False,
            "store.kind": "memory",
        }
    )
    promoter = Promoter(registry, bundles)
    try:
        worker.wait_for("assigned")
        promoter.start()
        total = int(RATE * (WARM_SECS + (SWAPS + 0.5) * APART_SECS))
        _, due, ms = timed_latencies(topics, worker, line.transactions, line.decisions, total)
        promoter.join()
        assert worker.count("swapped") == SWAPS, worker.values("swap_refused")
        ready = [secs for _, secs in worker.values("prepared")]
        assert worker.stop() == 0
    finally:
        worker.close()
    before = [p99(ms[(due >= at - WINDOW_SECS) & (due < at)]) for at in promoter.at]
    during = [p99(ms[(due >= at) & (due < at + WINDOW_SECS)]) for at in promoter.at]
    return before, during, ready


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
    for number, (key, value) in enumerate(payments(total, SEED)):
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


def p99(ms: np.ndarray) -> float:
    assert len(ms) > RATE, "a window without events says nothing"
    return float(np.percentile(ms, 99))


def table(rounds: int = 1) -> list[Row]:
    """Rows of (figure, measured, bound)."""
    before: list[float] = []
    during: list[float] = []
    ready: list[float] = []
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as folder:
        # Three, so that none is the one before, which is taken from memory.
        trained = [small_model(Path(folder, f"trained-{seed}"), seed, rounds=TREES, rows=ROWS) for seed in range(3)]
        bundles = [holding(bundle, Path(folder, bundle.version)) for bundle in trained]
        for number in range(rounds):
            found = swaps(Topics(kafka.bootstrap), Path(folder, f"round-{number}"), bundles)
            before += found[0]
            during += found[1]
            ready += found[2]
    print("swap, p99 ms before", np.round(before, 1), "during", np.round(during, 1), file=sys.stderr)
    ratios = [after / earlier for earlier, after in zip(before, during, strict=True)]
    name = f"p99 during a swap / before, at {RATE} events/s, exactly once"
    return [
        Row(name, claim(ratios, P99_BOUND), P99_BOUND, ratios, "times the p99 before"),
        Row("  p99 ms before", spread(before), "", before, "p99, ms"),
        Row("  p99 ms during", spread(during), "", during, "p99, ms"),
        Row(
            f"promoted to ready, {2 * TREES} trees, kernels compiled, s",
            claim(ready, READY_BOUND),
            READY_BOUND,
            ready,
            "s",
        ),
    ]


if __name__ == "__main__":
    for row in table(*map(int, sys.argv[1:])):
        print(*row[:3], sep=" | ")
