"""Transactions straight into columns: a batch's records, one after another in a buffer, read by one compiled loop.

It reads what is usual and vouches for every row it takes: such a row is what `stream.transaction_rows` would have made
of the record, to the bit. Whatever is unusual or breaks a rule, it leaves alone and says so.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from state.events import AMOUNT_LIMIT_MINOR
from stream.jit import entry, piece, section
from stream.json_kernel import (
    REST,
    after_literal,
    after_number,
    after_space,
    after_text,
    after_value,
    whole_number,
)
from stream.xxh3_kernel import LONGEST, hash_text

__all__ = ["TEXTS", "Columns", "Plan", "read_transactions"]

#: The texts of a row, by their place in `Columns.texts`.
TEXTS: Final = ("transaction_id", "user_id", "segment", "traceparent")
_TRANSACTION, _USER, _SEGMENT, _TRACE, _AMOUNT, _CURRENCY, _TIME, _KEPT = range(8)

# How a field is read: what may stand there, besides null.
ID, FIELD, AMOUNT, CURRENCY, TIME, TRACE = range(6)

# What stands in a record under one of the sender's names.
_ABSENT, _TEXT, _NUMBER = range(3)

#: No currency has this exponent: the code is unknown.
UNKNOWN: Final = 255

_MOST_DIGITS: Final = 15  # a double holds every number of so many digits, and times a power of ten to the nearest unit
_AMOUNT_LIMIT: Final = AMOUNT_LIMIT_MINOR
_LARGEST_US: Final = 1 << 60  # of an event time that is a number


class Plan(NamedTuple):
    """How a mapping's transactions are read; m names of the sender's, fields of ours by place, F kept fields.

    names           uint8[·]       the sender's names one after another, each with the quotation mark that ends it
    starts          int64[m + 1]   where each begins
    kinds           uint8[m]       how each is read
    longest         int64[m]       the most characters of its text
    required        bool[m]        whether it must be there
    wanted          int64[7 + F, p] names of each field in order of preference, -1 behind the last; the fields are
                                   transaction_id, user_id, segment, traceparent, amount, currency, event_time, then
                                   the kept ones
    defaults        int64[4, 2]    start and end of each of TEXTS where it is missing, from `tail` on
    fallback        uint64[F]      hash of each kept field's default, 0 without one
    seeds           uint64[1 + F]  of the transaction's id and of the kept fields
    exponents       uint8[32768]   decimals of each currency, by its code as read; UNKNOWN where it is none
    codes           uint16[32768]  the code that stands for it
    default_code    int            currency_code of the default currency, 0 without one
    unit            int            of event times that are numbers, in microseconds
    naive           bool           whether a time without an offset is UTC
    limits          int64[6]       least and most amount (minor units), earliest and latest time (ms, exclusive), most
                                   ms ahead, most bytes of a record
    """

    names: Any
    starts: Any
    kinds: Any
    longest: Any
    required: Any
    wanted: Any
    defaults: Any
    fallback: Any
    seeds: Any
    exponents: Any
    codes: Any
    default_code: int
    unit: int
    naive: bool
    limits: Any


class Columns(NamedTuple):
    """What is read, n rows: as in `state.events.Events`, and the bytes of texts in the buffer.

    texts: int64[n, 4, 2], start and end of each of TEXTS; usual: bool[n], whether the row was read.
    """

    time_ms: Any
    transaction: Any
    amount_minor: Any
    currency: Any
    fields: Any
    texts: Any
    usual: Any


class Scratch(NamedTuple):
    """What one call leaves for the next: found uint8[m], spans int64[m, 2] of one record, expected int64[m + 1].

    expected: the name that last followed each name, the first one at 0; senders keep their order.
    """

    found: Any
    spans: Any
    expected: Any


@entry
def read_transactions(
    text: Any,
    starts: Any,
    tail: int,
    keys: Any,
    key_starts: Any,
    timestamps_ms: Any,
    plan: Any,
    scratch: Any,
    out: Any,
) -> None:
    """Read text[starts[i] : starts[i + 1]] into row i of out, or leave it and say so.

    text: uint8, UTF-8 as a whole, the plan's defaults from `tail` on, PADDING behind all. keys, key_starts: the
    records' keys likewise. timestamps_ms: int64[n].
    """
    for row in range(len(starts) - 1):
        start, end = starts[row], starts[row + 1]
        out.usual[row] = (
            end - start <= plan.limits[5]
            and _scan(text, start, end, plan, scratch)
            and _take_texts(text, tail, row, plan, scratch, out)
            and _take_numbers(text, row, plan, scratch, out)
            and _is_sound(text, row, keys, key_starts, timestamps_ms, plan, out)
        )


@section
def _scan(text: Any, at: int, end: int, plan: Any, scratch: Any) -> bool:
    """Find where the fields of one record stand; False where it is to be left alone."""
    found, spans, expected = scratch
    found[:] = _ABSENT
    at = after_space(text, at, end)
    if at >= end or text[at] != 0x7B:
        return False
    at = after_space(text, at + 1, end)
    before = 0
    while at < end and text[at] == 0x22:
        name, at = _name(text, at + 1, end, expected[before], plan)
        if at < 0:
            return False
        at = after_space(text, at, end)
        if at >= end or text[at] != 0x3A:
            return False
        at = after_space(text, at + 1, end)
        if at >= end:
            return False
        if name < 0:
            at = after_value(text, at, end)
        else:
            if found[name] != _ABSENT:  # the last one counts, but each must be right
                return False
            expected[before] = name
            before = name + 1
            at = _field(text, at, end, name, plan, found, spans)
        if at < 0:
            return False
        at = after_space(text, at, end)
        if at >= end:
            return False
        if text[at] == 0x7D:
            return after_space(text, at + 1, end) == end and _has_required(plan, found)
        if text[at] != 0x2C:
            return False
        at = after_space(text, at + 1, end)
    return False


@piece
def _name(text: Any, at: int, end: int, guess: int, plan: Any) -> tuple[int, int]:
    """Return which name stands at `at` (-1: one that nobody asks for), and the place behind its quotation mark."""
    length = plan.starts[guess + 1] - plan.starts[guess]
    if at + length <= end and _is_at(text, at, plan.names, plan.starts[guess], length):
        return guess, at + length
    close = after_text(text, at, end)
    if close < 0:
        return REST, REST
    for name in range(len(plan.kinds)):
        length = plan.starts[name + 1] - plan.starts[name]
        if length == close + 1 - at and _is_at(text, at, plan.names, plan.starts[name], length):
            return name, close + 1
    return REST, close + 1


@piece
def _is_at(text: Any, at: int, other: Any, start: int, length: int) -> bool:
    for i in range(length):
        if text[at + i] != other[start + i]:
            return False
    return True


@piece
def _field(text: Any, at: int, end: int, name: int, plan: Any, found: Any, spans: Any) -> int:
    """Note where the value at `at` stands, and return the place behind it."""
    byte = text[at]
    if byte == 0x22:
        close = after_text(text, at + 1, end)
        if close < 0 or _characters(text, at + 1, close) > plan.longest[name]:
            return REST
        found[name] = _TEXT
        spans[name, 0], spans[name, 1] = at + 1, close
        return close + 1
    kind = plan.kinds[name]
    if byte == 0x6E and not plan.required[name]:
        return after_literal(text, at, end)
    if kind in (CURRENCY, TRACE) or not (byte == 0x2D or 0x30 <= byte <= 0x39):
        return REST
    close = after_number(text, at, end)
    found[name] = _NUMBER
    spans[name, 0], spans[name, 1] = at, close
    if kind in (ID, FIELD) and close > 0 and not whole_number(text, at, close)[1]:
        return REST
    return close


@piece
def _characters(text: Any, start: int, end: int) -> int:
    """The length of UTF-8 in characters: bytes that continue one are not counted."""
    count = end - start
    for i in range(start, end):
        count -= (text[i] & 0xC0) == 0x80
    return count


@piece
def _has_required(plan: Any, found: Any) -> bool:
    for name in range(len(found)):
        if plan.required[name] and found[name] == _ABSENT:
            return False
    return True


@piece
def _present(field: int, plan: Any, found: Any, spans: Any) -> Any:
    """Return the first of a field's names that is there and not an empty text, or -1."""
    for choice in range(plan.wanted.shape[1]):
        name = plan.wanted[field, choice]
        if name < 0:
            return -1
        if found[name] != _ABSENT and spans[name, 0] < spans[name, 1]:
            return name
    return -1


