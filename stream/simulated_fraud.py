"""How thieves use cards. Each pattern is a function that draws whole episodes at once, as columns."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.simulated_world import Payments, World

__all__ = ["NEW_PATTERN", "PATTERNS", "commit_fraud", "remote_access"]

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

Ints = NDArray[np.int64]


class _Episodes:
    """Episodes of several payments each, as one column: which episode a row belongs to, and its place in there."""

    def __init__(self, rng: np.random.Generator, sizes: Ints) -> None:
        self.sizes, self.number = sizes, len(sizes)
        self.rows = int(sizes.sum())
        self.episode = np.repeat(np.arange(self.number), sizes)
        first = np.cumsum(sizes) - sizes
        self.place = np.arange(self.rows) - first[self.episode]
        self._rng = rng

    def times(self, start_ms: Ints, shortest_ms: int, longest_ms: int) -> Ints:
        """Space an episode's payments by gaps between the two, the first one at its episode's start."""
        gaps = self._rng.integers(shortest_ms, longest_ms, self.rows)
        gaps[self.place == 0] = 0
        run: Ints = np.cumsum(gaps)
        since_start: Ints = run - run[self.place == 0][self.episode]
        return start_ms[self.episode] + since_start


def commit_fraud(rng: np.random.Generator, world: World, genuine: Payments, count: int, span_ms: int) -> Payments:
    """Return ``count`` fraudulent payments of all patterns, within the span."""
    parts = []
    left, shares = count, [share for _, share, _ in _PATTERNS]
    for index, (_, share, draw) in enumerate(_PATTERNS):
        wanted = left if index == len(_PATTERNS) - 1 else round(count * share / sum(shares))
        wanted = min(wanted, left)
        left -= wanted
        part = draw(rng, world, genuine, wanted, span_ms).rows(np.arange(wanted))
        late = part.time_ms >= span_ms
        part.time_ms[late] = rng.integers(span_ms - span_ms // 10 - 1, span_ms, int(late.sum()))
        part.pattern[:] = index + 1
        part.device = np.where(part.device >= 0, part.device + (index + 1) * 10_000_000, -1)
        parts.append(part)
    return Payments.joined(parts)


def _sizes(rng: np.random.Generator, wanted: int, fewest: int, most: int) -> Ints:
    """Draw as many episode sizes as give at least the payments wanted."""
    return rng.integers(fewest, most + 1, wanted // fewest + 1)


def _starts(rng: np.random.Generator, episodes: int, span_ms: int, length_ms: int) -> Ints:
    """Draw starts after people have had time to show their habits, early enough to end within the span."""
    earliest = span_ms // 10
    return rng.integers(earliest, max(earliest + 1, span_ms - length_ms), episodes)


def _payments(time_ms: Ints, user: Ints, merchant: Ints, device: Ints, euros: NDArray[np.float64]) -> Payments:
    return Payments(time_ms, user, merchant, device, euros, np.zeros(len(time_ms), np.int8))


def _card_testing(rng: np.random.Generator, world: World, _: Payments, wanted: int, span_ms: int) -> Payments:
    """A machine tries a stolen number with tiny amounts at one online shop, then one or two large ones."""
    episodes = _Episodes(rng, _sizes(rng, wanted, 8, 20))
    user = world.active_users(rng, episodes.number)[episodes.episode]
    shop = rng.choice(world.online_merchants, episodes.number)[episodes.episode]
    cash_in = episodes.place >= (episodes.sizes - rng.integers(1, 3, episodes.number))[episodes.episode]
    merchant = np.where(cash_in, rng.choice(world.online_merchants, episodes.rows), shop)
    euros = np.where(cash_in, rng.uniform(80, 500, episodes.rows), rng.uniform(0.3, 2.5, episodes.rows))
    start_ms = _starts(rng, episodes.number, span_ms, HOUR_MS)
    return _payments(episodes.times(start_ms, 3_000, 90_000), user, merchant, episodes.episode, euros)


def _account_takeover(rng: np.random.Generator, world: World, _: Payments, wanted: int, span_ms: int) -> Payments:
    """Somebody abroad signs in from a new device and buys dear things within a few hours."""
    episodes = _Episodes(rng, _sizes(rng, wanted, 2, 6))
    user = world.active_users(rng, episodes.number)[episodes.episode]
    merchant = world.merchants_abroad(rng, world.home[user])
    euros = world.spending[user] * rng.uniform(4, 14, episodes.rows)
    start_ms = _starts(rng, episodes.number, span_ms, 5 * HOUR_MS)
    times = episodes.times(start_ms, 4 * MINUTE_MS, 50 * MINUTE_MS)
    return _payments(times, user, merchant, episodes.episode, euros)


def _stolen_card(rng: np.random.Generator, world: World, _: Payments, wanted: int, span_ms: int) -> Payments:
    """A thief pays with the card itself, near its owner's home, in shops the owner does not know."""
    episodes = _Episodes(rng, _sizes(rng, wanted, 4, 9))
    user = world.active_users(rng, episodes.number)[episodes.episode]
    merchant = world.merchants_in(rng, world.home[user])
    euros = world.spending[user] * world.price[merchant] * rng.uniform(1.2, 4.0, episodes.rows)
    start_ms = _starts(rng, episodes.number, span_ms, 6 * HOUR_MS)
    times = episodes.times(start_ms, 6 * MINUTE_MS, 45 * MINUTE_MS)
    return _payments(times, user, merchant, np.full(episodes.rows, -1), euros)


