"""Seeded traffic with everything in it that a stream has to live with, as (key, value) pairs."""

import random
import time
from collections.abc import Iterator

import orjson

START_MS = 1_750_000_000_000

HOSTILE = [
    (b"u-1", b""),
    (b"u-1", b"not json"),
    (b"u-1", b'{"transaction_id": "x"'),
    (b"u-1", b"\xff\xfe\xfd"),
    (b"u-1", b"[]"),
    (b"u-1", b"{}"),
    (b"u-1", None),
    (None, b'{"transaction_id":"k","user_id":"u-1","amount":1,"currency":"EUR","event_time":1750000000000}'),
    (b"u-2", b'{"transaction_id":"k","user_id":"u-1","amount":1,"currency":"EUR","event_time":1750000000000}'),
    (b"u-1", b'{"transaction_id":"k","user_id":"u-1","amount":-1,"currency":"EUR","event_time":1750000000000}'),
    (b"u-1", b'{"transaction_id":"k","user_id":"u-1","amount":1,"currency":"XXZ","event_time":1750000000000}'),
    (b"u-1", b'{"transaction_id":"k","user_id":"u-1","amount":1,"currency":"EUR","event_time":"yesterday"}'),
    (b"u-1", b'{"transaction_id":"k","user_id":"u-1","amount":1,"currency":"EUR","event_time":4102444800000}'),
]


def traffic(
    count: int,
    seed: int = 1,
    users: int = 2_000,
    start_ms: int = START_MS,
    step_ms: int = 2_000,
    late_ms: int | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """Yield `count` records: payments of Zipf-like users, 2 % out of order, 1 % repeated, 0.5 % hostile.

    The next is less than `step_ms` later. late_ms: none is later than this, instead of 40 days and for repeated ones
    any time.
    """
    latest_ms = late_ms or 40 * 86_400_000
    rng = random.Random(seed)
    now_ms = start_ms
    sent: list[dict] = []
    for number in range(count):
        now_ms += rng.randrange(0, step_ms)
        luck = rng.random()
        if luck < 0.005:
            yield rng.choice(HOSTILE)
            continue
        if luck < 0.015 and sent:
            payment = dict(rng.choice(sent))
            if rng.random() < 0.3:
                payment["amount"] += 1
            if late_ms is None or now_ms - payment["event_time"] < late_ms:
                yield payment["user_id"].encode(), orjson.dumps(payment)
                continue
        user = f"u-{int(users ** rng.random())}"
        payment = {
            "transaction_id": f"t-{seed}-{number}",
            "user_id": user,
            "amount": round(rng.lognormvariate(3, 1), 2),
            "currency": "EUR",
            "event_time": now_ms - (rng.randrange(0, latest_ms) if luck > 0.98 else 0),
            "merchant_id": f"m-{int(300 ** rng.random())}",
            "country": rng.choice(["DE", "DE", "DE", "FR", "US"]),
            "device_id": f"d-{user}-{rng.randrange(3)}",
        }
        if rng.random() < 0.1:
            payment.pop(rng.choice(["merchant_id", "country", "device_id"]))
        if len(sent) < 5_000:
            sent.append(payment)
        else:
            sent[rng.randrange(5_000)] = payment
        yield user.encode(), orjson.dumps(payment)


def payments(count: int, seed: int = 1, users: int = 2_000, step_ms: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Yield `count` good payments in order, one every step_ms of event time, the last one now."""
    rng = random.Random(seed)
    start_ms = time.time_ns() // 1_000_000 - count * step_ms
    for number in range(count):
        user = f"u-{int(users ** rng.random())}"
        payment = {
            "transaction_id": f"t-{seed}-{number}",
            "user_id": user,
            "amount": round(rng.lognormvariate(3, 1), 2),
            "currency": "EUR",
            "event_time": start_ms + number * step_ms,
            "merchant_id": f"m-{rng.randrange(300)}",
            "country": "DE",
            "device_id": f"d-{user}",
        }
        yield user.encode(), orjson.dumps(payment)
