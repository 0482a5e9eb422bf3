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
FORMAT = re.compile(r",?(\.[0-9])?[fge%]?")


#: Says an amount of minor units for people.
Money = Callable[[float], str]
#: Says a value of one feature.
Saying = Callable[[float, Money], str]


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
        return self.saying(feature)(value, money)

    def saying(self, feature: str) -> Saying:
        """Return what says any value of the feature: the texts, which passed check_sentence, are taken apart once."""
        unknown = self.text_nan or f"nothing known yet for {feature.replace('_', ' ')}"
        usual = _saying(self.text)
        zero = _saying(self.text_zero) if self.text_zero else usual

        def say(value: float, money: Money) -> str:
            if math.isnan(value):
                return unknown
            return usual(value, money) if value else zero(value, money)

        return say


def _saying(text: str) -> Saying:
    """Return what puts a value into a text that holds it at most once."""
    parts = list(Formatter().parse(text))
    literals = [literal for literal, *_ in parts]
    at = next((i for i, (_, name, *_) in enumerate(parts) if name is not None), len(parts) - 1)
    head, tail = "".join(literals[: at + 1]), "".join(literals[at + 1 :])
    name, spec = parts[at][1:3] if parts else (None, None)
    if name is None:
        return lambda _value, _money: head
    if name == "money":
        return lambda value, money: f"{head}{money(value)}{tail}"
    return lambda value, _money: f"{head}{format(value, spec or '')}{tail}"


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