def _skimming(rng: np.random.Generator, world: World, genuine: Payments, wanted: int, span_ms: int) -> Payments:
    """A terminal copies cards for weeks; each copy is used a few times, slowly, abroad, for ordinary amounts."""
    episodes = _Episodes(rng, _sizes(rng, wanted, 1, 3))
    if len(genuine.merchant) == 0:
        return _stolen_card(rng, world, genuine, wanted, span_ms)
    skimmed = genuine.merchant[rng.integers(0, len(genuine.merchant), 3)]
    visits = np.flatnonzero(np.isin(genuine.merchant, skimmed))
    visit = rng.choice(visits, episodes.number)
    user = genuine.user[visit][episodes.episode]
    merchant = world.merchants_abroad(rng, world.home[user])
    euros = world.spending[user] * world.price[merchant] * rng.uniform(0.8, 2.5, episodes.rows)
    start_ms = np.minimum(genuine.time_ms[visit] + rng.integers(DAY_MS // 4, 6 * DAY_MS, episodes.number), span_ms - 1)
    times = episodes.times(start_ms, 6 * HOUR_MS, 60 * HOUR_MS)
    return _payments(times, user, merchant, np.full(episodes.rows, -1), euros)


_Draw = Callable[[np.random.Generator, World, Payments, int, int], Payments]
_PATTERNS: Final[tuple[tuple[str, float, _Draw], ...]] = (
    ("card_testing", 0.35, _card_testing),
    ("account_takeover", 0.25, _account_takeover),
    ("stolen_card", 0.25, _stolen_card),
    ("skimming", 0.15, _skimming),
)

#: Names of the patterns, in the order of their numbers from 1.
PATTERNS: Final = tuple(name for name, _, _ in _PATTERNS)

#: The pattern that is there only as a drift: no model has learned from it. Its number is the one after PATTERNS.
NEW_PATTERN: Final = "remote_access"


def remote_access(rng: np.random.Generator, world: World, wanted: int, from_ms: int, span_ms: int) -> Payments:
    """Return payments by malware on people's own devices: at their usual shops, for usual sums, but hour after hour.

    Nothing that gives the other patterns away is there: no strange device, no country abroad, no tiny amounts.
    """
    episodes = _Episodes(rng, _sizes(rng, wanted, 4, 10))
    user = world.active_users(rng, episodes.number)[episodes.episode]
    merchant = world.usual_merchants[user, rng.integers(0, world.usual, episodes.rows)]
    device = user * world.devices_each + rng.integers(0, world.device_count[user])
    euros = world.spending[user] * world.price[merchant] * rng.uniform(0.8, 2.0, episodes.rows)
    longest_ms = 10 * 2 * HOUR_MS
    start_ms = rng.integers(from_ms, max(from_ms + 1, span_ms - longest_ms), episodes.number)
    times = episodes.times(start_ms, 20 * MINUTE_MS, 2 * HOUR_MS)
    late = times >= span_ms
    times[late] = rng.integers(min(from_ms, span_ms - 1), span_ms, int(late.sum()))
    found = Payments(times, user, merchant, device, euros, np.full(episodes.rows, len(PATTERNS) + 1, np.int8))
    return found.rows(np.arange(wanted))