@section
def _take_texts(text: Any, tail: int, row: int, plan: Any, scratch: Any, out: Any) -> bool:
    """Fill in ids, segment, trace and the hashes."""
    found, spans, _ = scratch
    texts = out.texts[row]
    for place in range(len(TEXTS)):
        name = _present(place, plan, found, spans)
        if name >= 0:
            texts[place, 0], texts[place, 1] = spans[name, 0], spans[name, 1]
        elif place <= _USER:
            return False
        else:
            texts[place, 0], texts[place, 1] = tail + plan.defaults[place, 0], tail + plan.defaults[place, 1]
    if not _is_trace(text, texts[_TRACE, 0], texts[_TRACE, 1]):
        texts[_TRACE, 1] = texts[_TRACE, 0]
    start, end = texts[_TRANSACTION, 0], texts[_TRANSACTION, 1]
    if end - start > LONGEST:
        return False
    out.transaction[row] = max(hash_text(text, start, end - start, plan.seeds[0]), np.uint64(1))
    for field in range(len(plan.fallback)):
        name = _present(_KEPT + field, plan, found, spans)
        if name < 0:
            out.fields[row, field] = plan.fallback[field]
            continue
        start, end = spans[name, 0], spans[name, 1]
        if end - start > LONGEST:
            return False
        out.fields[row, field] = max(hash_text(text, start, end - start, plan.seeds[1 + field]), np.uint64(1))
    return True


