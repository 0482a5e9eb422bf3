"""Latency under open-loop load: from when an event was due until its decision could be read, ours beside null.

Events are sent at their times whatever happens, so that a worker that falls behind cannot slow its own load down. The
race's scene: 100,000 users whose windows are full and expiring, the ensemble of 600 trees, 2 % held and explained,
redis, feature log and telemetry. Every event must get its decision, and every score be right.
"""

import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from contender import Contender, Job, Watched
from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from null import null
from ours import ours
from race import PARTITIONS, check, new_job
from redis_server import RedisServer
from scene import WARM, Scene, scene
from spread import claim, spread

RATES = (500, 2_000, 8_000, 20_000)
BOUNDED = (500, 2_000, 8_000)
BOUNDS = {"at_least_once": "≤ 2", "exactly_once": "≤ 1.5"}  # p99, times the null pipeline's
WARM_SECS, MEASURED_SECS = 1.5, 8.0
WARM_RATE = 8_000
HELD = 0.015, 0.025  # share of decisions that are not approved
LATEST = 0.25  # of the p99 measured: how late the load itself may be at its own 99th percentile
LATE_SECS = 60.0  # after the last event was due
ROUNDS = 3
PERCENTILES = (50, 99, 99.9)
CLIENT = {"kafka.consumer": {"fetch.wait.max.ms": "5"}}


