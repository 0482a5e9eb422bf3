"""The people and the merchants of a simulation, and the payments between them as columns of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["COUNTRIES", "CURRENCIES", "EURO_RATES", "MCCS", "Payments", "World"]

# Country, share of people and merchants, currency, units of it for a euro.
_COUNTRIES: Final = (
    ("DE", 0.20, "EUR", 1.0),
    ("FR", 0.16, "EUR", 1.0),
    ("IT", 0.12, "EUR", 1.0),
    ("ES", 0.12, "EUR", 1.0),
    ("GB", 0.14, "GBP", 0.85),
    ("PL", 0.08, "PLN", 4.3),
    ("SE", 0.05, "SEK", 11.4),
    ("US", 0.06, "USD", 1.08),
    ("JP", 0.05, "JPY", 163.0),
    ("KW", 0.02, "KWD", 0.33),
)
COUNTRIES: Final = tuple(country for country, _, _, _ in _COUNTRIES)
CURRENCIES: Final = tuple(currency for _, _, currency, _ in _COUNTRIES)
EURO_RATES: Final = tuple(rate for _, _, _, rate in _COUNTRIES)
_SHARES: Final = np.array([share for _, share, _, _ in _COUNTRIES])

# Merchant category, share, usual price against a person's spending level, share of payments made online.
_CATEGORIES: Final = (
    ("5411", 0.28, 1.0, 0.05),  # groceries
    ("5812", 0.18, 0.9, 0.10),  # restaurants
    ("5541", 0.10, 1.6, 0.00),  # fuel
    ("5651", 0.10, 2.0, 0.45),  # clothing
    ("5732", 0.06, 5.0, 0.60),  # electronics
    ("5815", 0.12, 0.4, 1.00),  # digital goods
    ("5912", 0.08, 0.7, 0.10),  # pharmacies
    ("4511", 0.03, 8.0, 0.90),  # airlines
    ("7995", 0.05, 1.5, 1.00),  # betting
)
MCCS: Final = tuple(mcc for mcc, _, _, _ in _CATEGORIES)


@dataclass(slots=True)
class Payments:
    """Columns of n payments: time from the start (int64 ms), numbers of user, merchant and device (-1: none), euros.

    pattern: int8, 0 where genuine, else 1 + the index of the fraud pattern.
    """

    time_ms: NDArray[np.int64]
    user: NDArray[np.int64]
    merchant: NDArray[np.int64]
    device: NDArray[np.int64]
    euros: NDArray[np.float64]
    pattern: NDArray[np.int8]

    def rows(self, chosen: NDArray[np.int64]) -> Self:
        """Return the rows at these places."""
        return type(self)(*(getattr(self, column.name)[chosen] for column in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, one part after the other."""
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))


class World:
    """Who lives where, spends how much, and buys where; every attribute is a column over users or over merchants."""

    devices_each: Final = 3
    usual: Final = 8

    def __init__(self, rng: np.random.Generator, users: int, merchants: int, zipf: float) -> None:
        # Merchants stand in order of country, every country has some, and the first of a country are its busiest.
        self.merchant_country = np.sort(
            np.concatenate([np.arange(len(COUNTRIES)), _draw(rng, _SHARES, merchants - len(COUNTRIES))])
        )
        self._first = np.searchsorted(self.merchant_country, np.arange(len(COUNTRIES)))
        self._number = np.bincount(self.merchant_country, minlength=len(COUNTRIES))
        self.category = _draw(rng, np.array([share for _, share, _, _ in _CATEGORIES]), merchants)
        self.online_share = np.array([online for _, _, _, online in _CATEGORIES])[self.category]
        price = np.array([level for _, _, level, _ in _CATEGORIES])[self.category]
        self.price = price * rng.lognormal(0.0, 0.3, merchants)
        self.online_merchants = np.flatnonzero(self.online_share > 0.4)

        self.home = _draw(rng, _SHARES, users)
        self.spending = rng.lognormal(np.log(18.0), 0.6, users)
        self.device_count = 1 + rng.binomial(self.devices_each - 1, 0.3, users)
        self.peak_hour = np.where(rng.random(users) < 0.08, rng.normal(2, 1, users), rng.normal(15, 3, users)) % 24
        self.usual_merchants = np.stack([self.merchants_in(rng, self.home) for _ in range(self.usual)], axis=1)
        weights = rng.lognormal(0.0, 0.6, users)
        if zipf > 0:
            weights = rng.permutation(np.arange(1.0, users + 1.0) ** -zipf)
        self._share_until = np.cumsum(weights / weights.sum())

    def active_users(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw users, the active ones more often: int64[count]."""
        drawn = np.searchsorted(self._share_until, rng.random(count), side="right")
        return np.minimum(drawn, len(self._share_until) - 1)

    def merchants_in(self, rng: np.random.Generator, country: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw a merchant of each country given, the busy ones more often."""
        return self._first[country] + (rng.random(len(country)) ** 2 * self._number[country]).astype(np.int64)

    def merchants_abroad(self, rng: np.random.Generator, home: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw a merchant of another country than each one given."""
        return self.merchants_in(rng, (home + rng.integers(1, len(COUNTRIES), len(home))) % len(COUNTRIES))


def _draw(rng: np.random.Generator, shares: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return rng.choice(len(shares), count, p=shares / shares.sum()).astype(np.int64)