@piece
def _is_trace(text: Any, start: int, end: int) -> bool:
    """Whether it is a W3C trace parent of version 00, whose ids are not all zeros."""
    if end - start != 55 or text[start] != 0x30 or text[start + 1] != 0x30:
        return False
    some, other = 0, 0
    for i in range(2, 55):
        byte = text[start + i]
        if i in (2, 35, 52):
            if byte != 0x2D:
                return False
        elif not (0x30 <= byte <= 0x39 or 0x61 <= byte <= 0x66):
            return False
        elif i < 35:
            some |= byte - 0x30
        elif i < 52:
            other |= byte - 0x30
    return some != 0 and other != 0


@section
def _take_numbers(text: Any, row: int, plan: Any, scratch: Any, out: Any) -> bool:
    """Fill in currency, amount and time."""
    found, spans, _ = scratch
    name = _present(_CURRENCY, plan, found, spans)
    code = plan.default_code if name < 0 else _currency(text, spans[name, 0], spans[name, 1])
    exponent = plan.exponents[code]
    if exponent == UNKNOWN:
        return False
    out.currency[row] = plan.codes[code]
    name = _present(_AMOUNT, plan, found, spans)
    if name < 0:
        return False
    out.amount_minor[row], sound = _amount(text, spans[name, 0], spans[name, 1], exponent)
    if not sound:
        return False
    name = _present(_TIME, plan, found, spans)
    if name < 0:
        return False
    if found[name] == _NUMBER:
        out.time_ms[row], sound = _epoch(text, spans[name, 0], spans[name, 1], plan.unit)
    else:
        out.time_ms[row], sound = _moment(text, spans[name, 0], spans[name, 1], plan.naive)
    return sound


@piece
def _currency(text: Any, start: int, end: int) -> Any:
    """Return the code of three capitals, 0 for anything else."""
    if end - start != 3:
        return 0
    code: Any = 0
    for i in range(start, end):
        letter = text[i]
        if not 0x41 <= letter <= 0x5A:
            return 0
        code = code << 5 | (np.int64(letter) - 0x40)
    return code


