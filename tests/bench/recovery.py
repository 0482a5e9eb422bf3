"""From the start of a killed worker's successor to its first new decision and to having caught up.

With few and with many stored users, over the same gap: fail-over time depends on the gap, not on how much is stored.
"""

import sys
from collections.abc import Iterator

import orjson

from committed import wait_until_committed
from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import create_line
from redis_server import RedisServer
from spread import spread
from traffic import START_MS
from worker_process import WorkerProcess

FEW, MANY = 1_000, 200_000
GAP, NEW = 20_000, 2_000
BOUND = 1.5
NEVER_MS = 3_600_000


def one_each(users: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield one payment of each user."""
    for number in range(users):
        yield payment(f"u-{number}", f"first-{number}", START_MS + number)


def busy(count: int, name: str, at_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield payments of the first thousand users, the same whatever is stored."""
    for number in range(count):
        yield payment(f"u-{number * 7919 % FEW}", f"{name}-{number}", at_ms + number)


def payment(user: str, transaction: str, time_ms: int) -> tuple[bytes, bytes]:
    value = {"transaction_id": transaction, "user_id": user, "amount": 12.5, "currency": "EUR", "event_time": time_ms}
    return user.encode(), orjson.dumps({**value, "merchant_id": "m-1", "country": "DE", "device_id": "d-1"})


def recover(topics: Topics, redis: RedisServer, users: int) -> tuple[float, float]:
    """Return seconds from spawn to the first new decision committed, and to all new ones."""
    line = create_line(topics)
    group = f"recovery-{line.decisions}"
    settings = line.settings() | {
        "kafka.bootstrap_servers": topics.bootstrap,
        "kafka.group": group,
        "kafka.instance_id": "w",
        "model.engine": "constant",
        "metrics.enabled": False,
        "store.kind": "redis",
        "store.url": redis.url,
    }
    topics.produce(line.transactions, one_each(users))
    run(settings, topics, group, line.transactions, kill=False)
    later_ms = START_MS + users
    topics.produce(line.transactions, busy(GAP, "gap", later_ms))
    run(settings | {"store.checkpoint_interval_ms": NEVER_MS}, topics, group, line.transactions, kill=True)
    topics.produce(line.transactions, busy(NEW, "new", later_ms + GAP))
    worker = WorkerProcess(settings)
    try:
        wait_until_committed(topics, group, line.transactions, [worker])
        replayed = sum(live - at for _, at, live, _ in worker.values("recovering"))
        assert replayed == GAP, f"{replayed} of {GAP} events were replayed"
        commits = [at - worker.started_at for at, event, _ in worker.events if event == "committed"]
        assert worker.stop() == 0
    finally:
        worker.close()
    return commits[0], commits[-1]


def run(settings: dict[str, object], topics: Topics, group: str, source: str, *, kill: bool) -> None:
    worker = WorkerProcess(settings)
    try:
        wait_until_committed(topics, group, source, [worker])
        if kill:
            worker.kill()
        else:
            assert worker.stop() == 0
    finally:
        worker.close()


def table(rounds: int = 3) -> list[tuple[str, str, str]]:
    first, last = {FEW: [], MANY: []}, {FEW: [], MANY: []}
    with KafkaServer() as kafka, RedisServer() as redis:
        topics = Topics(kafka.bootstrap)
        for _ in range(rounds):
            for users in (FEW, MANY):
                found = recover(topics, redis, users)
                first[users].append(found[0])
                last[users].append(found[1])
                print("recovery", users, [round(x, 2) for x in found], file=sys.stderr)
    rows = []
    for name, secs in (("first new decision", first), ("caught up", last)):
        ratios = [many / few for few, many in zip(secs[FEW], secs[MANY], strict=True)]
        rows.append(
            (f"recovery to {name}: {MANY:,} / {FEW:,} stored users, gap of {GAP:,}", spread(ratios), f"≤ {BOUND}")
        )
        rows += [(f"  {users:,} users, seconds from spawn", spread(secs[users]), "") for users in (FEW, MANY)]
    return rows


if __name__ == "__main__":
    for row in table():
        print(*row, sep=" | ")
