"""Transactions straight into columns: a batch's records, one after another in a buffer, read by one compiled loop.

It reads what is usual and vouches for every row it takes: such a row is what `stream.transaction_rows` would have made
of the record, to the bit. Whatever is unusual or breaks a rule, it leaves alone and says so.
"""

from typing import Any, Final, NamedTuple

import numpy as np

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
from stream.value_kernel import currency_of, epoch_ms, is_trace, minor_units, moment_ms
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
    if not is_trace(text, texts[_TRACE, 0], texts[_TRACE, 1]):
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


@section
def _take_numbers(text: Any, row: int, plan: Any, scratch: Any, out: Any) -> bool:
    """Fill in currency, amount and time."""
    found, spans, _ = scratch
    name = _present(_CURRENCY, plan, found, spans)
    code = plan.default_code if name < 0 else currency_of(text, spans[name, 0], spans[name, 1])
    exponent = plan.exponents[code]
    if exponent == UNKNOWN:
        return False
    out.currency[row] = plan.codes[code]
    name = _present(_AMOUNT, plan, found, spans)
    if name < 0:
        return False
    out.amount_minor[row], sound = minor_units(text, spans[name, 0], spans[name, 1], exponent)
    if not sound:
        return False
    name = _present(_TIME, plan, found, spans)
    if name < 0:
        return False
    if found[name] == _NUMBER:
        out.time_ms[row], sound = epoch_ms(text, spans[name, 0], spans[name, 1], plan.unit)
    else:
        out.time_ms[row], sound = moment_ms(text, spans[name, 0], spans[name, 1], plan.naive)
    return sound


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