@piece
def _amount(text: Any, start: int, end: int, exponent: int) -> tuple[int, bool]:
    """Return minor units of a decimal number, and whether it is one of few digits and decimals."""
    at = start + 1 if text[start] == 0x2D else start
    minor: Any = 0
    digits, decimals, point = 0, 0, False
    for i in range(at, end):
        byte = text[i]
        if byte == 0x2E and not point and digits > 0:
            point = True
            continue
        if not 0x30 <= byte <= 0x39:
            return 0, False
        digits += 1
        if point and decimals == exponent:
            if byte != 0x30:
                return 0, False
            continue
        decimals += point
        minor = minor * 10 + (np.int64(byte) - 0x30)
        if digits > _MOST_DIGITS:
            return 0, False
    if digits == 0 or text[end - 1] == 0x2E or digits > _MOST_DIGITS:
        return 0, False
    if minor >= _AMOUNT_LIMIT:
        return 0, False
    for _ in range(exponent - decimals):
        minor *= 10
    return -minor if text[start] == 0x2D else minor, minor < _AMOUNT_LIMIT


@piece
def _epoch(text: Any, start: int, end: int, unit: int) -> tuple[int, bool]:
    """Return epoch milliseconds of a whole number in units of so many microseconds."""
    number, sound = whole_number(text, start, end)
    if not sound or abs(number) >= _LARGEST_US // unit:
        return 0, False
    return number * unit // 1_000, True


@piece
def _two(text: Any, at: int) -> Any:
    """Return the number of two digits, or one above every sum of such numbers."""
    if not (0x30 <= text[at] <= 0x39 and 0x30 <= text[at + 1] <= 0x39):
        return 1_000_000
    return (np.int64(text[at]) - 0x30) * 10 + (np.int64(text[at + 1]) - 0x30)


@piece
def _moment(text: Any, start: int, end: int, naive: bool) -> tuple[int, bool]:
    """Return epoch milliseconds of an RFC 3339 text, floored; False where it is none or lacks an offset."""
    if end - start < 19:
        return 0, False
    if not (text[start + 4] == 0x2D and text[start + 7] == 0x2D and text[start + 13] == 0x3A):
        return 0, False
    if not (text[start + 16] == 0x3A and (text[start + 10] | 0x20 == 0x74 or text[start + 10] == 0x20)):
        return 0, False
    year = _two(text, start) * 100 + _two(text, start + 2)
    month, day = _two(text, start + 5), _two(text, start + 8)
    hour, minute, second = _two(text, start + 11), _two(text, start + 14), _two(text, start + 17)
    if not (0 < year <= 9_999 and 0 < month <= 12 and 0 < day <= _days_in(year, month)):
        return 0, False
    if hour > 23 or minute > 59 or second > 59:
        return 0, False
    ms: Any = ((_day_number(year, month, day) * 24 + hour) * 60 + minute) * 60_000 + second * 1_000
    at = start + 19
    if at < end and text[at] == 0x2E:
        at += 1
        first, worth = at, 100
        while at < end and 0x30 <= text[at] <= 0x39:
            ms += worth * (np.int64(text[at]) - 0x30)
            worth //= 10
            at += 1
        if at == first:
            return 0, False
    if at == end:
        return ms, naive
    if text[at] | 0x20 == 0x7A:
        return ms, at + 1 == end
    if at + 6 != end or text[at + 3] != 0x3A or not (text[at] == 0x2B or text[at] == 0x2D):
        return 0, False
    hours, minutes = _two(text, at + 1), _two(text, at + 4)
    if hours > 23 or minutes > 59:
        return 0, False
    east_ms = (hours * 60 + minutes) * 60_000
    return ms + east_ms if text[at] == 0x2D else ms - east_ms, True


@piece
def _days_in(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@piece
def _day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of the Gregorian calendar: years begin in March, so that a leap day ends one."""
    years = year if month > 2 else year - 1
    months = month - 3 if month > 2 else month + 9
    return years * 365 + years // 4 - years // 100 + years // 400 + (153 * months + 2) // 5 + day - 719_469


@piece
def _is_sound(text: Any, row: int, keys: Any, key_starts: Any, timestamps_ms: Any, plan: Any, out: Any) -> bool:
    """Whether the row keeps every rule."""
    limits, time_ms, minor = plan.limits, out.time_ms[row], out.amount_minor[row]
    if not (limits[0] <= minor <= limits[1] and limits[2] <= time_ms < limits[3]):
        return False
    if time_ms - limits[4] > timestamps_ms[row]:
        return False
    start, end = out.texts[row, _USER, 0], out.texts[row, _USER, 1]
    length = key_starts[row + 1] - key_starts[row]
    return length == end - start and _is_at(text, start, keys, key_starts[row], length)
