"""Latency under open-loop load: from when an event was due until its decision could be read, ours beside null.

Events are sent at their times whatever happens, so that a worker that falls behind cannot slow its own load down. The
default worker: ensemble of 600 trees, redis, feature log, telemetry and reasons. Every event must get its decision.
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
from race import PARTITIONS, new_job
from redis_server import RedisServer
from scene import scene
from spread import claim, spread

RATES = (500, 2_000, 8_000, 20_000)
BOUNDED = (500, 2_000, 8_000)
BOUNDS = {"at_least_once": "≤ 2", "exactly_once": "≤ 1.5"}  # p99, times the null pipeline's
WARM_SECS, MEASURED_SECS = 2.0, 10.0
WARM_RATE = 8_000
USERS = 20_000
ZIPF = 0.8
LATE_SECS = 60.0  # after the last event was due
ROUNDS = 3
PERCENTILES = (50, 99, 99.9)
CLIENT = {"kafka.consumer": {"fetch.wait.max.ms": "5"}}


class Load:
    """Sends events at their times, reads decisions as they can be read; a decision has its event's place in order."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._due: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self._seen: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self._sent = 0
        self._rng = np.random.default_rng(1)
        weights = 1.0 / np.arange(1, USERS + 1) ** ZIPF
        self._weights = weights / weights.sum()
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
        """Send each user's first event and wait for all decisions: users are in memory, kernels are loaded."""
        self._send(np.arange(USERS), np.zeros(USERS))
        self._wait(300.0)

    def run(self, rate: int) -> np.ndarray:
        """Send at this rate; return ms from due to read of the events after the warm-up, float64[n]."""
        count = int(rate * (WARM_SECS + MEASURED_SECS))
        users = self._rng.choice(USERS, count, p=self._weights)
        first = [len(due) for due in self._due]
        start = self._send(users, np.arange(count) / rate)
        self._wait(LATE_SECS)
        pairs = [
            (due, seen)
            for p in range(PARTITIONS)
            for due, seen in zip(self._due[p][first[p] :], self._seen[p][first[p] :], strict=True)
        ]
        due, seen = np.array(pairs).T
        return 1000 * (seen - due)[due >= start + WARM_SECS]

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _send(self, users: np.ndarray, after: np.ndarray) -> float:
        """Send each user's event so many seconds after the start, which is returned."""
        numbered = list(enumerate(users.tolist(), self._sent))
        self._sent += len(numbered)
        events = [(f"user-{user:06d}", user % PARTITIONS, event(number, user)) for number, user in numbered]
        start = time.perf_counter() + 0.1
        produce, poll, clock = self._producer.produce, self._producer.poll, time.perf_counter
        for (key, partition, value), at in zip(events, (start + after).tolist(), strict=True):
            while (left := at - clock()) > 0:
                poll(0)
                time.sleep(left)  # the client's own waits are whole milliseconds: below that they spin on a core
            self._due[partition].append(at)
            produce(self._job.source, value, key, partition)
        assert self._producer.flush(30) == 0
        return start

    def _wait(self, patience_secs: float) -> None:
        deadline, tick = time.monotonic() + patience_secs, threading.Event()
        while (left := self._sent - sum(map(len, self._seen))) > 0:
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


def event(number: int, user: int) -> bytes:
    """Return a payment of now."""
    return orjson.dumps(
        {
            "transaction_id": f"t-{number}",
            "user_id": f"user-{user:06d}",
            "amount": (number * 7919 % 20_000 + 1) / 100,
            "currency": "EUR",
            "event_time": time.time_ns() // 1_000_000,
            "merchant_id": f"m-{number * 31 % 300}",
            "country": "DE",
            "device_id": f"d-{user}",
        }
    )


@contextmanager
def loaded(contender: Contender, topics: Topics, redis: RedisServer) -> Iterator[Load]:
    """Start a contender, fill it and hand over its load; end it."""
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(contender, new_job(contender, topics, redis.url, scene(), folder), [])
        load = Load(watched.job)
        try:
            load.fill()
            yield load
        except AssertionError as failed:
            raise AssertionError(f"{failed}; {watched.last_words()}") from failed
        finally:
            load.close()
            watched.end()


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
                            ms = np.percentile(load.run(rate), PERCENTILES)
                            found[delivery, kind, rate].append(ms)
                            print(delivery, kind, rate, ms.round(2), file=sys.stderr, flush=True)
    return [row for delivery in BOUNDS for rate in rates for row in _rows(found, delivery, rate)]


def _rows(found: dict[tuple[str, str, int], list[np.ndarray]], delivery: str, rate: int) -> Iterator[Row]:
    mine, null_ms = (np.array(found[delivery, kind, rate]) for kind in ("ours", "null"))
    bound = BOUNDS[delivery] if rate in BOUNDED else ""
    ratios = (mine[:, 1] / null_ms[:, 1]).tolist()
    words = delivery.replace("_", " ")
    yield Row(f"latency at {rate:,} events/s, {words}: p99, ours / null", claim(ratios, bound), bound, ratios)
    for kind, ms in (("ours", mine), ("null", null_ms)):
        for place, percentile in enumerate(PERCENTILES):
            values = ms[:, place].tolist()
            name = f"  {kind}, p{percentile:g} at {rate:,}/s, {words}"
            yield Row(name, f"{spread(values)} ms", "", values, "p99, ms from due to read" if percentile == 99 else "")


if __name__ == "__main__":
    for row in table():
        print(*row[:3], sep=" | ")
