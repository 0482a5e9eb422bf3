"""Latency while a promoted model is loaded and takes over, beside the seconds before; and how long until it is ready.

Open loop at the rate of the latency benchmark. Models of 600 trees take turns. Each promotion is compared with what
came just before it, so that a busy machine is busy for both. The models hold 2 % of the payments.

PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/swap.py [ROUNDS]   1 by default, of eight swaps
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from held import holding
from kafka_server import KafkaServer
from kafka_topics import Topics
from latency import RATE, WARM_SECS, timed_latencies
from line_output import create_line
from models.bundle import Bundle
from small_models import promote, small_model
from spread import spread
from worker_process import WorkerProcess

TREES = 300  # of each library
ROWS = 20_000
SWAPS = 8
APART_SECS = 5.0
WINDOW_SECS = 2.0  # from the promotion on: loading, taking over, and what queued up meanwhile; as long before it
P99_BOUND = 2.0
READY_BOUND_SECS = 2.0


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


def p99(ms: np.ndarray) -> float:
    assert len(ms) > RATE, "a window without events says nothing"
    return float(np.percentile(ms, 99))


def table(rounds: int = 1) -> list[tuple[str, str, str]]:
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
    return [
        (f"p99 during a swap / before, at {RATE} events/s, exactly once", spread(ratios), f"≤ {P99_BOUND}"),
        ("  p99 ms before / during", f"{spread(before)} / {spread(during)}", ""),
        (f"promoted to ready, {2 * TREES} trees, kernels compiled, s", spread(ready), f"≤ {READY_BOUND_SECS}"),
    ]


if __name__ == "__main__":
    for row in table(*map(int, sys.argv[1:])):
        print(*row, sep=" | ")
