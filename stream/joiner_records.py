"""Decisions and labels as the joiner reads them: only the fields it needs; whatever is neither gets a reason.

An id may be a text or a 64-bit integer; 42 and "42" are the same id.
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from stream.deadletter import DeadLetter, MessageLike
from stream.diagnosis import LATEST_EVENT_TIME_MS

__all__ = ["Decided", "Label", "read_decisions", "read_labels"]

MAX_ID_LENGTH: Final = 4_096  # the most that codec.limits.max_id_length can be

Id = (
    Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)] | Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
)
Time = Annotated[int, Meta(ge=0, lt=LATEST_EVENT_TIME_MS)]
Count = Annotated[int, Meta(ge=0, lt=1 << 62)]
Name = Annotated[str, Meta(max_length=256)]


class Decided(Struct, frozen=True, gc=False):
    """What is kept of a decision, and what says how."""

    transaction_id: Id
    user_id: Id
    decision: Name
    score: Annotated[float, Meta(ge=0, le=1)]
    model: Name
    event_time: Time
    scored_at: Time
    partition: Count
    offset: Count
    segment: Name = ""
    flags: list[str] = []


class Label(Struct, frozen=True, gc=False):
    """A record of the labels topic; label_time: when it became known, epoch milliseconds."""

    transaction_id: Id
    user_id: Id
    is_fraud: bool
    label_time: Time

    @property
    def key(self) -> tuple[str, str]:
        """Whose and which transaction; 42 and "42" are the same id."""
        return str(self.user_id), str(self.transaction_id)


class Unreadable(Exception):
    """A record that is no decision, or no label; `letter` says why."""

    def __init__(self, letter: DeadLetter) -> None:
        super().__init__(letter.error)
        self.letter = letter


_FIELD: Final = re.compile(r"field `(\w+)`|`\$\.(\w+)")
_decision: Final[Callable[[bytes], Decided]] = msgspec.json.Decoder(Decided).decode
_label: Final[Callable[[bytes], Label]] = msgspec.json.Decoder(Label).decode


def read_decisions(messages: Sequence[MessageLike]) -> tuple[list[Decided], list[DeadLetter]]:
    """Return the decisions among these records, and why the others are none."""
    return _read_all(messages, _decision)


def read_labels(messages: Sequence[MessageLike]) -> tuple[list[Label], list[DeadLetter]]:
    """Return the labels among these records, and why the others are none."""
    return _read_all(messages, _label)


def _read_all(messages: Sequence[MessageLike], decode: Callable[[bytes], Any]) -> tuple[list[Any], list[DeadLetter]]:
    try:
        return [decode(message.value() or b"") for message in messages], []
    except Exception:  # noqa: BLE001, S110 - some record is bad; the loop below finds which
        pass
    read, letters = [], []
    for message in messages:
        try:
            read.append(_read(message, decode))
        except Unreadable as error:
            letters.append(error.letter)
    return read, letters


def _read(message: MessageLike, decode: Callable[[bytes], Any]) -> Any:
    value = message.value()
    if not value:
        raise Unreadable(DeadLetter(message, "empty_value", "", "the record has no value"))
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        raise Unreadable(_explained(message, str(error))) from None
    except UnicodeDecodeError:
        raise Unreadable(DeadLetter(message, "invalid_utf8", "", "the value is not UTF-8 text")) from None
    except RecursionError:
        raise Unreadable(DeadLetter(message, "too_deep", "", "the value is nested too deeply")) from None
    except msgspec.DecodeError:
        raise Unreadable(DeadLetter(message, "invalid_json", "", "the value is not one JSON document")) from None


def _explained(message: MessageLike, error: str) -> DeadLetter:
    """Name the class of what msgspec found; its own words are about types and bounds, never about values."""
    found = _FIELD.search(error)
    field = (found[1] or found[2]) if found else ""
    what = error.partition(" - at")[0]
    detail = f"is refused: {what[:1].lower()}{what[1:]}"
    if "missing required field" in error:
        return DeadLetter(message, "missing_field", field, "is missing")
    if "length >=" in error:
        return DeadLetter(message, "missing_field", field, "is empty")
    if "length <=" in error:
        return DeadLetter(message, "too_long", field, detail)
    if "`int` >=" in error or "`int` <" in error or "`float` >=" in error or "`float` <" in error or "range" in error:
        return DeadLetter(message, "out_of_range", field, detail)
    return DeadLetter(message, "wrong_type", field, detail if field else "the value is not a JSON object")
