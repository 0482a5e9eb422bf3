"""The plain words of a reason, such as "{value:.0f} payments in the last hour" or "{money} spent today"."""

import math
import re
from collections.abc import Callable
from string import Formatter

import msgspec

from models.errors import BundleError

MAX_LENGTH = 200
# A bundle's sentence is data from elsewhere: only the value may stand in it, in a format that can do no harm
# (a width of a billion would).
MONEY = "{money}"
FORMAT = re.compile(r",?(\.[0-9])?[fge%]?")


#: Says an amount of minor units for people.
Money = Callable[[float], str]


def in_minor_units(minor: float) -> str:
    """Say an amount whose currency is not known."""
    return f"{minor:,.0f} in minor units"


def in_major_units(minor: float, decimals: int = 2, currency: str = "") -> str:
    """Say an amount of a currency with so many decimals; cents, where nothing else is known."""
    return f"{minor / 10**decimals:,.{decimals}f} {currency}".rstrip()


class Sentence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one feature is said: `text` with {value} or {money} in it, and other words, if any, for 0 and for NaN."""

    text: str
    text_zero: str = ""
    text_nan: str = ""

    def fill(self, feature: str, value: float, money: Money = in_minor_units) -> str:
        """Return the sentence for one value of the feature; money says it where it is an amount."""
        if math.isnan(value):
            return self.text_nan or f"nothing known yet for {feature.replace('_', ' ')}"
        text = self.text_zero if value == 0.0 and self.text_zero else self.text
        return text.format(money=money(value)) if MONEY in text else text.format(value=value)


def check_sentence(feature: str, sentence: Sentence) -> None:
    """Raise BundleError unless each text can be filled in with any number and stays short."""
    if _fields(feature, sentence.text_nan):
        raise BundleError(f"The sentence of feature {feature!r} for an unknown value must not hold a value.")
    for text in (sentence.text, sentence.text_zero, sentence.text_nan):
        fields = _fields(feature, text)
        if any(conversion or not _allowed(name, spec) for name, spec, conversion in fields):
            raise BundleError(
                f"The sentence of feature {feature!r} may hold only {{value}}, with a format such as {{value:.0f}}, "
                f"or {{money}}.",
            )
        if len(text) > MAX_LENGTH or len(fields) > 1 or not text.isprintable():
            raise BundleError(
                f"The sentence of feature {feature!r} must be one line of at most {MAX_LENGTH} characters "
                "with at most one value.",
            )


def _allowed(name: str, spec: str) -> bool:
    return (name == "value" and FORMAT.fullmatch(spec) is not None) or (name == "money" and not spec)


def _fields(feature: str, text: str) -> list[tuple[str, str, str | None]]:
    """Return name, format and conversion of each replacement field."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise BundleError(f"The sentence of feature {feature!r} is not well formed ({error}); correct it.") from error
    return [(name, spec or "", conversion) for _, name, spec, conversion in parts if name is not None]
