"""Ours beside the peers, in one table: `make bench PART=peers`, or

    PYTHONPATH=.:tests:tests/bench:tests/bench/peers .venv/bin/python tests/bench/peers/peers.py [NAME ...]

A NAME chooses the contenders whose label contains it; "null" and "ours" run in any case.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence

import contenders
from contender import Contender
from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from race import Measured, Ring, Wrong
from redis_server import RedisServer
from scene import LONG, QUICK, scene
from spread import claim, spread

ROUNDS = 3
QUICK_ROUNDS = 2
# What ours must reach: of the null pipeline, and times each peer's events a second.
OF_NULL = "≥ 0.6"
TIMES = {
    "loop by hand, batched": "≥ 10",
    "Quix Streams, tuned": "≥ 15",
    "Kafka Streams": "≥ 4",
    "Kafka Streams, batched by hand": "≥ 1.8",
    "PyFlink, SQL OVER": "≥ 4",
}


def race(who: Sequence[Contender], rounds: int, most: int) -> tuple[dict[str, list[Measured]], dict[str, str]]:
    """Return what was measured of each, round by round, on at most so many payments, and why some failed."""
    found: dict[str, list[Measured]] = defaultdict(list)
    failed: dict[str, str] = {}
    with KafkaServer() as kafka, RedisServer() as redis:
        ring = Ring(scene(), Topics(kafka.bootstrap), redis.url, [kafka.pid, redis.pid], most)
        for null in (one for one in who if one.name == "null"):
            ring.run(null)  # not counted: a broker that has just started makes whoever comes first look slow
        for number in range(rounds):
            for contender in who if number % 2 == 0 else reversed(who):  # who goes first alternates
                if contender.label in failed or (number and contender.once):
                    continue
                try:
                    one = ring.run(contender)
                # Wrong, an answer that cannot be read, a build or a broker that failed: hours of others stay measured.
                except Exception as wrong:  # noqa: BLE001
                    failed[contender.label] = why = str(wrong) if isinstance(wrong, Wrong) else repr(wrong)
                    print(f"{contender.label}: FAILED: {why}", file=sys.stderr, flush=True)
                    continue
                found[contender.label].append(one)
                print(f"{contender.label}: {one}", file=sys.stderr, flush=True)
    return found, failed


def table(names: Sequence[str] = (), rounds: int = ROUNDS) -> list[Row]:
    """Rows of everybody, or of those whose label contains one of the names, beside ours and null."""
    who = contenders.everybody()
    if names:
        always = ("ours, exactly once", "null, exactly once", "null, at least once")
        who = [one for one in who if one.label in always or any(name in one.label for name in names)]
    return _table(who, rounds, LONG)


def quick_table() -> list[Row]:
    """Rows of ours, null and the batched loop by hand."""
    return _table(contenders.quick(), QUICK_ROUNDS, QUICK)


def _table(who: Sequence[Contender], rounds: int, most: int) -> list[Row]:
    found, failed = race(who, rounds, most)
    rows: list[Row] = []
    for contender in who:
        rows += _rows(contender, found, failed)
    return rows


def _rows(contender: Contender, found: dict[str, list[Measured]], failed: dict[str, str]) -> list[Row]:
    label = contender.label
    if label in failed:
        return [Row(label, f"failed: {failed[label].splitlines()[0]}", "")]
    mine = found[label]
    rates, cpu, servers = ([getattr(one, name) for one in mine] for name in ("rate", "cpu_us", "servers_us"))
    rows = [
        Row(label, f"{spread(rates, 0)} events a second", "", rates, "events a second"),
        Row("  µs of CPU an event", spread(cpu, 1), "", cpu),
        Row("  the broker's and Redis'", spread(servers, 1), "", servers),
        Row("  bytes written an event", spread([one.decision_bytes + one.row_bytes for one in mine], 0), ""),
    ]
    if contender.ours:
        stored, secs = [one.stored for one in mine], mine[0].checkpoint_ms / 1000
        rows.append(Row(f"  users stored meanwhile, checkpoints every {secs:g} s", spread(stored, 0), "", stored))
    null = found.get(f"null, {contender.delivery.replace('_', ' ')}", [])
    if contender.name != "null" and null:
        bound = OF_NULL if label == "ours, exactly once" else ""
        rows += _ratio("  of the null pipeline", lambda one, other: one.rate / other.rate, mine, null, bound, 3)
        rows += _ratio("  of null, in CPU", lambda one, other: other.cpu_us / one.cpu_us, mine, null, "", 3)
    ours = found.get("ours, exactly once", [])
    if contender.is_peer and ours:
        bound = TIMES.get(contender.name, "")
        rows += _ratio("  ours is faster, times", lambda one, other: other.rate / one.rate, mine, ours, bound, 1)
        rows += _ratio("  ours in CPU, times", lambda one, other: one.cpu_us / other.cpu_us, mine, ours, "", 1)
    return rows


def _ratio(
    name: str,
    ratio: Callable[[Measured, Measured], float],
    mine: Sequence[Measured],
    others: Sequence[Measured],
    bound: str,
    digits: int,
) -> list[Row]:
    """Return the ratios of runs of the same round; a contender that ran fewer rounds has fewer."""
    values = [ratio(one, other) for one, other in zip(mine, others, strict=False)]
    return [Row(name, claim(values, bound, digits), bound, values)] if values else []


if __name__ == "__main__":
    for row in table(sys.argv[1:]):
        print(*row[:3], sep=" | ")
