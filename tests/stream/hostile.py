"""Messages nobody should have sent: valid transactions, broken in every way we could think of, and pure noise."""

import random
from collections.abc import Callable, Iterator

import orjson

from stream.files import FileRecord
from stream.times import rfc3339

NOW_MS = 1_700_000_000_000

# fmt: off
_NUMBERS = [0, -1, 1, 0.1, 1e308, -1e308, 2**53, 2**63, 2**64, -(2**63), 1e-320, 12.345, 99.999999]
_TEXTS = ["", " ", "a", "x" * 200, "\x00", "é", "😀", "12.34", "NaN", "1e5", "-", "null",
          "EUR", "eur", "XXX", "0" * 70]
_TIMES = ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20", "2023-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "now", "NaT",
          "9999-12-31T23:59:59+00:00", "9999-12-31T23:59:59-23:59", "2023-11-14T24:00:00Z", "2023-11-14T22:13:60Z",
          "2023-11-14 22:13:20.123456789+05:30", "2023-11-14T22:13:20.Z", "２０２３-11-14T22:13:20Z"]
_OTHERS = [None, True, False, [], {}, [1], {"a": {"b": []}}]
_RAW = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 400, b"9" * 5_000, b"01", b"1.", b".5", b"0x10",
        b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff\xfe"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b"'a'",
        b"undefined",
        b'"' + b"y" * 3_000 + b'"', b"[" * 300 + b"]" * 300, b"[" * 3_000, b'{"a":' * 400 + b"1" + b"}" * 400]
_NAMES = ["transaction_id", "user_id", "amount", "currency", "event_time", "merchant_id", "country", "device_id",
          "traceparent", "mcc", "other"]
# fmt: on


def valid(rng: random.Random, number: int) -> dict[str, object]:
    """Return a transaction that every rule accepts."""
    return {
        "transaction_id": f"t-{number}",
        "user_id": f"u-{rng.randrange(50)}",
        "amount": rng.randrange(1, 100_000) / 100,
        "currency": rng.choice(["EUR", "USD", "JPY", "KWD"][:2]),
        "event_time": rfc3339(NOW_MS - rng.randrange(10**9)),
        "merchant_id": f"m-{rng.randrange(20)}",
        "country": "DE",
    }


def messages(seed: int, count: int) -> Iterator[FileRecord]:
    """Yield ``count`` records, about a quarter of them valid, reproducibly."""
    rng = random.Random(seed)
    for number in range(count):
        row = valid(rng, number)
        key: bytes | None = str(row["user_id"]).encode()
        value: bytes | None = rng.choice(_ATTACKS)(rng, row)
        if rng.random() < 0.05:
            key = rng.choice([None, b"", b"\xff", b"someone else", key + b" "])
        yield FileRecord(key, value, number, rng.choice([NOW_MS, NOW_MS, NOW_MS, -1, 0, 2**62]))


def _nothing(_rng: random.Random, row: dict[str, object]) -> bytes:
    return orjson.dumps(row)


def _other_value(rng: random.Random, row: dict[str, object]) -> bytes:
    name = rng.choice(_NAMES)
    row[name] = rng.choice(rng.choice([_NUMBERS[:7] + _NUMBERS[9:], _TEXTS, _TIMES, _OTHERS]))
    return orjson.dumps(row)


def _raw_value(rng: random.Random, row: dict[str, object]) -> bytes:
    name = rng.choice(_NAMES)
    row[name] = "\x01RAW\x01"
    return orjson.dumps(row).replace(b'"\\u0001RAW\\u0001"', rng.choice(_RAW))


def _dropped(rng: random.Random, row: dict[str, object]) -> bytes:
    del row[rng.choice(list(row))]
    return orjson.dumps(row)


def _twice(rng: random.Random, row: dict[str, object]) -> bytes:
    name = rng.choice(list(row))
    return orjson.dumps(row)[:-1] + b"," + orjson.dumps({name: rng.choice(_TEXTS)})[1:]


def _flipped(rng: random.Random, row: dict[str, object]) -> bytes:
    value = bytearray(orjson.dumps(row))
    for _ in range(rng.randrange(1, 6)):
        value[rng.randrange(len(value))] = rng.randrange(256)
    return bytes(value)


def _cut(rng: random.Random, row: dict[str, object]) -> bytes:
    value = orjson.dumps(row)
    return value[: rng.randrange(len(value))]


def _noise(rng: random.Random, _row: dict[str, object]) -> bytes:
    return rng.randbytes(rng.randrange(300))


def _whole(rng: random.Random, row: dict[str, object]) -> bytes | None:
    value = orjson.dumps(row)
    return rng.choice(
        [None, b"", b" ", b"null", b"[]", b"1", b'"a"', value + value, b"\xef\xbb\xbf" + value, b"[" + value]
    )


_ATTACKS: list[Callable[[random.Random, dict[str, object]], bytes | None]] = [
    _nothing,
    _nothing,
    _other_value,
    _other_value,
    _raw_value,
    _dropped,
    _twice,
    _flipped,
    _cut,
    _noise,
    _whole,
]
