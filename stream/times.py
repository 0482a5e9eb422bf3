"""Event times: RFC 3339 text or epoch numbers to epoch milliseconds, exact, floored to the millisecond.

Two readers give the same answer: one for a whole column, one for a single value. The single one is the authority: the
column reader recognises the usual layouts and hands it whatever else it meets.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

__all__ = ["BAD_TIME", "UNITS_US", "TimeReader", "rfc3339"]

#: Stands for a value that is no time; below every time that can be accepted.
BAD_TIME: Final = -(1 << 62)

# Beyond any date a person could mean; keeps every product below inside 64 bits.
_LARGEST: Final = 1 << 60
#: How many microseconds each unit of a number has.
UNITS_US: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_YEAR_ONE_MS: Final = -62_135_596_800_000
_EPOCH: Final = datetime(1970, 1, 1)
_MS: Final = timedelta(milliseconds=1)
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d+))?"
    r"(?:([Zz])|([+-])([01]\d|2[0-3]):([0-5]\d))?",
    re.ASCII,
)
# Below this many texts the column reader's fixed cost is more than it saves.
_WORTH_A_COLUMN: Final = 16


class TimeReader:
    """Reads event times. ``unit``: of numbers ("ms", "s", "us"); ``zone``: of texts without an offset ("": refused)."""

    def __init__(self, unit: str = "ms", zone: str = "") -> None:
        self._unit_us = UNITS_US[unit]
        self._zone: tzinfo | None = (UTC if zone == "UTC" else ZoneInfo(zone)) if zone else None

    def column(self, values: Sequence[str | float]) -> NDArray[np.int64]:
        """Return epoch milliseconds, int64[n]; BAD_TIME where a value is no time."""
        kinds = set(map(type, values))
        if kinds == {str} and len(values) >= _WORTH_A_COLUMN:
            return self._texts(values)  # type: ignore[arg-type]  # the set of types has just said so
        if kinds in ({int}, {float}):
            return self._numbers(values)  # type: ignore[arg-type]  # likewise
        return np.fromiter(map(self.one, values), np.int64, len(values))

    def one(self, value: str | float) -> int:
        """Return epoch milliseconds, or BAD_TIME."""
        if isinstance(value, str):
            return self._text(value)
        if not -_LARGEST < value * self._unit_us < _LARGEST:
            return BAD_TIME
        # A number with a fraction is read to the nearest microsecond, which removes its binary noise.
        return round(value * self._unit_us) // 1_000

    def _text(self, text: str) -> int:
        found = _RFC3339.fullmatch(text)
        if found is None:
            return BAD_TIME
        day, clock, fraction, utc, sign, hours, minutes = found.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{clock}")
        except ValueError:  # no such day
            return BAD_TIME
        ms = (moment - _EPOCH) // _MS + int((fraction + "00")[:3] if fraction else 0)
        if utc:
            return ms
        if sign:
            east_ms = (int(hours) * 60 + int(minutes)) * 60_000
            return ms + east_ms if sign == "-" else ms - east_ms
        return ms - self._east_ms(moment) if self._zone else BAD_TIME

    def _east_ms(self, moment: datetime) -> int:
        """How far the assumed zone is ahead of UTC at that local time; where a time occurs twice, the first counts."""
        offset = moment.replace(tzinfo=self._zone).utcoffset()
        assert offset is not None
        return offset // _MS

    def _numbers(self, values: Sequence[float]) -> NDArray[np.int64]:
        try:
            numbers = np.array(values)
            inside = (numbers > -_LARGEST // self._unit_us) & (numbers < _LARGEST // self._unit_us)
        except OverflowError:
            inside = np.zeros(1, np.bool_)
        if not inside.all() or numbers.dtype.kind not in "if":
            return np.fromiter(map(self.one, values), np.int64, len(values))
        scaled = numbers * self._unit_us
        return (scaled if scaled.dtype.kind == "i" else np.rint(scaled).astype(np.int64)) // 1_000

    def _texts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        lengths = set(map(len, texts))
        if len(lengths) == 1:
            return self._alike(texts, lengths.pop())
        out = np.empty(len(texts), np.int64)
        for length in lengths:
            rows = [row for row, text in enumerate(texts) if len(text) == length]
            out[rows] = self._alike([texts[row] for row in rows], length)
        return out

    def _suffix(self, text: str) -> bytes:
        """What the texts of a column probably end with, going by one of them: always a spelling of UTC."""
        if text[-1] == "Z":
            return b"Z"
        return b"" if self._zone is UTC and text[-6] not in "+-" else b"+00:00"

    def _alike(self, texts: Sequence[str], length: int) -> NDArray[np.int64]:
        """Read texts of one length: those in UTC and in the usual layout as one column, the rest one by one."""
        joined = "".join(texts)
        if not 19 <= length <= 35 or not joined.isascii():
            return np.fromiter(map(self._text, texts), np.int64, len(texts))
        table = np.frombuffer(joined.encode(), np.uint8).reshape(-1, length)
        lowest, span, kept = _layout(length, self._suffix(texts[0]))
        usual: NDArray[np.bool_] = np.all(table - lowest <= span, axis=1)
        out = np.empty(len(texts), np.int64)
        try:
            out[usual] = _calendar(table[usual], kept)
        except ValueError:  # the thirtieth of February is somewhere among them
            usual[:] = False
        for row in np.flatnonzero(~usual).tolist():
            out[row] = self._text(texts[row])
        out[out < _YEAR_ONE_MS] = BAD_TIME  # there is no year 0000
        return out


@cache
def _layout(length: int, suffix: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """Return the lowest byte at each place of YYYY-MM-DDTHH:MM:SS.f, how far it may lie above, and how many to read."""
    fraction = length - 19 - len(suffix)
    if fraction < 0 or fraction == 1:  # too short, or a point with nothing behind it: no text matches
        return np.full(length, 0xFF, np.uint8), np.zeros(length, np.uint8), length
    layout = b"0000-00-00T00:00:00" + b".".ljust(fraction, b"0")[:fraction] + suffix
    lowest = np.frombuffer(layout, np.uint8)
    span = np.where(lowest == ord("0"), 9, 0).astype(np.uint8)
    span[length - len(suffix) :] = 0
    return lowest, span, min(19 + fraction, 23)


def _calendar(table: NDArray[np.uint8], kept: int) -> NDArray[np.int64]:
    """Epoch milliseconds of rows in the usual layout; digits past the third decimal are dropped, which is the floor."""
    texts = np.ascontiguousarray(table[:, :kept]).view(f"S{kept}").ravel()
    return texts.astype("M8[ms]").astype(np.int64)


def rfc3339(epoch_ms: int) -> str:
    """Write epoch milliseconds as RFC 3339 in UTC, with three decimals."""
    moment = _EPOCH + timedelta(milliseconds=epoch_ms)
    return f"{moment.isoformat(timespec='milliseconds')}Z"
