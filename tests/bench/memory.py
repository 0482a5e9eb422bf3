"""A worker's resident memory over a million events, once warm: users come, events expire, nothing piles up."""

import sys
import threading

import numpy as np
import psutil

from committed import last_records
from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import create_line
from redis_server import RedisServer
from spread import claim
from traffic import payments
from worker_process import WorkerProcess

EVENTS = 1_500_000
WARM = 500_000  # 60 days of event time: the retention has passed and the windows are full
STEP_MS = 10_000
USERS = 20_000
BOUND = "≤ 2 %"


def table() -> list[Row]:
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
        Row(f"resident memory after {WARM:,} events, MiB", f"{rss[0] / 2**20:.0f}", "", [rss[0] / 2**20], "MiB"),
        _grown(f"largest over the next {EVENTS - WARM:,}, more than that by", rss.max() / rss[0] - 1),
        _grown("growth of the fitted line over them, relative", slope / rss[0]),
    ]


def _grown(name: str, share: float) -> Row:
    return Row(name, claim([float(share)], BOUND, 3), BOUND, [float(share)], "share grown")


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
        print(*row[:3], sep=" | ")
    sys.exit(0)
