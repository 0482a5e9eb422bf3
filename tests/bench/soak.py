"""An hour of steady load on the real command: memory, file handles, lag and latency as time goes on.

    PYTHONPATH=.:tests:tests/bench:tests/bench/peers .venv/bin/python tests/bench/soak.py --minutes 60

Event time runs two thousand times as fast as the clock, so that the longest window passes again and again: payments
expire, and users leave, for the population moves on. Topics are bounded by size, as an operator's are.
"""

import argparse
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
import psutil

from figures import Row
from kafka_server import ROOT, KafkaServer, free_port
from kafka_topics import Topics
from line_output import LineTopics
from redis_server import RedisServer
from scene import scene
from spread import claim, spread

RATE = 1_000  # events a second: a fraction of a core
SPEED = 2_000  # event time over clock time: 30 days pass in 22 minutes
USERS = 5_000  # at a time
LIFETIME_MS = 3 * 86_400_000  # of a user, until another takes the place
SAMPLE_SECS = 5.0
WARM_SHARE = 0.5  # of the time is warm-up: until users who left have no payments left, memory has to grow
BOUND = "≤ 2 %"
BYTES = {"retention.bytes": str(64 << 20), "segment.bytes": str(16 << 20)}
LATENCY = re.compile(r'^fraudstream_decision_latency_seconds_bucket\{.*le="([^"]+)".*\} (\S+)$', re.MULTILINE)
GAUGES = {
    name: re.compile(rf"^{metric}\{{.*\}} (\S+)$", re.MULTILINE)
    for name, metric in (
        ("lag", "fraudstream_consumer_lag_records"),
        ("users", "fraudstream_state_users"),
        ("events", "fraudstream_state_events"),
    )
}


@dataclass(frozen=True)
class Sample:
    """at: seconds since the start; users, events: in memory; latency: cumulative counts by upper bound in seconds."""

    at: float
    memory: int
    handles: int
    threads: int
    lag: float
    users: float
    events: float
    latency: dict[float, float]


