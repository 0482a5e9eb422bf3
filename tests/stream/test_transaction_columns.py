"""The compiled reader takes what is usual and makes of it what the parser would; the rest it leaves alone."""

import json
import random
from fractions import Fraction

import hostile
import numpy as np
import orjson
import pytest

from stream.files import FileRecord
from stream.mapping import Limits, Mapping
from stream.money import AmountReader
from stream.times import TimeReader
from stream.transaction import Layout
from stream.transaction_columns import TransactionColumns
from stream.transaction_kernel import TEXTS
from stream.transaction_rows import TransactionRows

NOW_MS = hostile.NOW_MS
VALID = {
    "transaction_id": "t-1",
    "user_id": "u-1",
    "amount": 12.34,
    "currency": "EUR",
    "event_time": NOW_MS,
    "merchant_id": "m-1",
    "country": "DE",
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MAPPINGS = {
    "default": Mapping(),
    "names and defaults": Mapping(
        kept=("merchant_id", "country", "device_id", "mcc"),
        fields={"user_id": ("user_id", "other"), "merchant_id": ("mcc", "merchant_id"), "mcc": ("mcc",)},
        defaults={"currency": "EUR", "country": "ZZ", "device_id": "none"},
        naive_time_zone="UTC",
        segment="currency",
    ),
    "base currency": Mapping(base_currency="EUR", rates={"USD": Fraction(1, 3)}, event_time_unit="s", segment=""),
    "another zone": Mapping(naive_time_zone="Europe/Paris", event_time_unit="us", segment="mcc"),
}


class Readers:
    """Both readers of one mapping."""

    def __init__(self, mapping=None, limits=None):
        mapping, limits = mapping or Mapping(), limits or Limits()
        amounts = AmountReader(mapping.base_currency, mapping.rates)
        times = TimeReader(mapping.event_time_unit, mapping.naive_time_zone)
        self.columns = TransactionColumns(mapping, limits, amounts)
        self.rows = TransactionRows(mapping, limits, Layout(mapping, limits), times, amounts)

    def compare(self, messages):
        """Hold every row the compiled reader took to the parser's; return how many there were."""
        read = self.columns.read(messages)
        rows, places = self.rows.read(messages)
        usual = np.flatnonzero(read.columns.usual)
        at = np.searchsorted(places, usual)
        assert np.array_equal(places[at], usual), [messages[i].value() for i in set(usual) - set(places)][:3]
        for ours, theirs in (
            (read.columns.time_ms, rows.events.time_ms),
            (read.columns.transaction, rows.events.transaction),
            (read.columns.amount_minor, rows.events.amount_minor),
            (read.columns.currency, rows.events.currency),
            (read.columns.fields, rows.events.fields),
            (read.offsets, rows.events.offset),
        ):
            differ = np.argwhere(ours[usual] != theirs[at])
            assert not differ.size, messages[usual[differ[0, 0]]].value()
        for place in range(len(TEXTS)):
            spans = read.columns.texts[usual, place]
            assert [read.text[a:b].decode() for a, b in spans.tolist()] == [rows.texts[place][row] for row in at]
        return usual.size


def record(value, key=b"u-1", offset=0):
    return FileRecord(key, value, offset, NOW_MS)


def is_usual(value, key=b"u-1", mapping=None) -> bool:
    return Readers(mapping).compare([record(value, key)]) == 1


@pytest.mark.parametrize("name", MAPPINGS)
def test_of_hostile_messages_every_row_it_takes_is_the_parser_s(name, fuzzed, chaos_seed):
    readers, taken = Readers(MAPPINGS[name]), 0
    batch = []
    for message in hostile.messages(seed=chaos_seed, count=fuzzed // len(MAPPINGS)):
        batch.append(message)
        if len(batch) == 500:
            taken += readers.compare(batch)
            batch.clear()
    assert taken > fuzzed // len(MAPPINGS) // (10 if name == "default" else 1000)


def test_of_messages_altered_in_one_place_every_row_it_takes_is_the_parser_s(fuzzed, chaos_seed):
    rng, readers = random.Random(f"{chaos_seed}-altered"), Readers()
    alphabet = b'"\\{}[]:,.-+eE0159tfnuUZTz \t\n\x00\x1f\x7f\xc3\xa9\xff'
    rows = [orjson.dumps({**VALID, "event_time": time, "x": other}) for time in
            (NOW_MS, "2023-11-14T22:13:19.123Z", "2023-11-14T22:13:19+01:00")
            for other in (1.5e3, [1, {"a": None}], "\u00e9\n")]  # fmt: skip
    rows += [json.dumps({**VALID, "amount": "12.30", "traceparent": TRACE}, indent=1).encode()]
    taken = 0
    for _ in range(fuzzed // 500):
        batch = []
        for number in range(500):
            value = bytearray(rng.choice(rows))
            at = rng.randrange(len(value))
            value[at : at + rng.randrange(3)] = bytes([rng.choice(alphabet)])
            batch.append(record(bytes(value), offset=number))
        taken += readers.compare(batch)
    assert taken > fuzzed // 10


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amount": 5},
        {"amount": -0.0},
        {"amount": "12.30"},
        {"amount": "0012.3000000"},
        {"amount": 0.07},
        {"amount": 500, "currency": "JPY"},
        {"amount": 1.234, "currency": "KWD"},
        {"event_time": "2023-11-14T22:13:19.123456789Z"},
        {"event_time": "2023-11-14t22:13:19.1z"},
        {"event_time": "2023-11-14 23:13:19+01:00"},
        {"event_time": "2020-02-29T00:00:00-23:59"},
        {"transaction_id": 42, "merchant_id": 9_007_199_254_740_993, "country": None},
        {"merchant_id": "", "country": "Österreich 😀", "device_id": "d" * 240},
        {"traceparent": TRACE},
        {"traceparent": "not one"},
        {"other": {"a": [1, -2.5e-3, True, None, "\\u00e9\\n"], "b": {}}, "another": []},
    ],
)
def test_it_takes_what_is_usual(changes):
    row = {**VALID, **changes}
    assert is_usual(orjson.dumps(row))
    assert is_usual(json.dumps(row).encode() + b"\r\n") or not json.dumps(row).isascii() or "\\u" in json.dumps(row)
    assert is_usual(json.dumps(dict(reversed(row.items())), indent=2, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 12.345},
        {"amount": 1e300},
        {"amount": 1234567890123456},
        {"event_time": float(NOW_MS)},
        {"event_time": "2023-02-30T00:00:00Z"},
        {"event_time": "2023-11-14T22:13:19"},
        {"event_time": NOW_MS + 3_600_001},
        {"currency": "eur"},
        {"merchant_id": 'a "quoted" name'},
        {"merchant_id": "x" * 241},
        {"user_id": "somebody else"},
        {"transaction_id": ""},
        {"country": True},
        {"device_id": 1.5},
    ],
)
def test_it_leaves_the_rest_alone(changes):
    assert not is_usual(orjson.dumps({**VALID, **changes}))


def test_one_record_that_is_no_utf_8_does_not_keep_it_from_the_others():
    good = orjson.dumps({**VALID, "country": "Österreich"})
    read = Readers().columns.read([record(good), record(good[:-3] + b'\xff"}'), record(good)])
    assert read.columns.usual.tolist() == [True, False, True]


def test_fields_in_another_order_than_before_are_found():
    readers, names = Readers(), list(VALID)
    batch = []
    for number in range(200):
        random.Random(number).shuffle(names)
        batch.append(record(orjson.dumps({name: VALID[name] for name in names}), offset=number))
    assert readers.compare(batch) == 200
