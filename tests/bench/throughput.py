"""The worker beside the null pipeline: events a second and CPU an event, in turn on the same broker and input."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from committed import wait_until_committed
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import LineTopics, create_line
from redis_server import RedisServer
from spread import spread
from traffic import traffic
from worker_process import ROOT, WorkerProcess

NULL = Path(__file__).with_name("null_pipeline.py")
BOUND = 0.4  # of the null pipeline, exactly once, with a constant score


class NullProcess(WorkerProcess):
    """The null pipeline, watched like a worker."""

    def __init__(self, settings: Mapping[str, object], decision_bytes: int, row_bytes: int) -> None:
        self._arguments = [str(NULL), json.dumps(dict(settings)), str(decision_bytes), str(row_bytes)]
        super().__init__(settings)

    def _launch(self, settings, point):
        return subprocess.Popen(
            [sys.executable, *self._arguments],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )


def measure(worker: WorkerProcess, topics: Topics, group: str, source: str) -> tuple[float, float]:
    """Return events a second between the first and the last commit, and µs of CPU an event over the same time."""
    process = psutil.Process(worker.process.pid)
    worker.wait_for("committed", 5)  # warm: kernels loaded, fetch queue full
    first = len(worker.values("committed"))
    cpu = process.cpu_times()
    wait_until_committed(topics, group, source, [worker])
    done = process.cpu_times()
    commits = [at for at, event, _ in list(worker.events) if event == "committed"]
    sizes = worker.values("batch")
    events = sum(sizes[first : len(commits)])
    rate = events / (commits[-1] - commits[first - 1])
    spent = done.user + done.system - cpu.user - cpu.system
    assert worker.stop() == 0, worker.errors[-2000:]
    return rate, spent / events * 1e6


def bytes_written(topics: Topics, line: LineTopics) -> tuple[int, int]:
    """Return the bytes of a decision, and of the feature log a row, as the worker writes them."""
    decisions = [len(r.value) for r in topics.read(line.decisions)]
    features = sum(len(r.value) for r in topics.read(line.features))
    return round(statistics.mean(decisions)), round(features / len(decisions))


def table(events: int = 200_000, rounds: int = 3, **more: object) -> list[tuple[str, str, str]]:
    rows = []
    with KafkaServer() as kafka, RedisServer() as redis:
        topics = Topics(kafka.bootstrap)
        source = topics.create("transactions")
        topics.produce(source, traffic(events, users=20_000))
        ours, null = [], []
        settings = {
            "kafka.bootstrap_servers": kafka.bootstrap,
            "model.engine": "constant",
            "metrics.enabled": False,
            "store.kind": "redis",
            "store.url": redis.url,
            **more,
        }
        written = (0, 0)
        for _ in range(rounds):
            for kind in ("ours", "null"):
                line = create_line(topics, source=source)
                own = settings | line.settings() | {"kafka.group": f"{kind}-{line.decisions}"}
                worker = WorkerProcess(own) if kind == "ours" else NullProcess(own, *written)
                try:
                    (ours if kind == "ours" else null).append(measure(worker, topics, own["kafka.group"], source))
                finally:
                    worker.close()
                if kind == "ours":
                    written = bytes_written(topics, line)
                print(kind, [round(x, 2) for x in (ours if kind == "ours" else null)[-1]], written, file=sys.stderr)
    ratios = [a[0] / b[0] for a, b in zip(ours, null, strict=True)]
    cpu = [b[1] / a[1] for a, b in zip(ours, null, strict=True)]
    rows.append(("worker / null, exactly once, constant score: events a second", spread(ratios), f"≥ {BOUND}"))
    rows.append(("the same as CPU an event, null / worker", spread(cpu), ""))
    rows.append(("worker, events a second", spread([a[0] for a in ours], 0), ""))
    rows.append(("null, events a second", spread([b[0] for b in null], 0), ""))
    rows.append(("worker, µs of CPU an event", spread([a[1] for a in ours], 1), ""))
    rows.append(("null, µs of CPU an event", spread([b[1] for b in null], 1), ""))
    return rows


if __name__ == "__main__":
    for row in table():
        print(*row, sep=" | ")
