"""The decoder: every record becomes a transaction or a dead letter, and each dead letter says why."""

import itertools
import random
from fractions import Fraction

import hostile
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import currency_code, hash_field, hash_transaction
from stream.codec import Decoded, Decoder
from stream.deadletter import DEAD_LETTER_HEADERS, ERRORS, DeadLetter
from stream.files import FileRecord
from stream.mapping import Limits, Mapping, MappingError

NOW_MS = hostile.NOW_MS
VALID = {
    "transaction_id": "t-1",
    "user_id": "u-1",
    "amount": 12.34,
    "currency": "EUR",
    "event_time": "2023-11-14T22:13:19.123Z",
    "merchant_id": "m-1",
}


def record(value: object, key: object = "u-1", offset: int = 7, timestamp_ms: int = NOW_MS) -> FileRecord:
    raw = value if isinstance(value, bytes | None) else orjson.dumps(value)
    return FileRecord(key.encode() if isinstance(key, str) else key, raw, offset, timestamp_ms, "transactions", 3)


def decode_one(changes: dict | bytes | None = None, *, key="u-1", mapping=None, limits=None, **more):
    value = changes if isinstance(changes, bytes) else {**VALID, **(changes or {}), **more}
    decoded, dead = Decoder(mapping or Mapping(), limits or Limits()).decode(3, [record(value, key)])
    return decoded, dead


def accepted(*args, **kwargs) -> Decoded:
    decoded, dead = decode_one(*args, **kwargs)
    assert dead == [], dead[0].headers()
    return decoded


def refused(*args, **kwargs) -> DeadLetter:
    decoded, dead = decode_one(*args, **kwargs)
    assert decoded.users == []
    return dead[0]


def test_a_transaction_becomes_one_row_of_every_column():
    decoded = accepted({"country": "DE", "device_id": ""})
    assert (decoded.partitions.tolist(), decoded.users, decoded.user_ids) == ([3], [b"u-1"], ["u-1"])
    assert (decoded.transaction_ids, decoded.time_ms.tolist()) == (["t-1"], [1_699_999_999_123])
    assert (decoded.timestamps_ms.tolist(), decoded.traceparents) == ([NOW_MS], [""])
    events = decoded.events
    assert events.time_ms.tolist() == [1_699_999_999_123]
    assert events.offset.tolist() == [7]
    assert events.amount_minor.tolist() == [1_234]
    assert events.currency.tolist() == [currency_code("EUR")]
    assert events.transaction.tolist() == [hash_transaction("t-1")]
    assert events.fields.tolist() == [[hash_field(0, "m-1"), hash_field(1, "DE"), 0]]
    dtypes = (events.time_ms, events.offset, events.transaction, events.amount_minor, events.currency, events.fields)
    assert [column.dtype.name for column in dtypes] == ["int64", "int64", "uint64", "int64", "uint16", "uint64"]


