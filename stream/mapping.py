"""Which of the user's field names stands for which of ours, and how their values are to be read."""

import json
import zoneinfo
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from stream.currencies import EXPONENTS
from stream.nearest import did_you_mean

__all__ = ["DECODING_VERSION", "OPTIONAL", "REQUIRED", "SEGMENTS", "Limits", "Mapping", "MappingError"]

#: Raised whenever the same bytes would be read as something else than before: it enters the state hash.
DECODING_VERSION: Final = 1

REQUIRED: Final = ("transaction_id", "user_id", "amount", "currency", "event_time")
OPTIONAL: Final = ("merchant_id", "mcc", "country", "channel", "device_id", "terminal_id", "traceparent")
#: What decisions may be told apart by, besides kept fields of the user's own. A device belongs to a person.
SEGMENTS: Final = ("country", "channel", "mcc", "currency", "merchant_id", "terminal_id")
_IDS: Final = ("transaction_id", "user_id", *OPTIONAL)


class MappingError(ValueError):
    """A mapping that cannot work; ``key`` is the setting at fault and ``what`` completes "KEY ..."."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{key} {what}")
        self.key = key
        self.what = what


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sane transaction looks like. Amounts in minor units, lengths in characters, times in ms."""

    amount_min: int = 0
    amount_max: int = 1_000_000_000_000
    max_id_length: int = 128
    max_field_length: int = 256
    max_ahead_ms: int = 3_600_000
    min_event_time_ms: int = 631_152_000_000
    max_value_bytes: int = 1 << 20


@dataclass(frozen=True)
class Mapping:
    """How a user's own transactions are read.

    fields: our name to the user's names, the first present one counts; a name of ours not listed is the user's too.
    kept: the fields that state keeps, in order; each is one of OPTIONAL or has an entry in ``fields``.
    rates: units of the base currency for one unit of another, exact.
    segment: the field that stands in the decision as its segment; empty: none.
    """

    kept: tuple[str, ...] = ("merchant_id", "country", "device_id")
    fields: Table[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Table[str, str] = field(default_factory=dict)
    event_time_unit: str = "ms"
    naive_time_zone: str = ""
    base_currency: str = ""
    rates: Table[str, Fraction] = field(default_factory=dict)
    segment: str = "country"

    def __post_init__(self) -> None:
        _check_names(self)
        _check_segment(self)
        _check_shared_names(self)
        _check_values(self)

    def names(self, ours: str) -> tuple[str, ...]:
        """Return the user's names for a field of ours, in order of preference."""
        return self.fields.get(ours, (ours,))

    @property
    def read(self) -> tuple[str, ...]:
        """The fields of ours that are read from a message, each once."""
        segment = (self.segment,) if self.segment else ()
        return tuple(dict.fromkeys((*REQUIRED, *self.kept, *segment, "traceparent")))

    @property
    def decoding(self) -> str:
        """A canonical text of all that decides how bytes become an event; it enters the state hash.

        Limits stay out of it: they decide which records are dead letters, not what an accepted one means. So does the
        segment, which no window sees.
        """
        read = list(dict.fromkeys((*REQUIRED, *self.kept)))
        return json.dumps(
            {
                "version": DECODING_VERSION,
                "fields": {ours: self.names(ours) for ours in read},
                "defaults": {ours: text for ours, text in sorted(self.defaults.items()) if ours in read},
                "event_time_unit": self.event_time_unit,
                "naive_time_zone": self.naive_time_zone,
                "base_currency": self.base_currency,
                "rates": {currency: str(rate) for currency, rate in sorted(self.rates.items())},
            },
            separators=(",", ":"),
        )


def _check_names(mapping: Mapping) -> None:
    known = (*REQUIRED, *OPTIONAL)
    own = (*mapping.kept, mapping.segment)
    for ours, theirs in mapping.fields.items():
        if ours not in known and ours not in own:
            raise MappingError(f"codec.fields.{ours}", f"names no field of ours{did_you_mean(ours, known)}")
        if not theirs or not all(theirs) or len(set(theirs)) < len(theirs):
            raise MappingError(f"codec.fields.{ours}", "must be a name of yours, or a list of different ones")
    if len(set(mapping.kept)) < len(mapping.kept):
        raise MappingError("state.fields", "names a field twice")
    for ours in mapping.kept:
        if ours in (*REQUIRED, "traceparent") or (ours not in OPTIONAL and ours not in mapping.fields):
            raise MappingError(
                "state.fields",
                f"cannot keep {ours}: name one of {', '.join(OPTIONAL[:-1])}, or a field of yours under codec.fields",
            )
    for ours in mapping.defaults:
        if ours in ("transaction_id", "user_id", "amount", "event_time", "traceparent") or (
            ours not in known and ours not in own
        ):
            may = ("currency", *OPTIONAL[:-1])
            raise MappingError(f"codec.defaults.{ours}", f"cannot have a default{did_you_mean(ours, may)}")


def _check_segment(mapping: Mapping) -> None:
    segment = mapping.segment
    own = segment in mapping.fields and segment not in (*REQUIRED, *OPTIONAL)
    if segment and segment not in SEGMENTS and not own:
        raise MappingError(
            "telemetry.segment",
            f'cannot be "{segment}": name one of {", ".join(SEGMENTS)}, or a field of yours under codec.fields',
        )


def _check_shared_names(mapping: Mapping) -> None:
    """One field of the user's may serve two of ours only where both are read as ids."""
    owner: dict[str, str] = {}
    for ours in mapping.read:
        for theirs in mapping.names(ours):
            other = owner.setdefault(theirs, ours)
            ids = all(name in _IDS or name in (*mapping.kept, mapping.segment) for name in (ours, other))
            if other != ours and (not ids or "traceparent" in (ours, other)):
                raise MappingError(f"codec.fields.{ours}", f'and codec.fields.{other} both read "{theirs}"')


def _check_values(mapping: Mapping) -> None:
    _check_currency("codec.defaults.currency", mapping.defaults.get("currency", ""))
    _check_currency("codec.base_currency", mapping.base_currency)
    if mapping.rates and not mapping.base_currency:
        raise MappingError("codec.rates", "needs codec.base_currency, the currency that amounts are converted to")
    for currency, rate in mapping.rates.items():
        _check_currency(f"codec.rates.{currency}", currency)
        if rate <= 0:
            raise MappingError(f"codec.rates.{currency}", "must be above 0")
        if currency == mapping.base_currency and rate != 1:
            raise MappingError(f"codec.rates.{currency}", "must be left out: it is the base currency itself")
    if mapping.event_time_unit not in ("ms", "s", "us"):
        raise MappingError("codec.event_time_unit", 'must be one of "ms", "s", "us"')
    if mapping.naive_time_zone:
        try:
            zoneinfo.ZoneInfo(mapping.naive_time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise MappingError(
                "codec.naive_time_zone", 'must be a time zone of this system such as "UTC" or "Europe/Paris"'
            ) from None


def _check_currency(key: str, currency: str) -> None:
    if currency and currency not in EXPONENTS:
        raise MappingError(key, f"must be an ISO 4217 currency{did_you_mean(currency, EXPONENTS)}")
