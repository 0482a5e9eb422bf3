"""What the monitor costs: CPU with 16 workers' telemetry, memory over 24 simulated hours, Faust's pace on `labelled`,
how long a restart reads back.

    PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/monitor.py [--seconds 240] [--hours 24]

Telemetry is stamped in its own time and read as fast as it can be, so a share of a core is CPU seconds for each second
told. The null line decodes the same records in this process and does nothing with them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from confluent_kafka import Consumer, TopicPartition

from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from monitor_log import Story, labelled, telemetry
from monitor_process import MonitorProcess
from small_models import promote, small_model
from spread import claim, spread
from stream.settings import load_settings
from stream.telemetry_record import decode_telemetry

ROLES = ("telemetry", "labelled", "alerts", "labels", "decisions", "dead_letters")
CPU_BOUND, MEMORY_BOUND = "≤ 0.25", "≤ 1.1"
WORKERS, ROWS, LABELS = 16, 8, 30_000
READ_BACK_SECS = load_settings(None, {}).monitor.read_back / 1_000


class Bench:
    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.topics = Topics(bootstrap)
        self.names = {role: self.topics.create(role, 1) for role in ROLES}
        self.bundle = small_model(folder / "bundle", seed=1, rounds=2, rows=800)
        promote(folder / "registry", self.bundle)
        self.group = f"bench-{self.names['alerts']}"
        settings = {
            **{f"topics.{role}": name for role, name in self.names.items()},
            "kafka.bootstrap_servers": bootstrap,
            "monitor.group": self.group,
            "monitor.port": 0,
            "registry.directory": str(folder / "registry"),
            "quality.delay": "0s",
        }
        self.folder, self.settings = folder, settings
        self.start()
        self.monitor.wait_for("caught_up", 300)

    def start(self) -> None:
        self.monitor = MonitorProcess(self.folder, self.settings)
        self.process = psutil.Process(self.monitor.process.pid)

    def cpu(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    def read(self, role: str, rows: list) -> tuple[float, float]:
        """Produce and wait until it is committed; return (wall, CPU) seconds."""
        begun, cpu = time.perf_counter(), self.cpu()
        self.topics.produce(self.names[role], rows)
        end = self.topics.ends(self.names[role])[0]
        consumer = Consumer({"bootstrap.servers": self.topics.bootstrap, "group.id": self.group})
        place = TopicPartition(self.names[role], 0)
        self.monitor.wait_until(lambda: consumer.committed([place], 10)[0].offset >= end, f"{role} to be read", 3_000)
        consumer.close()
        return time.perf_counter() - begun, self.cpu() - cpu


def table(seconds: int = 240, hours: int = 24) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch, KafkaServer() as kafka:
        bench = Bench(kafka.bootstrap, Path(scratch))
        try:
            return [*cpu_share(bench, seconds), *read_back(bench), *pace(bench), *memory(bench, hours)]
        finally:
            bench.monitor.close()


def cpu_share(bench: Bench, seconds: int) -> list[Row]:
    cpu, begun = bench.cpu(), time.perf_counter()
    while time.perf_counter() - begun < 10:
        time.sleep(0.5)
    idle = (bench.cpu() - cpu) / (time.perf_counter() - begun)
    shares, nulls = [], []
    for run in range(3):
        start_ms = time.time_ns() // 1_000_000 - 86_400_000 + run * seconds * 1_000
        story = Story(start_ms, seconds, interval=1, workers=WORKERS, rows=ROWS)
        rows = list(telemetry(bench.bundle, story, seed=run))
        _, cpu = bench.read("telemetry", rows)
        shares.append(cpu / seconds + idle)
        begun_cpu = time.process_time()
        for row in rows:
            decode_telemetry(row.value)
        nulls.append((time.process_time() - begun_cpu) / seconds)
    features = len(bench.bundle.feature_names)
    return [
        Row(
            f"monitor: share of a core, {WORKERS} workers, {features} features",
            claim(shares, CPU_BOUND, 3),
            CPU_BOUND,
            shares,
            "cores",
        ),
        Row("  of it idle, reading nothing", f"{idle:.3f}", "", [idle], "cores"),
        Row("  decoding alone (null)", spread(nulls, 3), "", nulls, "cores"),
    ]


def read_back(bench: Bench) -> list[Row]:
    """Restarts that read all telemetry so far again; every record of it is judged, more than in a longer log."""
    records = bench.topics.ends(bench.names["telemetry"])[0]
    rates = []
    for _ in range(3):
        bench.monitor.kill()
        bench.start()
        bench.monitor.wait_for("reading_back", 300)
        cpu = bench.cpu()
        bench.monitor.wait_for("caught_up", 300)
        rates.append(records / (bench.cpu() - cpu))
    middle = statistics.median(rates)
    shown = ", ".join(f"{READ_BACK_SECS * workers / middle:.0f} s" for workers in (1, 4, 16))
    return [
        Row("monitor: records read back a second of CPU", spread(rates, 0), "", rates, "records/s"),
        Row("  monitor.read_back of 1, 4, 16 workers, one a second", shown, ""),
    ]


def pace(bench: Bench) -> list[Row]:
    story = Story(time.time_ns() // 1_000_000 - 3_600_000, 3_000)
    rows = list(labelled(bench.bundle.version, story, LABELS))
    wall, cpu = bench.read("labelled", rows)
    measured = f"{LABELS / wall:,.0f} ({1e6 * cpu / LABELS:.0f} µs of CPU each)"
    return [Row("monitor: labelled decisions a second", measured, "", [LABELS / wall], "decisions/s")]


def memory(bench: Bench, hours: int) -> list[Row]:
    """Four workers' intervals of 10 s; the second half of the day may take no more than the first."""
    start_ms = time.time_ns() // 1_000_000 - 86_400_000 + 3_600_000
    story = Story(start_ms, hours * 3_600, interval=10, workers=4, rows=ROWS)
    rows = list(telemetry(bench.bundle, story))
    resident = []
    for part in range(4):
        bench.read("telemetry", rows[part * len(rows) // 4 : (part + 1) * len(rows) // 4])
        resident.append(bench.process.memory_info().rss)
    shown = ", ".join(f"{size / 2**20:.0f}" for size in resident)
    grown = [resident[3] / resident[1]]
    return [
        Row(f"monitor: resident MiB after each quarter of {hours} h", shown, "", [s / 2**20 for s in resident], "MiB"),
        Row("  the last over the second", claim(grown, MEMORY_BOUND, 3), MEMORY_BOUND, grown),
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--hours", type=int, default=24)
    given = parser.parse_args()
    for name, value, bound, *_ in table(given.seconds, given.hours):
        print(f"{name:55} {value:40} {bound}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
