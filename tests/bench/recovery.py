"""From the start of a killed worker's successor to its first new decision, and how fast it replays.

With few and with many stored users over the same gaps: fail-over time depends on the gap, not on how much is stored.
The default worker: ensemble of 600 trees, Redis, feature log, reasons, exactly once.

One recovery
    Step 1  a worker that writes no checkpoints decides the gap, and is killed
    Step 2  new payments wait; its successor is started, replays the gap and decides them
    Step 3  the successor is suspended, a backlog is added, and it is resumed: its live rate
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import orjson
from confluent_kafka import Producer

from committed import wait_until_committed
from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import LineTopics, create_line
from redis_server import RedisServer
from scene import scene
from spread import claim, spread
from traffic import START_MS
from worker_process import WorkerProcess

STORED = (1_000, 100_000, 1_000_000)  # users
FEW, MANY = STORED[0], STORED[-1]
LIVE_RATE = 2_000  # events a second while the gap arose
GAP_SECS = (1, 10, 60)
NEW, BACKLOG = 2_000, 60_000
ROUNDS = 3
STORED_BOUND, REPLAY_BOUND = "≤ 1.5", "≥ 2"
NEVER_MS = 3_600_000
STORING_SECS = 300.0


class Found(NamedTuple):
    """Seconds from spawn to the plan of the last partition, to the end of its replay, to the first new decision.

    replay, live: events a second.
    """

    planned: float
    replayed: float
    decided: float
    replay: float
    live: float


class Stored:
    """A line whose store holds so many users, one payment of each; payments to come are of the first thousand.

    everybody: they are of all users instead, so that almost each has to be loaded.
    """

    def __init__(self, topics: Topics, redis: RedisServer, users: int, *, everybody: bool = False) -> None:
        self._topics = topics
        self._line: LineTopics = create_line(topics)
        self._active = users if everybody else FEW
        self._sent = 0
        self._group = f"recovery-{self._line.decisions}"
        self._settings: dict[str, object] = self._line.settings() | {
            "kafka.bootstrap_servers": topics.bootstrap,
            "kafka.group": self._group,
            "kafka.instance_id": "w",
            "model.bundle": str(scene().bundle),
            "metrics.enabled": False,
            "store.kind": "redis",
            "store.url": redis.url,
            "worker.shutdown_timeout_ms": int(STORING_SECS * 1000),
        }
        self._producer = Producer(
            {
                "bootstrap.servers": topics.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 2,  # it outlives its broker, quietly
            }
        )
        self._send(range(users))
        worker = self._started()
        try:
            self._wait(worker)
            assert worker.stop(STORING_SECS) == 0
        finally:
            worker.close()

    def recover(self, gap: int) -> Found:
        """Kill a worker after a gap of so many events and measure its successor."""
        # Step 1
        self._pay(gap)
        worker = self._started({"store.checkpoint_interval_ms": NEVER_MS})
        try:
            self._wait(worker)
            worker.kill()
        finally:
            worker.close()
        # Step 2
        self._pay(NEW)
        worker = self._started()
        try:
            self._wait(worker)
            plans = worker.values("recovering")
            assert sum(live - at for _, at, live, _ in plans) == gap, f"not {gap} events were replayed: {plans}"
            at = {name: [when for when, event, _ in worker.events if event == name] for name in ("recovering", "live")}
            decided = next(when for when, event, _ in worker.events if event == "committed")
            # Step 3
            worker.suspend()
            self._pay(BACKLOG)
            resumed, before = time.time(), len(worker.events)
            worker.resume()
            self._wait(worker)
            ended = max(when for when, event, _ in worker.events[before:] if event == "committed")
            assert worker.stop(STORING_SECS) == 0
        finally:
            worker.close()
        planned, replayed = max(at["recovering"]), max(at["live"])
        return Found(
            planned - worker.started_at,
            replayed - worker.started_at,
            decided - worker.started_at,
            gap / (replayed - min(at["recovering"])),
            BACKLOG / (ended - resumed),
        )

    def _started(self, more: dict[str, object] | None = None) -> WorkerProcess:
        return WorkerProcess(self._settings | (more or {}))

    def _wait(self, worker: WorkerProcess) -> None:
        wait_until_committed(self._topics, self._group, self._line.transactions, [worker], STORING_SECS)

    def _pay(self, count: int) -> None:
        """Send payments of the active users, at the live rate."""
        self._send(number * 7_919 % self._active for number in range(self._sent, self._sent + count))

    def _send(self, users: Iterator[int] | range) -> None:
        for user in users:
            key, value = payment(user, self._sent)
            self._producer.produce(self._line.transactions, value, key)
            self._sent += 1
        assert self._producer.flush(60) == 0


def payment(user: int, number: int) -> tuple[bytes, bytes]:
    key = f"u-{user}"
    value = {
        "transaction_id": f"t-{number}",
        "user_id": key,
        "amount": (number * 31 % 20_000 + 1) / 100,
        "currency": "EUR",
        "event_time": START_MS + number * 1000 // LIVE_RATE,
        "merchant_id": f"m-{number * 17 % 300}",
        "country": "DE",
        "device_id": f"d-{user}",
    }
    return key.encode(), orjson.dumps(value)


def table(rounds: int = ROUNDS, stored: Sequence[int] = STORED, gap_secs: Sequence[int] = GAP_SECS) -> list[Row]:
    """Rows by gap; in each round all sizes take turns over it."""
    found: dict[tuple[int, int], list[Found]] = defaultdict(list)
    spread_out: list[Found] = []
    with KafkaServer() as kafka, RedisServer() as redis:
        topics = Topics(kafka.bootstrap)
        lines = {users: Stored(topics, redis, users) for users in stored}
        for _ in range(rounds):
            for secs in gap_secs:
                for users, line in lines.items():
                    found[users, secs].append(line.recover(secs * LIVE_RATE))
                    print("recovery", users, secs, [round(x, 2) for x in found[users, secs][-1]], file=sys.stderr)
        everybody = Stored(topics, redis, stored[1], everybody=True)
        for _ in range(rounds):
            spread_out.append(everybody.recover(gap_secs[-1] * LIVE_RATE))
            print("recovery, everybody", [round(x, 2) for x in spread_out[-1]], file=sys.stderr)
    rows = [row for secs in gap_secs for row in _rows(found, stored, secs, bounded=secs == gap_secs[-1])]
    name = f"a gap of {gap_secs[-1]} s of all {stored[1]:,} stored users"
    return [*rows, *_replay(name, spread_out, "")]


def _rows(
    found: dict[tuple[int, int], list[Found]], stored: Sequence[int], secs: int, *, bounded: bool
) -> Iterator[Row]:
    few, many = (found[users, secs] for users in (stored[0], stored[-1]))
    gap = f"a gap of {secs} s"
    ratios = [most.decided / least.decided for least, most in zip(few, many, strict=True)]
    name = f"recovery, {gap}: {stored[-1]:,} / {stored[0]:,} stored users"
    yield Row(name, claim(ratios, STORED_BOUND), STORED_BOUND, ratios)
    for users in stored:
        decided = [one.decided for one in found[users, secs]]
        parts = (median(one.planned for one in found[users, secs]), median(one.replayed for one in found[users, secs]))
        measured = f"{spread(decided)} s; planned at {parts[0]:.2f}, replayed at {parts[1]:.2f}"
        yield Row(f"  {users:,} users, {gap}: spawn to first new decision", measured, "", decided, "s")
    for users in stored:
        yield from _replay(f"{users:,} users, {gap}", found[users, secs], REPLAY_BOUND if bounded else "")


def _replay(name: str, found: Sequence[Found], bound: str) -> Iterator[Row]:
    ratios = [one.replay / one.live for one in found]
    rates = f"{spread([one.replay for one in found], 0)} / {spread([one.live for one in found], 0)} events/s"
    yield Row(f"  {name}: replay / live rate", f"{claim(ratios, bound)}; {rates}", bound, ratios)


if __name__ == "__main__":
    for row in table(*map(int, sys.argv[1:])):
        print(*row[:3], sep=" | ")
