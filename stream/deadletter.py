"""A record that is no transaction: which rule it broke, and the headers that say so beside the original bytes."""

from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["DEAD_LETTER_HEADERS", "ERRORS", "DeadLetter", "MessageLike"]

#: Every error class, with what it means.
ERRORS: Final = {
    "empty_value": "the record has no value (a tombstone) or an empty one",
    "too_large": "the record, or what would be written for it, is larger than allowed",
    "invalid_utf8": "the value is not UTF-8 text",
    "invalid_json": "the value is not one JSON document",
    "too_deep": "the value is nested too deeply to be read",
    "missing_field": "a required field is not there, null or empty",
    "wrong_type": "a field, or the whole value, is of another type than expected",
    "too_long": "a text is longer than the limit",
    "out_of_range": "a number or a time is outside the limits, or an amount has more decimals than its currency",
    "unknown_currency": "the currency is not in ISO 4217, or has no rate to the base currency",
    "too_far_ahead": "the event time lies further past the record's timestamp than the limit",
    "key_mismatch": "the record's key is not the user id, so the record may be on the wrong partition",
}

#: The headers of a dead letter, in order, with what each holds.
DEAD_LETTER_HEADERS: Final = {
    "error": "the error class",
    "field": "the field at fault, under its sender's own name; empty where it is the whole record",
    "message": "one sentence for a person; it names fields and expectations, never a value of the record",
    "source.topic": "the topic the record came from",
    "source.partition": "its partition there, decimal",
    "source.offset": "its offset there, decimal",
    "source.timestamp": "its timestamp there, epoch milliseconds, decimal",
}


class MessageLike(Protocol):
    """What is read of a record: confluent_kafka.Message has these methods, and so has a row of a file."""

    def topic(self) -> str | None:
        """Return the topic's name."""

    def partition(self) -> int:
        """Return the partition's number."""

    def offset(self) -> int:
        """Return the offset in the partition."""

    def timestamp(self) -> tuple[int, int]:
        """Return the timestamp's type (0: none) and epoch milliseconds."""

    def key(self) -> bytes | None:
        """Return the key as received."""

    def value(self) -> bytes | None:
        """Return the value as received."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused record. ``error`` is a key of ERRORS; ``detail`` is a clause about ``field``, or about the record."""

    message: MessageLike
    error: str
    field: str
    detail: str

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers to write beside the record's original key and value, in DEAD_LETTER_HEADERS' order."""
        message = self.message
        texts = (
            self.error,
            self.field,
            f"{self.field} {self.detail}" if self.field else self.detail,
            message.topic() or "",
            str(message.partition()),
            str(message.offset()),
            str(message.timestamp()[1]),
        )
        return [(name, text.encode()) for name, text in zip(DEAD_LETTER_HEADERS, texts, strict=True)]
