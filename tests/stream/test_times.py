"""Event times: exact to the millisecond, floored, and the same whether read one by one or as a column."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.times import BAD_TIME, TimeReader, rfc3339

NOVEMBER_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("text", "after_ms"),
    [
        ("2023-11-14T22:13:20Z", 0),
        ("2023-11-14T22:13:20.1Z", 100),
        ("2023-11-14T22:13:20.12Z", 120),
        ("2023-11-14T22:13:20.123Z", 123),
        ("2023-11-14T22:13:20.123999Z", 123),
        ("2023-11-14T22:13:20.999999999Z", 999),
        ("2023-11-14T22:13:20.99999999999999999999Z", 999),
        ("2023-11-14t22:13:20.5z", 500),
        ("2023-11-14 22:13:20+00:00", 0),
        ("2023-11-14T22:13:20.25-00:00", 250),
        ("2023-11-15T03:43:20.001+05:30", 1),
        ("2023-11-14T10:13:20-12:00", 0),
    ],
)
def test_rfc_3339_is_read_to_the_millisecond_and_floored(text, after_ms):
    assert TimeReader().one(text) == NOVEMBER_MS + after_ms
    assert TimeReader().column([text] * 20).tolist() == [NOVEMBER_MS + after_ms] * 20


def test_times_before_1970_are_floored_too():
    assert TimeReader().one("1969-12-31T23:59:59.9999Z") == -1
    assert TimeReader().column(["1969-12-31T23:59:59.9999Z"] * 20).tolist() == [-1] * 20


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "NaT", "today", "2023-11-14", "20231114T221320Z", "2023-11-14T22:13Z", "2023-11-14T22:13:20.Z",
        "2023-02-29T00:00:00Z", "2023-13-01T00:00:00Z", "2023-00-01T00:00:00Z", "2023-11-31T00:00:00Z",
        "2023-11-14T24:00:00Z", "2023-11-14T22:60:00Z", "2023-11-14T22:13:60Z", "0000-01-01T00:00:00Z",
        "2023-11-14T22:13:20+0530", "2023-11-14T22:13:20+24:00", "2023-11-14T22:13:20.5", "2023-11-14T22:13:2Z",
        "2023-11-14T22:13:20Z ", "２023-11-14T22:13:20Z", "2023-11-14T22:13:20.１Z", "2023-W46-2T22:13:20Z",
    ],
)  # fmt: skip
def test_what_is_no_rfc_3339_time_with_an_offset_is_no_time(text):
    assert TimeReader().one(text) == BAD_TIME
    assert TimeReader().column([text] * 20).tolist() == [BAD_TIME] * 20


def test_a_zone_for_times_without_one_is_a_setting():
    assert TimeReader(zone="UTC").one("2023-11-14T22:13:20.123") == NOVEMBER_MS + 123
    assert TimeReader(zone="UTC").column(["2023-11-14T22:13:20"] * 20).tolist() == [NOVEMBER_MS] * 20
    paris = TimeReader(zone="Europe/Paris")
    assert paris.one("2023-11-14T23:13:20") == NOVEMBER_MS
    assert paris.column(["2023-11-14T23:13:20"] * 20).tolist() == [NOVEMBER_MS] * 20
    assert paris.one("2023-11-14T22:13:20Z") == NOVEMBER_MS
    first, second = paris.one("2023-10-29T02:30:00"), paris.one("2023-10-29T03:30:00")
    assert second - first == 2 * 3_600_000, "of an hour that occurs twice the first counts"


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("ms", NOVEMBER_MS, NOVEMBER_MS),
        ("ms", NOVEMBER_MS + 0.9, NOVEMBER_MS),
        ("s", 1_700_000_000, NOVEMBER_MS),
        ("s", 1_700_000_000.123, NOVEMBER_MS + 123),
        ("s", 1_700_000_000.0009, NOVEMBER_MS),
        ("us", 1_700_000_000_123_999, NOVEMBER_MS + 123),
        ("ms", -1, -1),
        ("us", -1, -1),
        ("ms", 10**30, BAD_TIME),
        ("s", 1e300, BAD_TIME),
        ("ms", -(10**19), BAD_TIME),
    ],
)
def test_numbers_are_read_in_the_unit_of_the_settings(unit, value, expected):
    assert TimeReader(unit).one(value) == expected
    assert TimeReader(unit).column([value] * 20).tolist() == [expected] * 20


MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59)


@settings(max_examples=300, deadline=None)
@given(MOMENTS, OFFSETS, st.text("0123456789", max_size=12))
@example(datetime(2000, 2, 29), 0, "9995")
def test_every_moment_in_every_spelling_is_exact(moment, offset, fraction):
    moment = moment.replace(microsecond=0)
    expected = (moment - datetime(1970, 1, 1)) // timedelta(milliseconds=1) + int((fraction + "000")[:3])
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    fraction = f".{fraction}" if fraction else ""
    there = (moment + timedelta(minutes=offset)).isoformat()
    assert TimeReader().one(f"{there}{fraction}{zone}") == expected
    assert TimeReader().one(f"{moment.isoformat()}{fraction}Z") == expected
    assert TimeReader(zone="UTC").one(f"{moment.isoformat()}{fraction}") == expected


TEXTS = st.one_of(
    MOMENTS.map(lambda moment: moment.isoformat() + "Z"),
    MOMENTS.map(lambda moment: moment.isoformat(timespec="milliseconds") + "+00:00"),
    MOMENTS.map(lambda moment: moment.isoformat(timespec="seconds") + "+02:00"),
    MOMENTS.map(lambda moment: moment.isoformat(timespec="seconds")),
    st.text("0123456789-T:.Z+ é", min_size=18, max_size=30),
    st.just("2023-02-30T00:00:00Z"),
    st.just("2023-11-14T22:13:2Z"),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=20, max_size=60), st.sampled_from(["", "UTC", "Asia/Kolkata"]))
def test_a_column_reads_like_its_texts_one_by_one(texts, zone):
    reader = TimeReader(zone=zone)
    assert reader.column(texts).tolist() == [reader.one(text) for text in texts]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers() | st.floats(allow_nan=False) | TEXTS, max_size=30), st.sampled_from(["ms", "s", "us"]))
def test_a_column_of_anything_reads_like_its_values_one_by_one(values, unit):
    reader = TimeReader(unit)
    for column in (values, [value for value in values if type(value) is int], [v for v in values if type(v) is float]):
        assert reader.column(column).tolist() == [reader.one(value) for value in column]


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_written_is_read_back(epoch_ms):
    assert TimeReader().one(rfc3339(epoch_ms)) == epoch_ms
    assert datetime.fromisoformat(rfc3339(epoch_ms)).tzinfo == UTC