class Load:
    """Sends the scene's payments at their times, reads decisions as they can be read: one for each, in its order."""

    def __init__(self, job: Job, scene: Scene) -> None:
        self._job, self._scene = job, scene
        self._due: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self._seen: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self.sent = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self._producer = Producer(
            {
                "bootstrap.servers": job.bootstrap,
                "linger.ms": 1,  # as clients do; a request for each event would have the broker spend its core on those
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 2,  # it outlives its broker, quietly
            }
        )

    def fill(self) -> None:
        """Send what fills the windows and wait for all decisions, and until the first checkpoint of so many is over."""
        self._send(np.zeros(WARM))
        self._wait(300.0)
        self.run(min(RATES))

    def run(self, rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Send at this rate; return, of the events after the warm-up, ms from due to read and from due to sent."""
        count = int(rate * (WARM_SECS + MEASURED_SECS))
        first = [len(due) for due in self._due]
        start, late = self._send(np.arange(count) / rate)
        self._wait(LATE_SECS)
        pairs = [
            (due, seen)
            for p in range(PARTITIONS)
            for due, seen in zip(self._due[p][first[p] :], self._seen[p][first[p] :], strict=True)
        ]
        due, seen = np.array(pairs).T
        return 1000 * (seen - due)[due >= start + WARM_SECS], 1000 * late[int(rate * WARM_SECS) :]

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _send(self, after: np.ndarray) -> tuple[float, np.ndarray]:
        """Send the next payments so many seconds after the start; return the start, and seconds each was late."""
        scene, end = self._scene, self.sent + len(after)
        assert end <= len(scene.values), f"the scene has {len(scene.values):,} payments only"
        columns = (column[self.sent : end] for column in (scene.keys, scene.values, scene.times_ms.tolist()))
        events = [
            (key, int(key[5:]) % PARTITIONS, value, time_ms) for key, value, time_ms in zip(*columns, strict=True)
        ]
        self.sent = end
        start = time.perf_counter() + 0.1
        produce, poll, clock = self._producer.produce, self._producer.poll, time.perf_counter
        late = []
        for (key, partition, value, time_ms), at in zip(events, (start + after).tolist(), strict=True):
            while (left := at - clock()) > 0:
                poll(0)
                time.sleep(left)  # the client's own waits are whole milliseconds: below that they spin on a core
            late.append(-left)
            self._due[partition].append(at)
            produce(self._job.source, value, key, partition, timestamp=time_ms)
        assert self._producer.flush(30) == 0
        return start, np.array(late)

    def _wait(self, patience_secs: float) -> None:
        deadline, tick = time.monotonic() + patience_secs, threading.Event()
        while (left := self.sent - sum(map(len, self._seen))) > 0:
            assert time.monotonic() < deadline, f"{left:,} events were not decided {patience_secs:.0f} s after the last"
            tick.wait(0.02)

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._job.bootstrap,
                "group.id": f"reader-{self._job.group}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
            }
        )
        consumer.assign([TopicPartition(self._job.decisions, p, 0) for p in range(PARTITIONS)])
        while not self._done.is_set():
            records = consumer.consume(1, 0.05)
            records += consumer.consume(1_000, 0) if records else []
            now = time.perf_counter()
            for record in records:
                if record.error() is None:
                    self._seen[record.partition()].append(now)
        consumer.close()


@contextmanager
def loaded(contender: Contender, topics: Topics, redis: RedisServer) -> Iterator[Load]:
    """Start a contender, fill it and hand over its load; end it, and check what it said."""
    payments = scene()
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(contender, new_job(contender, topics, redis.url, payments, folder), [])
        load = Load(watched.job, payments)
        try:
            load.fill()
            yield load
            if contender.name != "null":
                _check(contender, topics, watched.job, payments, load.sent)
        except AssertionError as failed:
            raise AssertionError(f"{failed}; {watched.last_words()}") from failed
        finally:
            load.close()
            watched.end()


def _check(contender: Contender, topics: Topics, job: Job, payments: Scene, sent: int) -> None:
    records = topics.read(job.decisions)
    check(records, sent, payments.scores, payments.thresholds, contender.ours)
    held = float(np.mean([orjson.loads(record.value)["decision"] != "approve" for record in records]))
    assert HELD[0] <= held <= HELD[1], f"{held:.2%} were held"


def table(rounds: int = ROUNDS, rates: Sequence[int] = RATES) -> list[Row]:
    """Rows of p50, p99 and p99.9 at each rate, in both deliveries, and the ratios of p99."""
    found: dict[tuple[str, str, int], list[np.ndarray]] = defaultdict(list)
    with KafkaServer() as kafka, RedisServer() as redis:
        topics = Topics(kafka.bootstrap)
        for delivery in BOUNDS:  # a broker that has just started compiles what it runs, on the core that others need
            with loaded(null(delivery, **CLIENT), topics, redis) as load:
                load.run(WARM_RATE)
                load.run(WARM_RATE)
        for number in range(rounds):
            for delivery in BOUNDS:
                both = [("ours", ours("ours", delivery, **CLIENT)), ("null", null(delivery, **CLIENT))]
                for kind, contender in both if number % 2 == 0 else reversed(both):
                    with loaded(contender, topics, redis) as load:
                        for rate in rates:
                            ms, late = load.run(rate)
                            figures = np.array([*np.percentile(ms, PERCENTILES), np.percentile(late, 99)])
                            found[delivery, kind, rate].append(figures)
                            print(delivery, kind, rate, figures.round(2), file=sys.stderr, flush=True)
    return [row for delivery in BOUNDS for rate in rates for row in _rows(found, delivery, rate)]


def _rows(found: dict[tuple[str, str, int], list[np.ndarray]], delivery: str, rate: int) -> Iterator[Row]:
    """Yield the rows of one rate. The last figure of each run is how late the load was at its 99th percentile."""
    mine, null_ms = (np.array(found[delivery, kind, rate]) for kind in ("ours", "null"))
    bound = BOUNDS[delivery] if rate in BOUNDED else ""
    ratios = (mine[:, 1] / null_ms[:, 1]).tolist()
    words = delivery.replace("_", " ")
    late = any((ms[:, -1] > LATEST * ms[:, 1]).any() for ms in (mine, null_ms))
    said = f"{spread(ratios)}: no claim, the load itself was late" if late else claim(ratios, bound)
    yield Row(f"latency at {rate:,} events/s, {words}: p99, ours / null", said, bound, ratios)
    for kind, ms in (("ours", mine), ("null", null_ms)):
        for place, percentile in enumerate(PERCENTILES):
            values = ms[:, place].tolist()
            name = f"  {kind}, p{percentile:g} at {rate:,}/s, {words}"
            yield Row(name, f"{spread(values)} ms", "", values, "p99, ms from due to read" if percentile == 99 else "")
        yield Row(f"  the load late with {kind}, p99 at {rate:,}/s, {words}", f"{spread(ms[:, -1].tolist())} ms", "")


if __name__ == "__main__":
    for row in table():
        print(*row[:3], sep=" | ")
