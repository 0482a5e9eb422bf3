"""A worker's resident memory over a million events, once warm: users come, events expire, nothing piles up."""

import sys
import threading

import numpy as np
import psutil

from committed import last_records
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import create_line
from redis_server import RedisServer
from traffic import payments
from worker_process import WorkerProcess

EVENTS = 1_500_000
WARM = 500_000  # 60 days of event time: the retention has passed and the windows are full
STEP_MS = 10_000
USERS = 20_000


def table() -> list[tuple[str, str, str]]:
    with KafkaServer() as kafka, RedisServer() as redis:
        topics = Topics(kafka.bootstrap)
        line = create_line(topics)
        topics.produce(line.transactions, payments(EVENTS, users=USERS, step_ms=STEP_MS))
        assert sum(last_records(topics, line.transactions).values()) == EVENTS
        settings = line.settings() | {
            "kafka.bootstrap_servers": kafka.bootstrap,
            "kafka.group": f"memory-{line.decisions}",
            "model.engine": "constant",
            "metrics.enabled": False,
            "store.kind": "redis",
            "store.url": redis.url,
            "store.checkpoint_interval_ms": 2_000,
        }
        worker = WorkerProcess(settings)
        try:
            samples = watch(worker)
            assert worker.stop() == 0
        finally:
            worker.close()
    done, rss = samples[samples[:, 0] >= WARM].T
    slope = np.polyfit(done, rss, 1)[0] * (done[-1] - done[0])
    return [
        (f"resident memory after {WARM:,} events, MiB", f"{rss[0] / 2**20:.0f}", ""),
        (f"largest over the next {EVENTS - WARM:,}, relative to that", f"{rss.max() / rss[0]:.3f}", "flat"),
        ("growth of the fitted line over them, relative", f"{slope / rss[0]:+.3f}", "flat"),
    ]


def watch(worker: WorkerProcess) -> np.ndarray:
    """Return (events done, bytes resident), ten times a second until all are done."""
    process, samples, tick = psutil.Process(worker.process.pid), [], threading.Event()
    while True:
        done = sum(worker.values("batch"))
        samples.append((done, process.memory_info().rss))
        if done >= EVENTS:
            return np.array(samples, np.float64)
        assert worker.alive, worker.errors[-2000:]
        tick.wait(0.1)


if __name__ == "__main__":
    for row in table():
        print(*row, sep=" | ")
    sys.exit(0)
