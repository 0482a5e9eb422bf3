"""The 24 features of the default set from one user's payments of the last 30 days, as a loop by hand computes them.

Standard library only: it runs in the peers' own environments.
"""

import struct
from bisect import bisect_right
from functools import lru_cache
from hashlib import blake2b
from math import sqrt
from operator import mul

MINUTE_MS = 60_000
HOUR_MS, DAY_MS = 60 * MINUTE_MS, 1_440 * MINUTE_MS
HORIZON_MS = 30 * DAY_MS
NAN = float("nan")
ITEM = struct.Struct("<qqqqq")


def minor(payment):
    """Return the amount in cents."""
    return round(payment["amount"] * 100)


def columns(payment):
    """Return what the windows keep of a payment."""
    return [
        payment["event_time"],
        minor(payment),
        payment.get("merchant_id"),
        payment.get("country"),
        payment.get("device_id"),
    ]


def features(times, amounts, merchants, countries, devices):
    """Return 24 numbers of the last payment. The lists are parallel, oldest first, all within the 30 days."""
    at, amount, n = times[-1], amounts[-1], len(times)
    m5, h1, d1, d7 = (bisect_right(times, at - length) for length in (5 * MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS))
    sum_d1, sum_d7, total = sum(amounts[d1:]), sum(amounts[d7:]), sum(amounts)
    return [
        amount,
        n - m5,
        n - h1,
        n - d1,
        n - d7,
        n,
        sum(amounts[h1:]),
        sum_d1,
        sum_d1 / (n - d1),
        sum_d7 / (n - d7),
        total / n,
        sqrt(n * sum(map(mul, amounts, amounts)) - total * total) / n,
        amount * (n - d7) / sum_d7 if sum_d7 else NAN,
        amount * n / total if total else NAN,
        distinct(merchants, h1),
        distinct(merchants, d1),
        distinct(merchants, d7),
        distinct(countries, h1),
        distinct(countries, d1),
        distinct(devices, d1),
        first_seen(merchants),
        first_seen(countries),
        first_seen(devices),
        (at - times[-2]) / 1000 if n > 1 else NAN,
    ]


def distinct(values, first):
    """Return how many different values there are from a place on; a missing one counts for none."""
    found = set(values[first:])
    found.discard(None)
    return len(found)


def first_seen(values):
    """Return 1 where the last value is met for the first time, NaN where it is missing."""
    return NAN if values[-1] is None else float(values[-1] not in values[:-1])


def expired(times):
    """Return how many of the oldest payments have left the horizon of the newest."""
    return bisect_right(times, times[-1] - HORIZON_MS)


def packed(payment):
    """Return what the windows keep of a payment as 40 bytes, its texts as hashes of 63 bits."""
    at, amount, *texts = columns(payment)
    return ITEM.pack(at, amount, *map(number, texts))


def unpacked(items):
    """Return the five lists of payments packed one behind the other."""
    times, amounts, *fields = map(list, zip(*ITEM.iter_unpack(items), strict=True))
    return times, amounts, *([one or None for one in column] if 0 in column else column for column in fields)


@lru_cache(1 << 16)
def number(text):
    """Return a text's hash, the same in every process; 0 where it is missing."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1 or 1 if text else 0
