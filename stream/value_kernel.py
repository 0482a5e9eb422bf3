"""What stands in a transaction's fields, read inside a buffer: currencies, amounts, times, trace contexts.

Each gives what `stream.money` and `stream.times` give, or says that it does not read this text or number.
"""

from typing import Any, Final

import numpy as np

from state.events import AMOUNT_LIMIT_MINOR
from stream.jit import piece
from stream.json_kernel import whole_number

__all__ = ["currency_of", "epoch_ms", "is_trace", "minor_units", "moment_ms"]

_MOST_DIGITS: Final = 15  # a double holds every number of so many digits, and times a power of ten to the nearest unit
_LIMIT: Final = AMOUNT_LIMIT_MINOR
_LARGEST_US: Final = 1 << 60  # of an event time that is a number


@piece
def is_trace(text: Any, start: int, end: int) -> bool:
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


@piece
def currency_of(text: Any, start: int, end: int) -> Any:
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
def minor_units(text: Any, start: int, end: int, exponent: int) -> tuple[int, bool]:
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
    if minor >= _LIMIT:
        return 0, False
    for _ in range(exponent - decimals):
        minor *= 10
    return -minor if text[start] == 0x2D else minor, minor < _LIMIT


@piece
def epoch_ms(text: Any, start: int, end: int, unit: int) -> tuple[int, bool]:
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
def moment_ms(text: Any, start: int, end: int, naive: bool) -> tuple[int, bool]:
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
