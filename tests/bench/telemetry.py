"""What telemetry costs: CPU of the whole worker an event with it and without, in turn on the same broker and input.

The real line: an ensemble of 600 trees, exactly once, feature log on. Without means neither records nor a segment in
the decision. CPU seconds of the process, all its threads: time on the clock says nothing on a shared machine. The
summed counts of every run must equal its decisions.
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import LineTopics, create_line
from models.bundle import Bundle
from redis_server import RedisServer
from small_models import small_model
from spread import claim, spread
from stream.telemetry_record import decode_telemetry
from traffic import traffic
from worker_cpu import cpu_us
from worker_process import WorkerProcess

TREES = 300  # of each library
ROWS = 8_000
SEED = 1
BOUND = "≤ 3"  # %
WITHOUT = {"telemetry.enabled": False, "telemetry.segment": ""}


def check(topics: Topics, line: LineTopics, bundle: Bundle) -> None:
    """Compare what the records counted with what was decided."""
    decided = sum(1 for _ in topics.read(line.decisions))
    records = [decode_telemetry(record.value) for record in topics.read(line.telemetry)]
    events = sum(record.events for record in records)
    assert events == decided > 0, f"{events} events were told of, {decided} decided"
    for name in bundle.feature_names:
        counts = [record.features[name] for record in records]
        assert sum(sum(one.counts) + one.missing for one in counts) == decided, name
    assert sum(sum(record.score.counts) for record in records) == decided
    assert sum(sum(by.values()) for record in records for by in record.segments.values()) == decided
    assert sum(sum(record.latency) for record in records) == decided


def table(events: int = 200_000, pairs: int = 7) -> list[Row]:
    spent: dict[str, list[float]] = defaultdict(list)
    with KafkaServer() as kafka, RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        topics = Topics(kafka.bootstrap)
        bundle = small_model(Path(folder) / "model", SEED, rounds=TREES, rows=ROWS)
        source = topics.create("transactions")
        topics.produce(source, traffic(events, SEED, users=20_000))
        for pair in range(pairs):
            for kind in ("with", "without") if pair % 2 else ("without", "with"):
                line = create_line(topics, source=source)
                settings = line.settings() | {
                    "kafka.bootstrap_servers": kafka.bootstrap,
                    "kafka.group": f"{kind}-{line.decisions}",
                    "model.bundle": str(bundle.directory),
                    "metrics.enabled": False,
                    "store.kind": "redis",
                    "store.url": redis.url,
                }
                worker = WorkerProcess(settings | (WITHOUT if kind == "without" else {}))
                try:
                    worker.wait_for("assigned", timeout_secs=300)  # the first one may compile its kernels
                    cpu = cpu_us(worker, topics, settings["kafka.group"], source)
                finally:
                    worker.close()
                if kind == "with":
                    check(topics, line, bundle)
                spent[kind].append(cpu)
                print(kind, round(cpu, 3), file=sys.stderr)
    more = [100 * (a / b - 1) for a, b in zip(spent["with"], spent["without"], strict=True)]
    name = f"telemetry: more CPU an event, %, {2 * TREES} trees, exactly once"
    return [
        Row(name, claim(more, BOUND), BOUND, more),
        *(Row(f"  {way} telemetry", f"{spread(us)} µs", "", us, "µs of CPU an event") for way, us in spent.items()),
    ]


if __name__ == "__main__":
    for row in table(*map(int, sys.argv[1:])):
        print(*row[:3], sep=" | ")
