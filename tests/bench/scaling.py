"""How ours scales: 1, 2, 4 and 8 partitions, one worker and more, as far as this machine's cores go."""

import os
import sys
from collections import defaultdict
from dataclasses import replace

from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from ours import ours
from race import Measured, Ring
from redis_server import RedisServer
from scene import LONG, scene
from spread import spread

PARTITIONS = (1, 2, 4, 8)
WORKERS = [count for count in PARTITIONS if count <= (os.cpu_count() or 1)]
ROUNDS = 3


def table(rounds: int = ROUNDS) -> list[Row]:
    """Rows of events a second and CPU an event of each shape, relative to one worker on as many partitions."""
    shapes = [(partitions, workers) for partitions in PARTITIONS for workers in WORKERS if workers <= partitions]
    found: dict[tuple[int, int], list[Measured]] = defaultdict(list)
    with KafkaServer() as kafka, RedisServer() as redis:
        servers = [kafka.pid, redis.pid]
        ring = Ring(scene(), Topics(kafka.bootstrap), redis.url, servers, LONG // 2)
        for number in range(rounds):
            for partitions, workers in shapes if number % 2 == 0 else reversed(shapes):
                one = ring.run(replace(ours(), copies=workers), partitions=partitions)
                found[partitions, workers].append(one)
                print(partitions, "partitions", workers, "workers", one, file=sys.stderr, flush=True)
    rows = []
    for (partitions, workers), runs in found.items():
        rates = [one.rate for one in runs]
        name = f"{partitions} partitions, {workers} worker{'s' * (workers > 1)} on {os.cpu_count()} cores"
        rows.append(Row(f"scaling, {name}", f"{spread(rates, 0)} events a second", "", rates, "events a second"))
        cpu = [one.cpu_us for one in runs]
        rows.append(Row("  µs of CPU an event", spread(cpu, 1), "", cpu))
        if workers > 1:
            ratios = [one.rate / alone.rate for one, alone in zip(runs, found[partitions, 1], strict=True)]
            rows.append(Row("  times one worker's events a second", spread(ratios), "", ratios))
    return rows


if __name__ == "__main__":
    for row in table():
        print(*row[:3], sep=" | ")
