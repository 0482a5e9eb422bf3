"""Decisions as JSON, a batch into one buffer: texts and numbers between the parts that every decision shares."""

from typing import Any, Final, NamedTuple

import numpy as np

from stream.jit import entry, piece, section

__all__ = ["NUMBERS", "SCORED", "Template", "write_decisions"]

#: The most bytes that a row's numbers take.
NUMBERS: Final = 116
#: Which of a template's parts says when.
SCORED: Final = 5

_TRANSACTION, _USER, _SEGMENT, _TRACE = range(4)  # of stream.transaction_kernel.TEXTS

# Scores outside are written with an exponent, which is left to the other encoder; so is a power of two, to which its
# lower neighbour is nearer than its upper one.
_LOWEST: Final = 1e-5
_FRACTION: Final = 0x7FFFFF  # of a float32's bits
_SURELY: Final = 0.4999999  # of the distance between neighbours: what is read as a double first is found again, too
_TENS: Final = 10.0 ** np.arange(17)


class Template(NamedTuple):
    """The parts of a decision one after another in `text`, uint8; places, int64[·, 2], are start and end.

    outcomes: of each outcome; flags: of the 16 sets of flags; parts: of what stands around them, in order.
    """

    text: Any
    outcomes: Any
    flags: Any
    parts: Any


@entry
def write_decisions(
    text: Any,
    spans: Any,
    scores: Any,
    outcomes: Any,
    flags: Any,
    times_ms: Any,
    partitions: Any,
    offsets: Any,
    template: Any,
    out: Any,
) -> int:
    """Write every row behind the other into out.text and its end to out.ends[row]; return the end of the last.

    text, spans: as in Decoded. A row that is to be encoded otherwise is empty.
    """
    written, ends = out
    parts = template.parts
    at = 0
    for row in range(len(scores)):
        digits, places = shortest_decimal(scores[row])
        if places > 0:
            at = _copy(template.text, parts[0, 0], parts[0, 1], written, at)
            at = _copy(text, spans[row, _TRANSACTION, 0], spans[row, _TRANSACTION, 1], written, at)
            at = _copy(template.text, parts[1, 0], parts[1, 1], written, at)
            at = _copy(text, spans[row, _USER, 0], spans[row, _USER, 1], written, at)
            at = _copy_place(template.text, template.outcomes, outcomes[row], written, at)
            at = _decimals(digits, places, written, at)
            at = _copy(template.text, parts[2, 0], parts[2, 1], written, at)
            at = _copy_place(template.text, template.flags, flags[row] & 15, written, at)
            at = _copy(template.text, parts[3, 0], parts[3, 1], written, at)
            at = _copy(text, spans[row, _SEGMENT, 0], spans[row, _SEGMENT, 1], written, at)
            at = _copy(template.text, parts[4, 0], parts[4, 1], written, at)
            at = _whole(times_ms[row], written, at)
            at = _copy(template.text, parts[SCORED, 0], parts[SCORED, 1], written, at)
            at = _whole(partitions[row], written, at)
            at = _copy(template.text, parts[6, 0], parts[6, 1], written, at)
            at = _whole(offsets[row], written, at)
            if spans[row, _TRACE, 0] < spans[row, _TRACE, 1]:
                at = _copy(template.text, parts[7, 0], parts[7, 1], written, at)
                at = _copy(text, spans[row, _TRACE, 0], spans[row, _TRACE, 1], written, at)
                at = _copy(template.text, parts[8, 0], parts[8, 1], written, at)
            else:
                at = _copy(template.text, parts[9, 0], parts[9, 1], written, at)
        ends[row] = at
    return at


@section
def shortest_decimal(score: Any) -> tuple[Any, int]:
    """Return (digits, places): digits / 10 ** places is the shortest decimal that reads as this float32; or places 0.

    Between _LOWEST and 1 the first of 6, 7, 8 or 9 digits that gives the number back is the shortest, zeros at its end
    aside: with 6 digits decimals lie further apart than floats, so a shorter one is met there too.
    """
    value, bits = np.float64(score), np.float32(score).view(np.int32)
    if not _LOWEST <= value < 1 or bits & _FRACTION == 0:
        return 0, 0
    zeros = 0
    while value * _TENS[zeros + 1] < 1:
        zeros += 1
    gap = np.float64(np.int32(bits + 1).view(np.float32)) - value
    for length in range(6, 10):
        places = zeros + length
        nearest = np.rint(value * _TENS[places])
        if abs(nearest / _TENS[places] - value) < _SURELY * gap:
            digits = np.int64(nearest)
            while digits % 10 == 0:
                digits //= 10
                places -= 1
            return digits, places
    return 0, 0


@piece
def _copy(source: Any, start: int, end: int, out: Any, at: int) -> int:
    for i in range(end - start):
        out[at + i] = source[start + i]
    return at + end - start


@piece
def _copy_place(source: Any, places: Any, which: int, out: Any, at: int) -> int:
    return _copy(source, places[which, 0], places[which, 1], out, at)


@piece
def _decimals(digits: int, places: int, out: Any, at: int) -> int:
    """Write digits / 10 ** places, which is below 1."""
    out[at], out[at + 1] = 0x30, 0x2E
    for i in range(places + 1, 1, -1):
        out[at + i] = 0x30 + digits % 10
        digits //= 10
    return at + places + 2


@piece
def _whole(number: int, out: Any, at: int) -> int:
    """Write an integer that is not negative."""
    end = at + 1
    rest = number // 10
    while rest > 0:
        rest //= 10
        end += 1
    for i in range(end - 1, at - 1, -1):
        out[i] = 0x30 + number % 10
        number //= 10
    return end