def test_an_empty_batch_has_no_rows():
    decoded, dead = Decoder(Mapping(), Limits()).decode(0, [])
    assert decoded.users == []
    assert dead == []
    assert decoded.events.fields.shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        (b"", "empty_value", ""),
        (b"{", "invalid_json", ""),
        (b"not json", "invalid_json", ""),
        (b"[]", "wrong_type", ""),
        (b"null", "wrong_type", ""),
        (b"\xff\xfe", "invalid_utf8", ""),
        (orjson.dumps({**VALID, "other": "?"}).replace(b"?", b"\xc0\xaf"), "invalid_utf8", ""),
        (orjson.dumps(VALID).replace(b"12.34", b"NaN"), "invalid_json", ""),
        (orjson.dumps(VALID).replace(b"12.34", b"Infinity"), "invalid_json", ""),
        (orjson.dumps(VALID).replace(b"12.34", b"1e999"), "out_of_range", "amount"),
        (orjson.dumps(VALID).replace(b"t-1", b"\\ud800"), "invalid_json", ""),
        (orjson.dumps(VALID).replace(b'"u-1"', b"9" * 400), "out_of_range", "user_id"),
        (orjson.dumps(VALID)[:-1] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}", "too_deep", ""),
        (b"[" * 100_000, "too_deep", ""),
        (b" " * (1 << 20) + b"{}", "too_large", ""),
        ({"transaction_id": ""}, "missing_field", "transaction_id"),
        ({"transaction_id": None}, "missing_field", "transaction_id"),
        ({"transaction_id": 1.5}, "wrong_type", "transaction_id"),
        ({"transaction_id": True}, "wrong_type", "transaction_id"),
        ({"transaction_id": "x" * 129}, "too_long", "transaction_id"),
        ({"merchant_id": "x" * 257}, "too_long", "merchant_id"),
        ({"merchant_id": ["a"]}, "wrong_type", "merchant_id"),
        ({"user_id": {"id": 1}}, "wrong_type", "user_id"),
        ({"amount": "12,34"}, "wrong_type", "amount"),
        ({"amount": "NaN"}, "wrong_type", "amount"),
        ({"amount": 12.345}, "out_of_range", "amount"),
        ({"amount": -0.01}, "out_of_range", "amount"),
        ({"amount": 1e300}, "out_of_range", "amount"),
        ({"amount": None}, "missing_field", "amount"),
        ({"amount": []}, "wrong_type", "amount"),
        ({"currency": "eur"}, "unknown_currency", "currency"),
        ({"currency": "XXX"}, "unknown_currency", "currency"),
        ({"currency": ""}, "missing_field", "currency"),
        ({"currency": 978}, "wrong_type", "currency"),
        ({"event_time": "yesterday"}, "wrong_type", "event_time"),
        ({"event_time": "2023-11-14T22:13:19"}, "wrong_type", "event_time"),
        ({"event_time": "2023-02-29T00:00:00Z"}, "wrong_type", "event_time"),
        ({"event_time": 1_699_999_999}, "out_of_range", "event_time"),
        ({"event_time": 10**17}, "out_of_range", "event_time"),
        ({"event_time": NOW_MS + 3_600_001}, "too_far_ahead", "event_time"),
        ({"event_time": None}, "missing_field", "event_time"),
        ({"user_id": "u-2"}, "key_mismatch", "user_id"),
    ],
)
def test_what_breaks_a_rule_is_a_dead_letter_that_names_the_rule_and_the_field(changes, error, field):
    letter = refused(changes)
    assert (letter.error, letter.field) == (error, field)
    assert letter.error in ERRORS


def test_a_tombstone_is_a_dead_letter():
    _, dead = Decoder(Mapping(), Limits()).decode(3, [record(None)])
    assert dead[0].error == "empty_value"


@pytest.mark.parametrize("name", ["transaction_id", "user_id", "amount", "currency", "event_time"])
def test_a_missing_required_field_is_a_dead_letter(name):
    value = {ours: text for ours, text in VALID.items() if ours != name}
    letter = refused(orjson.dumps(value))
    assert (letter.error, letter.field, letter.detail) == ("missing_field", name, "is missing")


@pytest.mark.parametrize("key", [None, b"", b"u-1 ", b"\x00\x00\x00\x01"])
def test_a_key_that_is_not_the_user_id_is_a_dead_letter(key):
    assert refused(key=key).error == "key_mismatch"


def test_optional_fields_may_be_null_empty_or_absent_and_none_of_that_differs():
    rows = [accepted(changes).events.fields.tolist() for changes in ({"country": None}, {"country": ""}, {})]
    assert rows[0] == rows[1] == rows[2]


def test_an_integer_id_is_the_same_id_as_its_decimal_text():
    as_number = accepted({"user_id": 42, "transaction_id": 7, "merchant_id": 5}, key="42")
    as_text = accepted({"user_id": "42", "transaction_id": "7", "merchant_id": "5"}, key="42")
    assert as_number.users == as_text.users == [b"42"]
    assert as_number.transaction_ids == ["7"]
    assert as_number.events.transaction.tolist() == as_text.events.transaction.tolist()
    assert as_number.events.fields.tolist() == as_text.events.fields.tolist()


def test_of_two_equal_names_in_one_object_the_last_counts():
    assert accepted(orjson.dumps(VALID)[:-1] + b',"amount":5}').events.amount_minor.tolist() == [500]


