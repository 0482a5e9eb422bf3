"""What reasons cost: whole workers in turn over the same input, one holding 2 % of events with their top-3 reasons.

PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/reasons.py [EVENTS [PAIRS]]   100,000 and 7 by default

Both score with the same 600 trees under the same engine; their thresholds alone differ, so that the other holds
nothing and explains nothing. CPU seconds of the whole process between its fifth commit and its last.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from figures import Row
from held import changed
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import create_line, read_line
from models.bundle import Bundle
from small_models import small_model
from spread import claim, spread
from traffic import traffic
from worker_cpu import cpu_us
from worker_process import WorkerProcess

EVENTS = 100_000
PAIRS = 7
TREES = 300  # of each library
ROWS = 20_000
REVIEW_RATE = 0.02
REASONS = 3
SEED = 1
BOUND = "≤ 10"  # %


def table(events: int = EVENTS, pairs: int = PAIRS) -> list[Row]:
    """Rows of (figure, measured, bound)."""
    cpu: dict[str, list[float]] = {"with": [], "without": []}
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as folder:
        topics = Topics(kafka.bootstrap)
        source = topics.create("transactions")
        topics.produce(source, traffic(events, SEED, users=20_000))
        trained = small_model(Path(folder, "trained"), SEED, rounds=TREES, rows=ROWS)
        silent = changed(trained, Path(folder, "silent"), 1.0)
        scores = run(topics, source, silent)[1]
        spoken = changed(trained, Path(folder, "spoken"), float(np.quantile(scores, 1 - REVIEW_RATE)))
        for number in range(pairs):
            # Which goes first alternates: what a machine does meanwhile must not favour either.
            for kind in ("with", "without") if number % 2 else ("without", "with"):
                spent, scores, held = run(topics, source, spoken if kind == "with" else silent)
                rate = held / len(scores)
                low, high = (0.9 * REVIEW_RATE, 1.1 * REVIEW_RATE) if kind == "with" else (0.0, 0.0)
                assert low <= rate <= high, f"{rate:.2%} of events were held"
                cpu[kind].append(spent)
                print(f"{kind} reasons, {held:,} held: {spent:.2f} µs of CPU an event", file=sys.stderr)
    more = [100 * (a / b - 1) for a, b in zip(cpu["with"], cpu["without"], strict=True)]
    name = f"top-3 reasons at a {REVIEW_RATE:.0%} review rate, {2 * TREES} trees: more CPU an event, %"
    return [
        Row(name, claim(more, BOUND, 1), BOUND, more),
        *(Row(f"  {way} reasons", f"{spread(us)} µs", "", us, "µs of CPU an event") for way, us in cpu.items()),
    ]


def run(topics: Topics, source: str, bundle: Bundle) -> tuple[float, np.ndarray, int]:
    """Return µs of CPU an event, all scores, and how many events were held, each with its reasons."""
    line = create_line(topics, source=source)
    settings = line.settings() | {
        "kafka.bootstrap_servers": topics.bootstrap,
        "kafka.group": f"reasons-{line.decisions}",
        "model.bundle": str(bundle.directory),
        "metrics.enabled": False,
        "store.kind": "memory",
    }
    worker = WorkerProcess(settings)
    try:
        spent = cpu_us(worker, topics, settings["kafka.group"], source)
    finally:
        worker.close()
    decisions = read_line(topics, line).decisions.values()
    held = [one for one in decisions if one["decision"] != "approve"]
    assert all(len(one["reasons"]) == REASONS for one in held)
    return spent, np.array([one["score"] for one in decisions], np.float32), len(held)


if __name__ == "__main__":
    for row in table(*map(int, sys.argv[1:])):
        print(*row[:3], sep=" | ")
