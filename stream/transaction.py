"""The transaction as a type, made from the user's mapping: what the JSON parser checks while it reads."""

import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from stream.mapping import REQUIRED, Limits, Mapping

__all__ = [
    "LONGEST_NUMBER",
    "MAX_NESTING",
    "MEANINGS",
    "Layout",
    "is_required",
    "nested_too_deeply",
    "valid_traceparents",
]

#: Objects and lists inside one another, the outermost included.
MAX_NESTING: Final = 256

# W3C Trace Context, version 00; an id of zeros is none.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_BRACKET: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
#: What each field of ours means; a field of the user's own has no entry.
MEANINGS: Final = {
    "transaction_id": "Identifies the payment; a repeated one is a duplicate",
    "user_id": "Whose windows the payment belongs to; also the record's key, byte for byte",
    "amount": "Major units (12.34 euros), a number or a decimal text; no more decimals than the currency has",
    "currency": "ISO 4217, in capitals",
    "event_time": "When the payment was made: RFC 3339, or a number in the unit the settings say",
    "merchant_id": "Who was paid",
    "mcc": "Merchant category code",
    "country": "Where it was paid",
    "channel": "How it was paid, such as pos or online",
    "device_id": "The payer's device",
    "terminal_id": "The merchant's terminal",
    "traceparent": "W3C trace context; comes back in the decision",
}
#: The most characters of an amount or a time that is a text.
LONGEST_NUMBER: Final = 64
_INT64: Final = Meta(ge=-(1 << 63), le=(1 << 63) - 1)


class Layout:
    """Where each field of ours stands in the parsed transaction.

    ``type`` is a msgspec Struct with one attribute for each name of the user's that the mapping reads.
    """

    def __init__(self, mapping: Mapping, limits: Limits) -> None:
        names = list(dict.fromkeys(theirs for ours in mapping.read for theirs in mapping.names(ours)))
        attributes = {theirs: f"field_{at}" for at, theirs in enumerate(names)}
        #: The attributes that may hold a field of ours, in order of preference, and its default.
        self.places = {ours: tuple(attributes[theirs] for theirs in mapping.names(ours)) for ours in mapping.read}
        self.defaults = {ours: mapping.defaults.get(ours, "") for ours in mapping.read}
        self.type = _struct(mapping, limits, attributes)

    def column(self, ours: str) -> Callable[[Sequence[Any]], list[Any]]:
        """Return what reads a field of ours out of many parsed transactions; "" or None where it is missing."""
        places, default = self.places[ours], self.defaults[ours]
        if len(places) == 1 and not default:
            read = attrgetter(places[0])
            return lambda parsed: list(map(read, parsed))
        return lambda parsed: [_first_present((getattr(one, place) for place in places), default) for one in parsed]

    def row(self, parsed: Any) -> dict[str, Any]:
        """Return the fields of ours that one parsed transaction holds; "" or None where one is missing."""
        return {ours: self.column(ours)([parsed])[0] for ours in self.places}


def nested_too_deeply(value: bytes) -> bool:
    """Tell whether a JSON text is nested deeper than MAX_NESTING; brackets inside texts do not count.

    The parser has a limit of its own, but that one depends on the caller's stack, and a record's fate must not.
    """
    if len(value) <= MAX_NESTING or value.count(b"[") + value.count(b"{") <= MAX_NESTING:
        return False
    depth = 0
    for token in _BRACKET.finditer(value):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > MAX_NESTING:
            return True
    return False


def _first_present(values: Iterable[Any], default: str) -> Any:
    """Return the first value that is there and not an empty text, or the default."""
    return next((value for value in values if value is not None and value != ""), default)


def is_required(ours: str, mapping: Mapping) -> bool:
    """Whether a record must hold the one name of the sender's that a field of ours has."""
    return ours in REQUIRED and len(mapping.names(ours)) == 1 and ours not in mapping.defaults


def _struct(mapping: Mapping, limits: Limits, attributes: dict[str, str]) -> type[msgspec.Struct]:
    kinds = _kinds(limits)
    fields: dict[str, tuple[Any, ...]] = {}
    for ours in mapping.read:
        names = mapping.names(ours)
        kind = kinds.get(ours, kinds["field"])
        meaning = Meta(title=ours, description=MEANINGS.get(ours, "A field of the user's own, kept for features"))
        for theirs in names:
            if is_required(ours, mapping):
                fields[theirs] = (attributes[theirs], Annotated[kind, meaning])
            else:
                fields.setdefault(theirs, (attributes[theirs], Annotated[kind | None, meaning], None))
    return msgspec.defstruct(
        "Transaction",
        fields.values(),
        rename={attribute: theirs for theirs, attribute in attributes.items()},
        kw_only=True,
        frozen=True,
        gc=False,
    )


def _kinds(limits: Limits) -> dict[str, Any]:
    integer = Annotated[int, _INT64]
    identifier = Annotated[str, Meta(max_length=limits.max_id_length)] | integer
    return {
        "transaction_id": identifier,
        "user_id": identifier,
        "amount": float | Annotated[str, Meta(max_length=LONGEST_NUMBER)],
        "currency": Annotated[str, Meta(max_length=limits.max_field_length)],
        "event_time": Annotated[str, Meta(max_length=LONGEST_NUMBER)] | int | float,
        "traceparent": Annotated[str, Meta(max_length=limits.max_field_length)],
        "field": Annotated[str, Meta(max_length=limits.max_field_length)] | integer,
    }


def valid_traceparents(column: list[str | None]) -> list[str | None]:
    """Keep W3C trace parents; anything else becomes None, for a bad trace must not cost a transaction its decision."""
    if column.count(None) == len(column):
        return column
    return [text if text and _TRACEPARENT.fullmatch(text) else None for text in column]