def payments(started_ms: int, rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """Yield payments whose event time begins as far back as the run takes it forward."""
    for number in itertools.count():
        at_ms = started_ms + number * 1_000 * SPEED // RATE
        place = int(USERS ** rng.random())
        user = f"u-{place}-{(at_ms + place * 7_919_000) // LIFETIME_MS}"
        value = {
            "transaction_id": f"t-{number}",
            "user_id": user,
            "amount": round(rng.lognormvariate(3, 1), 2),
            "currency": "EUR",
            "event_time": at_ms,
            "merchant_id": f"m-{rng.randrange(3_000)}",
            "country": rng.choice(("DE", "FR", "US")),
            "device_id": f"d-{user}",
        }
        yield user.encode(), orjson.dumps(value)


class Soak:
    """One worker under load for so many seconds."""

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self._stop = threading.Event()
        self.samples: list[Sample] = []
        self.sent = 0
        self._met: set[bytes] = set()

    @property
    def users(self) -> int:
        """How many users there have been."""
        return len(self._met)

    def run(self) -> None:
        with KafkaServer() as kafka, RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
            topics = Topics(kafka.bootstrap)
            line = LineTopics(
                topics.create("transactions", 4, BYTES),
                topics.create("decisions", 4, BYTES),
                topics.create("dlq", 4, BYTES | {"max.message.bytes": "2000000"}),
                topics.create("features", 4, BYTES),
                topics.create("telemetry", 1, BYTES),
            )
            port = free_port()
            settings = line.settings() | {
                "kafka.bootstrap_servers": kafka.bootstrap,
                "kafka.group": "soak",
                "model.bundle": str(scene().bundle),
                "store.kind": "redis",
                "store.url": redis.url,
                "metrics.port": port,
            }
            told = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
            command = [sys.executable, "-m", "stream", *told, "worker"]
            with Path(folder, "log").open("w+b") as log:
                process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
                load = threading.Thread(target=self._load, args=(topics, line.transactions))
                try:
                    self._wait_until_ready(port, process, log)
                    load.start()
                    self._watch(psutil.Process(process.pid), port)
                    self._stop.set()
                    load.join(60)
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(60) == 0, _end_of(log)
                finally:
                    self._stop.set()
                    process.kill()
                    process.wait()

    def _wait_until_ready(self, port: int, process: subprocess.Popen, log) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert process.poll() is None, _end_of(log)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            except OSError:
                self._stop.wait(0.2)
            else:
                return
        raise TimeoutError(f"the worker is not ready: {_end_of(log)}")

    def _load(self, topics: Topics, source: str) -> None:
        """Send at the rate, a tenth of a second at a time."""
        began = time.monotonic()
        # Never ahead of the records' own timestamps, which are those of now.
        first_ms = time.time_ns() // 1_000_000 - int(self._secs * 1_100 * SPEED)
        rows = payments(first_ms, random.Random(1))
        while not self._stop.wait(0.1):
            due = int((time.monotonic() - began) * RATE)
            some = list(itertools.islice(rows, due - self.sent))
            topics.produce(source, some)
            self._met.update(key for key, _ in some)
            self.sent = due

    def _watch(self, process: psutil.Process, port: int) -> None:
        began = time.monotonic()
        while (at := time.monotonic() - began) < self._secs:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            latency: dict[float, float] = {}
            for bound, count in LATENCY.findall(text):
                latency[float(bound)] = latency.get(float(bound), 0.0) + float(count)
            self.samples.append(
                Sample(
                    at,
                    process.memory_info().rss,
                    process.num_fds(),
                    process.num_threads(),
                    *(sum(map(float, gauge.findall(text))) for gauge in GAUGES.values()),
                    latency,
                )
            )
            self._stop.wait(SAMPLE_SECS)


def p99_ms(before: Sample, after: Sample) -> float:
    """Return the upper bound of the bucket that holds the 99th percentile of what came between two samples."""
    counts = [(bound, count - before.latency.get(bound, 0.0)) for bound, count in sorted(after.latency.items())]
    total = counts[-1][1]
    return next((1000 * bound for bound, count in counts if count >= 0.99 * total), float("inf")) if total else 0.0


def table(minutes: float = 60.0) -> tuple[list[Row], list[Sample]]:
    """Return the rows, and everything that was sampled."""
    soak = Soak(60 * minutes)
    soak.run()
    samples = soak.samples
    for one in samples[:: max(1, len(samples) // 24)]:
        print(
            f"{one.at:6.0f} s {one.memory / 2**20:8.1f} MiB {one.handles} handles, lag {one.lag:.0f}", file=sys.stderr
        )
    warm = [one for one in samples if one.at >= WARM_SHARE * samples[-1].at]
    eighths = [warm[place * len(warm) // 8 : (place + 1) * len(warm) // 8] for place in range(8)]
    memory = [float(np.median([one.memory for one in part])) / 2**20 for part in eighths]
    slope = float(np.polyfit([one.at for one in warm], [one.memory for one in warm], 1)[0]) * 3600 / 2**20
    away = max(memory) / min(memory) - 1
    steps = list(itertools.pairwise(samples[:: max(1, len(samples) // 12)]))
    tails = [p99_ms(before, after) for before, after in steps]
    quarter = len(tails) // 4
    last = samples[-1]
    gone = last.events < soak.sent and last.users < soak.users
    name = f"soak, {minutes:g} min at {RATE:,} events a second, event time × {SPEED:,}"
    rows = [
        Row(
            f"{name}: memory after the warm-up, most over least of eight medians",
            claim([away], BOUND, 4),
            BOUND,
            [away],
        ),
        Row("  resident, MiB, those eight medians", spread(memory, 1), "", memory, "MiB resident"),
        Row("  its slope, MiB an hour", f"{slope:+.1f}", ""),
        Row("  payments and users in memory, of all sent", _held(last, soak), "fewer" if gone else "fewer: missed"),
        Row("  file handles, first and last quarter", f"{_most(samples, 'handles')}", "equal"),
        Row("  threads, first and last quarter", f"{_most(samples, 'threads')}", "equal"),
        Row("  lag, the most after the warm-up", f"{max(one.lag for one in warm):.0f}", ""),
        Row("  p99 ≤, ms, first and last quarter", f"{max(tails[1 : quarter + 1])} and {max(tails[-quarter:])}", ""),
        Row("  events", f"{soak.sent:,}", ""),
    ]
    return rows, samples


def _held(last: Sample, soak: Soak) -> str:
    return f"{last.events:,.0f} of {soak.sent:,}; {last.users:,.0f} of {soak.users:,}"


def _most(samples: list[Sample], what: str) -> str:
    quarter = len(samples) // 4
    first, last = (max(getattr(one, what) for one in part) for part in (samples[1 : quarter + 1], samples[-quarter:]))
    return f"{first} and {last}"


def _end_of(log) -> str:
    log.seek(0)
    return log.read().decode()[-3000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="where the samples go")
    asked = parser.parse_args()
    rows, samples = table(asked.minutes)
    for row in rows:
        print(*row[:3], sep=" | ")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(one) for one in samples], indent=1) + "\n")


if __name__ == "__main__":
    main()