def test_an_id_may_hold_a_null_character_and_any_script():
    name = "a\x00é😀"
    assert accepted({"user_id": name}, key=name).users == [name.encode()]


def test_unknown_fields_are_ignored_whatever_they_hold():
    accepted({"terminal_id": {"not": "kept"}, "x": [1, None, {"y": 1e300}]})


def test_a_mapping_reads_the_senders_own_names_and_dead_letters_speak_of_both():
    mapping = Mapping(kept=("terminal_id",), fields={"user_id": ("CUSTOMER", "GUEST"), "terminal_id": ("TERM é",)})
    value = {ours: text for ours, text in VALID.items() if ours != "user_id"}
    decoder = Decoder(mapping, Limits())
    decoded, dead = decoder.decode(
        0,
        [
            record({**value, "CUSTOMER": "u-1", "GUEST": "g-1", "TERM é": 5}, offset=0),
            record({**value, "CUSTOMER": "", "GUEST": "g-1"}, "g-1", offset=1),
            record({**value, "CUSTOMER": None, "GUEST": 9}, "9", offset=2),
            record(value, offset=3),
            record({**value, "CUSTOMER": "u-1", "TERM é": []}, offset=4),
        ],
    )
    assert decoded.user_ids == ["u-1", "g-1", "9"]
    assert decoded.events.fields.tolist() == [[hash_field(0, "5")], [0], [0]]
    assert [(letter.error, letter.field) for letter in dead] == [
        ("missing_field", "CUSTOMER / GUEST"),
        ("wrong_type", "TERM é"),
    ]
    assert dead[1].detail == "(our terminal_id) must be a text or a 64-bit whole number"


def test_a_field_of_the_users_own_can_be_kept():
    mapping = Mapping(kept=("ip",), fields={"ip": ("client_ip",)})
    assert accepted({"client_ip": "10.0.0.1"}, mapping=mapping).events.fields.tolist() == [[hash_field(0, "10.0.0.1")]]


@pytest.mark.parametrize(
    ("mapping", "more", "segment"),
    [
        (Mapping(), {"country": "DE"}, "DE"),
        (Mapping(), {"country": ""}, "missing"),
        (Mapping(), {"country": None}, "missing"),
        (Mapping(kept=()), {"country": "DE"}, "DE"),
        (Mapping(segment="mcc"), {"mcc": 5411}, "5411"),
        (Mapping(segment="currency"), {}, "EUR"),
        (Mapping(fields={"channel": ("entry", "how")}, segment="channel"), {"how": "pos"}, "pos"),
        (Mapping(defaults={"channel": "web"}, segment="channel"), {}, "web"),
        (Mapping(fields={"region": ("area",)}, segment="region"), {"area": "north"}, "north"),
        (Mapping(segment=""), {"country": "DE"}, ""),
    ],
)
def test_the_segment_is_the_text_of_the_field_named(mapping, more, segment):
    value = orjson.dumps({**VALID, **more})
    assert accepted(value, mapping=mapping).segments == [segment]


@pytest.mark.parametrize("segment", ["device_id", "user_id", "transaction_id", "amount", "traceparent", "colour"])
def test_a_segment_that_cannot_be_one_is_refused_by_name(segment):
    with pytest.raises(MappingError, match=rf'^telemetry.segment cannot be "{segment}": name one of country, channel'):
        Mapping(segment=segment)


def test_the_segment_does_not_change_what_state_is_kept_under():
    assert len({Mapping(segment=segment).decoding for segment in ("", "country", "mcc", "terminal_id")}) == 1


def test_defaults_fill_in_what_is_missing():
    mapping = Mapping(defaults={"currency": "JPY", "country": "JP"})
    value = {ours: text for ours, text in VALID.items() if ours != "currency"}
    decoded = accepted(orjson.dumps({**value, "amount": 500}), mapping=mapping)
    assert decoded.events.currency.tolist() == [currency_code("JPY")]
    assert decoded.events.amount_minor.tolist() == [500]
    assert decoded.events.fields[0, 1] == hash_field(1, "JP")


