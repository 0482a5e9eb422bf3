"""JSON inside a buffer, as far as transactions are usually written; whatever else is met is left to the parser.

Places are indices into a uint8 buffer; `end` is the first byte after the document. A function that returns a place
returns REST where it meets something it does not read: an escape in a text that counts, a nested value too deep, or
text that is no JSON. It never reads past `end` plus padding, and never takes for JSON what is none.
"""

from typing import Any, Final

import numpy as np

from stream.jit import piece, section

__all__ = ["REST", "after_literal", "after_number", "after_space", "after_text", "after_value", "whole_number"]

#: What is returned instead of a place: leave this record to the parser.
REST: Final = -1

_DEEPEST: Final = 60  # the open objects and lists of a value are the bits of one word
_DIGITS: Final = 18  # as many fit into 64 bits, whatever they are

_TRUE: Final = np.frombuffer(b"true", np.uint8)
_FALSE: Final = np.frombuffer(b"false", np.uint8)
_NULL: Final = np.frombuffer(b"null", np.uint8)


@piece
def after_space(text: Any, at: int, end: int) -> int:
    """Return the place of the next byte that is no white space."""
    while at < end and (text[at] == 0x20 or text[at] == 0x0A or text[at] == 0x0D or text[at] == 0x09):
        at += 1
    return at


@piece
def after_text(text: Any, at: int, end: int) -> int:
    """Return the place of the quotation mark that ends the text whose first byte is at `at`; REST with an escape."""
    while at < end:
        byte = text[at]
        if byte == 0x22:
            return at
        if byte == 0x5C or byte < 0x20:
            return REST
        at += 1
    return REST


@piece
def _is_digit(byte: int) -> bool:
    return 0x30 <= byte <= 0x39


@piece
def after_number(text: Any, at: int, end: int) -> int:
    """Return the place behind a number, which begins at `at`."""
    if at < end and text[at] == 0x2D:
        at += 1
    if at >= end or not _is_digit(text[at]):
        return REST
    if text[at] == 0x30:
        at += 1
    else:
        while at < end and _is_digit(text[at]):
            at += 1
    if at < end and text[at] == 0x2E:
        at += 1
        if at >= end or not _is_digit(text[at]):
            return REST
        while at < end and _is_digit(text[at]):
            at += 1
    if at < end and (text[at] == 0x65 or text[at] == 0x45):
        at += 1
        if at < end and (text[at] == 0x2B or text[at] == 0x2D):
            at += 1
        if at >= end or not _is_digit(text[at]):
            return REST
        while at < end and _is_digit(text[at]):
            at += 1
    return at


@piece
def after_literal(text: Any, at: int, end: int) -> int:
    """Return the place behind true, false or null, one of which begins at `at`."""
    word = _TRUE if text[at] == 0x74 else (_FALSE if text[at] == 0x66 else _NULL)
    if at + len(word) > end:
        return REST
    for i in range(len(word)):
        if text[at + i] != word[i]:
            return REST
    return at + len(word)


@piece
def _after_escaped_text(text: Any, at: int, end: int) -> int:
    """Return the place behind a text that nobody reads, whose first byte is at `at`; escapes in it are checked."""
    while at < end:
        byte = text[at]
        if byte == 0x22:
            return at + 1
        if byte < 0x20:
            return REST
        at += 1
        if byte == 0x5C:
            if at >= end:
                return REST
            escaped = text[at]
            at += 1
            if escaped == 0x75:
                at = _after_code(text, at, end)
                if at < 0:
                    return REST
            elif escaped not in (0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74):
                return REST
    return REST


@piece
def _after_code(text: Any, at: int, end: int) -> int:
    """Return the place behind four hexadecimal digits; REST for a surrogate, of which it takes two."""
    if at + 4 > end:
        return REST
    for i in range(4):
        low = text[at + i] | 0x20
        if not (_is_digit(text[at + i]) or 0x61 <= low <= 0x66):
            return REST
    if text[at] | 0x20 == 0x64 and text[at + 1] >= 0x38:
        return REST
    return at + 4


@section
def after_value(text: Any, at: int, end: int) -> int:
    """Return the place behind a value that nobody reads, which begins at `at`."""
    depth, objects = 0, 0  # objects: a bit for each open one of `depth` brackets, the innermost lowest
    while True:
        at = after_space(text, at, end)
        if at >= end:
            return REST
        byte = text[at]
        opened = False
        if byte in (0x7B, 0x5B):
            at = after_space(text, at + 1, end)
            if at >= end:
                return REST
            if text[at] == byte + 2:
                at += 1
            else:
                if depth == _DEEPEST:
                    return REST
                depth += 1
                objects = objects << 1 | (1 if byte == 0x7B else 0)
                opened = True
        elif byte == 0x22:
            at = _after_escaped_text(text, at + 1, end)
        elif byte in (0x74, 0x66, 0x6E):
            at = after_literal(text, at, end)
        else:
            at = after_number(text, at, end)
        if at < 0:
            return REST
        while not opened:
            if depth == 0:
                return at
            at = after_space(text, at, end)
            if at >= end:
                return REST
            byte = text[at]
            at += 1
            if byte == 0x2C:
                opened = True
            elif byte == (0x7D if objects & 1 else 0x5D):
                depth -= 1
                objects >>= 1
            else:
                return REST
        if objects & 1:
            at = after_space(text, at, end)
            if at >= end or text[at] != 0x22:
                return REST
            at = _after_escaped_text(text, at + 1, end)
            if at < 0:
                return REST
            at = after_space(text, at, end)
            if at >= end or text[at] != 0x3A:
                return REST
            at += 1


@piece
def whole_number(text: Any, start: int, end: int) -> tuple[int, bool]:
    """Return the number that text[start:end] is and whether it is one of at most 18 digits that can be read here."""
    negative = text[start] == 0x2D
    at = start + 1 if negative else start
    if end - at > _DIGITS or end - at < 1:
        return 0, False
    number: Any = 0
    for i in range(at, end):
        if not _is_digit(text[i]):
            return 0, False
        number = number * 10 + (np.int64(text[i]) - 0x30)
    return -number if negative else number, not (negative and number == 0)
