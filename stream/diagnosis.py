"""Why a record is no transaction: the rules one by one, in a fixed order, so that each refusal has one name.

Order: value, size, UTF-8, JSON, types and lengths, required fields, currency, amount, event time, key.
"""

import re
from typing import Any, Final

import msgspec

from stream.currencies import EXPONENTS
from stream.deadletter import DeadLetter, MessageLike
from stream.mapping import REQUIRED, Limits, Mapping
from stream.money import BAD_AMOUNT, AmountReader
from stream.times import BAD_TIME, TimeReader
from stream.transaction import MAX_NESTING, Layout, nested_too_deeply

__all__ = ["LATEST_EVENT_TIME_MS", "Diagnosis"]

#: The year 10000: what RFC 3339 cannot write is no event time.
LATEST_EVENT_TIME_MS: Final = 253_402_300_800_000

_PATH: Final = re.compile(r" - at `\$\.(?P<name>.*)`$", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>.*)`", re.DOTALL)
_EXPECTED: Final = {
    "amount": "must be a number, or a decimal number as text",
    "currency": "must be a text",
    "event_time": "must be an RFC 3339 text or a number",
    "traceparent": "must be a text",
}
_EXPECTED_ID: Final = "must be a text or a 64-bit whole number"


class Diagnosis:
    """Turns a refused record into its dead letter. Never raises."""

    def __init__(
        self, mapping: Mapping, limits: Limits, layout: Layout, times: TimeReader, amounts: AmountReader
    ) -> None:
        self._mapping, self._limits, self._layout = mapping, limits, layout
        self._times, self._amounts = times, amounts
        self._parse = msgspec.json.Decoder(layout.type).decode
        self._ours = {theirs: ours for ours in reversed(mapping.read) for theirs in mapping.names(ours)}

    def __call__(self, message: MessageLike) -> DeadLetter:
        """Name the first rule the record breaks."""
        return DeadLetter(message, *self._find(message))

    def _find(self, message: MessageLike) -> tuple[str, str, str]:
        value = message.value()
        if not value:
            return "empty_value", "", "the record has no value"
        if len(value) > self._limits.max_value_bytes:
            return "too_large", "", f"the value has more than {self._limits.max_value_bytes} bytes"
        if nested_too_deeply(value):
            return "too_deep", "", f"the value is nested deeper than {MAX_NESTING} levels"
        try:
            value.decode()
            parsed = self._parse(value)
        except UnicodeDecodeError:
            return "invalid_utf8", "", "the value is not UTF-8 text"
        except RecursionError:
            return "too_deep", "", "the value is nested too deeply"
        except msgspec.ValidationError as error:
            return self._mistyped(str(error))
        except msgspec.DecodeError:
            return "invalid_json", "", "the value is not one JSON document"
        return self._rules(message, self._layout.row(parsed))

    def _mistyped(self, said: str) -> tuple[str, str, str]:
        """Turn the parser's words, which never quote a value, into one of our classes."""
        if found := _MISSING.match(said):
            return "missing_field", found["name"], self._named(found["name"], "is missing")
        found = _PATH.search(said)
        if found is None:
            return "wrong_type", "", "the value is not a JSON object"
        theirs = found["name"]
        ours = self._ours.get(theirs, "")
        if "of length <=" in said:
            most = re.search(r"of length <= (\d+)", said)
            return "too_long", theirs, self._named(theirs, f"is longer than {most[1] if most else 0} characters")
        if "out of range" in said or "`int` <=" in said or "`int` >=" in said:
            return "out_of_range", theirs, self._named(theirs, "is too large a number")
        if "got `null`" in said:
            return "missing_field", theirs, self._named(theirs, "is null")
        return "wrong_type", theirs, self._named(theirs, _EXPECTED.get(ours, _EXPECTED_ID))

    def _rules(self, message: MessageLike, row: dict[str, Any]) -> tuple[str, str, str]:
        for ours in REQUIRED:
            if row[ours] is None or row[ours] == "":
                return self._about("missing_field", ours, "is missing or empty")
        currency = row["currency"]
        if currency not in self._amounts.currencies:
            rate = f"has no rate to {self._mapping.base_currency} in the settings"
            return self._about(
                "unknown_currency",
                "currency",
                rate if currency in EXPONENTS else "must be an ISO 4217 currency in capitals",
            )
        if (broken := self._amount(row["amount"], currency)) is not None:
            return broken
        if (broken := self._time(row["event_time"], message.timestamp()[1])) is not None:
            return broken
        if message.key() is None:
            return self._about("key_mismatch", "user_id", "must be the record's key, and the record has no key")
        return self._about("key_mismatch", "user_id", "must be the record's key, byte for byte")

    def _amount(self, amount: float | str, currency: str) -> tuple[str, str, str] | None:
        minor, limits = self._amounts.one(amount, currency), self._limits
        if minor == BAD_AMOUNT:
            places = f"must be a decimal number that {currency} can hold, with at most {EXPONENTS[currency]} decimals"
            return self._about("out_of_range" if _is_number(amount) else "wrong_type", "amount", places)
        if not limits.amount_min <= minor <= limits.amount_max:
            span = f"must lie between {limits.amount_min} and {limits.amount_max} in minor units"
            return self._about("out_of_range", "amount", span)
        return None

    def _time(self, event_time: str | float, timestamp_ms: int) -> tuple[str, str, str] | None:
        at_ms, limits = self._times.one(event_time), self._limits
        if at_ms == BAD_TIME and isinstance(event_time, str):
            zoned = "" if self._mapping.naive_time_zone else " with an offset"
            return self._about("wrong_type", "event_time", f"must be an RFC 3339 date and time{zoned}")
        if not limits.min_event_time_ms <= at_ms < LATEST_EVENT_TIME_MS:
            unit = "" if isinstance(event_time, str) else f" (numbers are read in {self._mapping.event_time_unit})"
            return self._about("out_of_range", "event_time", f"is before the earliest or after the latest time{unit}")
        if at_ms - limits.max_ahead_ms > timestamp_ms:
            ahead = f"lies more than {limits.max_ahead_ms} ms past the record's own timestamp"
            return self._about("too_far_ahead", "event_time", ahead)
        return None

    def _about(self, error: str, ours: str, detail: str) -> tuple[str, str, str]:
        theirs = " / ".join(self._mapping.names(ours))
        return error, theirs, self._named(theirs, detail, ours)

    def _named(self, theirs: str, detail: str, ours: str = "") -> str:
        """Add our own name of the field where it is not the sender's."""
        ours = ours or self._ours.get(theirs, theirs)
        return detail if ours == theirs else f"(our {ours}) {detail}"


def _is_number(amount: float | str) -> bool:
    """Whether it is, or says, a decimal number, however large or fine."""
    return not isinstance(amount, str) or re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", amount) is not None