def test_amounts_are_converted_to_the_base_currency_at_fixed_rates():
    mapping = Mapping(base_currency="EUR", rates={"USD": Fraction("0.925"), "JPY": Fraction("0.0061")})
    decoded = accepted({"currency": "USD", "amount": 1.0}, mapping=mapping)
    assert (decoded.events.amount_minor.tolist(), decoded.events.currency.tolist()) == ([92], [currency_code("EUR")])
    assert accepted({"currency": "JPY", "amount": 1000}, mapping=mapping).events.amount_minor.tolist() == [610]
    assert accepted(mapping=mapping).events.amount_minor.tolist() == [1_234]
    assert refused({"currency": "GBP"}, mapping=mapping).detail == "has no rate to EUR in the settings"


def test_limits_are_settings():
    limits = Limits(amount_min=-100, amount_max=100, max_id_length=3, max_ahead_ms=0, max_value_bytes=400)
    assert accepted({"amount": -1}, limits=limits).events.amount_minor.tolist() == [-100]
    assert refused({"amount": 1.01}, limits=limits).error == "out_of_range"
    assert refused({"transaction_id": "t-12"}, limits=limits).error == "too_long"
    assert refused({"event_time": NOW_MS + 1, "amount": 1}, limits=limits).error == "too_far_ahead"
    assert refused({"x": "y" * 400}, limits=limits).error == "too_large"
    accepted({"event_time": NOW_MS, "amount": 1}, limits=limits)


def test_a_record_without_a_timestamp_cannot_prove_that_it_is_not_from_the_future():
    _, dead = Decoder(Mapping(), Limits()).decode(0, [record(VALID, timestamp_ms=-1)])
    assert dead[0].error == "too_far_ahead"


def test_a_trace_parent_comes_through_and_a_bad_one_costs_nothing():
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert accepted({"traceparent": good}).traceparents == [good]
    for bad in ("", "00-xyz", good.replace("4", "0").upper(), f"00-{'0' * 32}-00f067aa0ba902b7-01"):
        assert accepted({"traceparent": bad}).traceparents == [""]


def test_headers_name_the_rule_and_the_place_but_no_value_of_the_record():
    letter = refused({"amount": 66.6666, "user_id": "u-1"})
    headers = dict(letter.headers())
    assert list(headers) == list(DEAD_LETTER_HEADERS)
    assert headers["error"] == b"out_of_range"
    assert headers["field"] == b"amount"
    assert headers["message"] == b"amount must be a decimal number that EUR can hold, with at most 2 decimals"
    assert headers["source.topic"] == b"transactions"
    assert headers["source.partition"] == b"3"
    assert headers["source.offset"] == b"7"
    assert headers["source.timestamp"] == str(NOW_MS).encode()
    assert not any(b"66" in value or b"u-1" in value for value in headers.values())


def test_bad_records_among_good_ones_leave_the_good_ones_untouched_and_both_in_order():
    values = [VALID, b"{", {**VALID, "amount": -1}, {**VALID, "transaction_id": "t-2"}, None]
    decoded, dead = Decoder(Mapping(), Limits()).decode(0, [record(v, offset=i) for i, v in enumerate(values)])
    assert decoded.transaction_ids == ["t-1", "t-2"]
    assert decoded.events.offset.tolist() == [0, 3]
    assert [(letter.message.offset(), letter.error) for letter in dead] == [
        (1, "invalid_json"),
        (2, "out_of_range"),
        (4, "empty_value"),
    ]


MAPPINGS = [
    Mapping(),
    Mapping(
        fields={"user_id": ("user_id", "other"), "merchant_id": ("mcc", "merchant_id")},
        defaults={"currency": "EUR"},
        naive_time_zone="UTC",
        base_currency="EUR",
        rates={"USD": Fraction(1, 3)},
    ),
]


