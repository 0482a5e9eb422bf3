"""Amounts as integer minor units of their currency, exactly; optionally converted at fixed rates.

EUR 12.34 is 1234, JPY 500 is 500, KWD 1.234 is 1234. An amount with more decimals than its currency has is refused, not
rounded. A JSON number arrives as a binary double, so what it says is taken to be the nearest minor unit, if that is
nearer than 2^-20 of one (and, for large amounts, four units in the double's last place): 0.1 + 0.2 is 30 cents.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from state.events import AMOUNT_LIMIT_MINOR, currency_code
from stream.currencies import EXPONENTS

__all__ = ["BAD_AMOUNT", "DECIMAL_TEXT", "AmountReader", "major_units"]

#: Stands for a value that is no amount of its currency; outside every range that can be accepted.
BAD_AMOUNT: Final = 1 << 62

#: What an amount looks like as a text, as a regular expression that JSON Schema reads alike.
DECIMAL_TEXT: Final = r"(-?)([0-9]{1,18})(?:\.([0-9]{1,40}))?"

_DECIMAL: Final = re.compile(DECIMAL_TEXT)
_NOISE: Final = 2.0**-20
_RELATIVE_NOISE: Final = 2.0**-50


class AmountReader:
    """Reads amounts. ``base``: convert to this currency ("": do not); ``rates``: base units for one of another."""

    def __init__(self, base: str = "", rates: Mapping[str, Fraction] | None = None) -> None:
        self._base = base
        known = {base, *(rates or {})} if base else set(EXPONENTS)
        self._exponents = {currency: EXPONENTS[currency] for currency in known}
        self._codes = {currency: currency_code(base or currency) for currency in known}
        self._scales = {currency: float(10**exponent) for currency, exponent in self._exponents.items()}
        self._factors = {
            currency: (rate * Fraction(10) ** (EXPONENTS[base] - EXPONENTS[currency])).as_integer_ratio()
            for currency, rate in (rates or {}).items()
            if currency != base
        }

    @property
    def currencies(self) -> frozenset[str]:
        """The currencies that can be read; with a base currency, those that have a rate."""
        return frozenset(self._exponents)

    @property
    def unconverted(self) -> dict[str, int]:
        """The decimals of the currencies whose amounts stay as they are."""
        return {currency: places for currency, places in self._exponents.items() if currency not in self._factors}

    def column(
        self, amounts: Sequence[float | str], currencies: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """Return minor units, int64[n], BAD_AMOUNT where it is none; currency codes, uint16[n], 0 where unknown."""
        n = len(amounts)
        codes = np.fromiter(map(self._codes.get, currencies, [0] * n), np.uint16, n)
        if set(map(type, amounts)) != {float}:
            return np.fromiter(map(self.one, amounts, currencies), np.int64, n), codes
        scales = np.fromiter(map(self._scales.get, currencies, [0.0] * n), np.float64, n)
        numbers = np.array(amounts)
        # A number beyond every amount is cut to the first that is too large, so that nothing overflows.
        scaled = np.where(np.abs(numbers) < AMOUNT_LIMIT_MINOR, numbers, AMOUNT_LIMIT_MINOR) * scales
        minor = np.rint(scaled)
        good = (np.abs(scaled) < AMOUNT_LIMIT_MINOR) & (scales > 0)
        good &= np.abs(scaled - minor) <= _NOISE + np.abs(scaled) * _RELATIVE_NOISE
        minor[~good] = BAD_AMOUNT
        return self._converted(minor.astype(np.int64), currencies), codes

    def one(self, amount: float | str, currency: str) -> int:
        """Return minor units, or BAD_AMOUNT."""
        if currency not in self._exponents:
            return BAD_AMOUNT
        minor = self._of_text(amount, currency) if isinstance(amount, str) else self._of_number(amount, currency)
        return self._convert(minor, currency)

    def _of_number(self, amount: float, currency: str) -> int:
        scaled = amount * self._scales[currency]
        if not abs(scaled) < AMOUNT_LIMIT_MINOR:
            return BAD_AMOUNT
        minor = round(scaled)
        return minor if abs(scaled - minor) <= _NOISE + abs(scaled) * _RELATIVE_NOISE else BAD_AMOUNT

    def _of_text(self, amount: str, currency: str) -> int:
        found = _DECIMAL.fullmatch(amount)
        if found is None:
            return BAD_AMOUNT
        sign, whole, fraction = found.groups("")
        exponent = self._exponents[currency]
        if fraction[exponent:].strip("0"):
            return BAD_AMOUNT
        minor = int(whole + fraction[:exponent].ljust(exponent, "0"))
        return (-minor if sign else minor) if minor < AMOUNT_LIMIT_MINOR else BAD_AMOUNT

    def _converted(self, minor: NDArray[np.int64], currencies: Sequence[str]) -> NDArray[np.int64]:
        if self._base:
            for row, currency in enumerate(currencies):
                if currency != self._base:
                    minor[row] = self._convert(int(minor[row]), currency)
        return minor

    def _convert(self, minor: int, currency: str) -> int:
        """Multiply by the fixed rate, in integers; a half goes to the even neighbour."""
        if currency not in self._factors or minor == BAD_AMOUNT:
            return minor
        numerator, denominator = self._factors[currency]
        converted, rest = divmod(minor * numerator, denominator)
        converted += 2 * rest > denominator or (2 * rest == denominator and converted & 1)
        return converted if abs(converted) < AMOUNT_LIMIT_MINOR else BAD_AMOUNT


def major_units(minor: NDArray[np.int64], codes: NDArray[np.uint16]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return amounts in major units, float64[n], of minor units and currency codes [n]; and the currencies they are in.

    An amount of an unknown currency (code 0) stays in minor units.
    """
    names = {currency_code(currency): currency for currency in EXPONENTS}
    met, place = np.unique(codes, return_inverse=True)
    currencies = [names.get(int(code), "") for code in met]
    scales = np.array([10.0 ** EXPONENTS.get(currency, 0) for currency in currencies])
    return minor / scales[place], tuple(sorted(filter(None, currencies)))