def rows_of(decoded: Decoded) -> dict[int, tuple]:
    events = decoded.events
    columns = (events.time_ms, events.transaction, events.amount_minor, events.currency, events.fields)
    rows = zip(*(column.tolist() for column in columns), decoded.users, decoded.transaction_ids, strict=True)
    return dict(zip(events.offset.tolist(), rows, strict=True))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_hostile_messages_each_become_one_row_or_one_dead_letter_the_same_in_any_batch(mapping):
    everything = list(hostile.messages(seed=11, count=20_000))
    decoder, alone = Decoder(mapping, Limits()), Decoder(mapping, Limits())
    seen: set[str] = set()
    sizes = itertools.cycle([500, 1, 3, 30])  # a large batch is seldom all of one type, a small one is
    while everything:
        size = next(sizes)
        batch, everything = everything[:size], everything[size:]
        decoded, dead = decoder.decode(0, batch)
        rows = rows_of(decoded)
        letters = {letter.message.offset(): letter for letter in dead}
        assert rows.keys() | letters.keys() == {message.offset() for message in batch}
        assert len(rows) + len(letters) == len(batch)
        for letter in dead:
            assert letter.error in ERRORS
            assert all(isinstance(value, bytes) for _, value in letter.headers())
        assert not any(letter.error == "key_mismatch" and _keyed(letter, mapping) for letter in dead)
        seen |= {letter.error for letter in dead}
        for message in batch[:40]:
            one, refusal = alone.decode(0, [message])
            assert rows_of(one).get(message.offset()) == rows.get(message.offset())
            assert [letter.error for letter in refusal] == [
                letters[offset].error for offset in letters if offset == message.offset()
            ]
    assert seen == set(ERRORS) - {"too_large"}


def test_shares_decoded_at_once_are_what_each_is_alone_and_join_to_one():
    rng = random.Random(12)
    decoder, alone = Decoder(Mapping(), Limits()), Decoder(Mapping(), Limits())
    everything, parts = iter(hostile.messages(seed=12, count=3_000)), []
    for _ in range(60):
        shares = [(number, list(itertools.islice(everything, rng.choice([1, 2, 30])))) for number in range(4)]
        for (number, records), (decoded, dead) in zip(shares, decoder.decode_each(shares), strict=True):
            one, letters = alone.decode(number, records)
            assert set(decoded.partitions.tolist()) <= {number}
            assert everything_of(decoded) == everything_of(one)
            assert [letter.headers() for letter in dead] == [letter.headers() for letter in letters]
            parts.append(decoded)
    whole = Decoded.joined(parts)
    assert everything_of(whole) == [row for part in parts for row in everything_of(part)]
    assert everything_of(Decoded.joined(parts[:1])) == everything_of(parts[0])


def everything_of(decoded: Decoded) -> list[tuple]:
    events = decoded.events
    numbers = [events.time_ms, events.offset, events.transaction, events.amount_minor, events.currency]
    numbers += [decoded.partitions, decoded.timestamps_ms, decoded.plain]
    texts = [decoded.transaction_ids, decoded.user_ids, decoded.segments, decoded.traceparents]
    columns = [*(column.tolist() for column in numbers), events.fields.tolist(), *texts, decoded.users]
    return list(zip(*columns, decoded.messages, strict=True))


def _keyed(letter: DeadLetter, mapping: Mapping) -> bool:
    row = orjson.loads(letter.message.value())
    present = [row[name] for name in mapping.names("user_id") if row.get(name) not in (None, "")]
    return letter.message.key() == str(present[0]).encode()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=8) | st.none(), st.binary(max_size=60) | st.none()), max_size=5))
def test_no_bytes_at_all_raise(pairs):
    records = [FileRecord(key, value, offset, NOW_MS) for offset, (key, value) in enumerate(pairs)]
    decoded, dead = Decoder(Mapping(), Limits()).decode(0, records)
    assert len(decoded.users) + len(dead) == len(pairs)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*VALID, "country", "traceparent", "x"]), JSON, max_size=4))
def test_no_json_value_in_any_field_raises(changes):
    import json

    value = json.dumps({**VALID, **changes}).encode(errors="surrogatepass")
    decoded, dead = Decoder(Mapping(), Limits()).decode(0, [record(value)])
    assert len(decoded.users) + len(dead) == 1
    assert np.isin(decoded.events.currency, [0]).sum() == 0
