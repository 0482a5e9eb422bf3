"""Simulated cardholders: what people pay, and what thieves pay with their cards. Seeded, so a seed is a data set.

Every cardholder has a home country and its currency, a spending level, usual merchants, one to three devices and hours
of the day; some travel, change devices or buy something large, so that no single sign gives fraud away. Merchants have
a category, a country and their own idea of a price. Fraud comes in episodes; its patterns stand in simulated_fraud.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream.currencies import EXPONENTS
from stream.errors import UsageError
from stream.file_rows import Row, parquet_rows
from stream.mapping import Mapping
from stream.simulated_drift import Drift, drift_payments, drift_table
from stream.simulated_fraud import NEW_PATTERN, PATTERNS, commit_fraud
from stream.simulated_world import COUNTRIES, CURRENCIES, EURO_RATES, MCCS, Payments, World

__all__ = ["LABEL_COLUMNS", "Simulation", "simulate", "transactions"]

#: Columns of the simulated table that say what really happened; they are no part of a transaction.
LABEL_COLUMNS: Final = ("is_fraud", "fraud_pattern")

DAY_MS: Final = 86_400_000

#: At weekends, where they differ at all, people spend so many times as much on a payment.
WEEKEND_SPENDING: Final = 1.1
#: 1970-01-01 was a Thursday; counted from a Monday its number is 3.
EPOCH_WEEKDAY: Final = 3
SATURDAY: Final = 5


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to simulate. zipf: 0 for people of similar activity, else the exponent of a Zipf law over cardholders.

    weekend: how many times the payments of another day a Saturday and a Sunday have; 1: days are alike. drifts: what
    changes from some day on.
    """

    events: int = 100_000
    users: int = 1_000
    merchants: int = 500
    days: float = 30.0
    start_ms: int = 1_704_067_200_000  # 2024-01-01
    fraud_rate: float = 0.01
    zipf: float = 0.0
    seed: int = 1
    weekend: float = 1.0
    drifts: tuple[Drift, ...] = ()

    def __post_init__(self) -> None:
        if min(self.events, self.users) < 1 or self.merchants < len(COUNTRIES):
            raise UsageError(f"a simulation needs an event, a user and at least {len(COUNTRIES)} merchants")
        if not 0 <= self.fraud_rate <= 0.5 or self.days <= 0 or self.zipf < 0 or self.seed < 0:
            raise UsageError("a simulation needs a fraud rate of 0 to 0.5, days above 0, and no negative zipf or seed")
        if not 0 < self.weekend < float("inf"):
            raise UsageError("a simulation needs weekends with a share of payments above 0")

    @property
    def span_ms(self) -> int:
        """The time covered."""
        return int(self.days * DAY_MS)


def simulate(simulation: Simulation) -> pa.Table:
    """Return the payments in order of time, ``simulation.events`` rows.

    Columns: those of a transaction under our own names (event_time: timestamp[ms, UTC]), is_fraud (bool) and
    fraud_pattern (text, null where genuine).
    """
    rng = np.random.default_rng(simulation.seed)
    world = World(rng, simulation.users, simulation.merchants, simulation.zipf)
    span_ms = simulation.span_ms
    frauds = round(simulation.events * simulation.fraud_rate)
    genuine = _genuine(rng, world, simulation.events - frauds, simulation)
    payments = Payments.joined([genuine, commit_fraud(rng, world, genuine, frauds, span_ms)])
    payments = drift_payments(simulation.seed, world, payments, simulation.drifts, span_ms)
    payments = payments.rows(np.argsort(payments.time_ms, kind="stable"))
    table = _table(simulation, world, payments)
    return drift_table(simulation.seed, table, simulation.drifts, payments.time_ms, span_ms)


def transactions(table: pa.Table, batch: int = 8_192) -> Iterator[list[Row]]:
    """Yield the table as Kafka records, (key, JSON bytes), without the labels."""
    mapping = Mapping()
    for chunk in table.drop_columns(list(LABEL_COLUMNS)).to_batches(batch):
        yield parquet_rows(chunk, mapping)


def _genuine(rng: np.random.Generator, world: World, count: int, simulation: Simulation) -> Payments:
    user = world.active_users(rng, count)
    merchant = world.usual_merchants[user, rng.integers(0, world.usual_merchants.shape[1], count)]
    elsewhere = rng.random(count) < 0.12
    merchant[elsewhere] = world.merchants_in(rng, world.home[user[elsewhere]])
    away = rng.random(count) < 0.02
    merchant[away] = rng.integers(0, len(world.merchant_country), int(away.sum()))
    online = rng.random(count) < world.online_share[merchant]
    device = user * world.devices_each + rng.integers(0, world.device_count[user])
    large = np.where(rng.random(count) < 0.01, rng.uniform(3, 10, count), 1.0)
    euros = world.spending[user] * world.price[merchant] * rng.lognormal(0.0, 0.5, count) * large
    time_ms = _waking_hours(rng, world.peak_hour[user], simulation)
    if simulation.weekend != 1:
        euros = np.where(_weekend(simulation, time_ms // DAY_MS), euros * WEEKEND_SPENDING, euros)
    return Payments(
        time_ms=time_ms,
        user=user,
        merchant=merchant,
        device=np.where(online, device, -1),
        euros=euros,
        pattern=np.zeros(count, np.int8),
    )


def _waking_hours(
    rng: np.random.Generator, peak_hour: NDArray[np.float64], simulation: Simulation
) -> NDArray[np.int64]:
    """Draw a day of the span for each payment, and a time of that day near its cardholder's usual hour."""
    count, span_ms = len(peak_hour), simulation.span_ms
    hour = np.where(rng.random(count) < 0.85, peak_hour + rng.normal(0, 3.0, count), rng.uniform(0, 24, count)) % 24
    days = max(1, round(span_ms / DAY_MS))
    if simulation.weekend == 1:
        day = rng.integers(0, days, count)
    else:
        shares = np.where(_weekend(simulation, np.arange(days)), simulation.weekend, 1.0)
        day = rng.choice(days, count, p=shares / shares.sum())
    time_ms = day * DAY_MS + (hour * 3_600_000).astype(np.int64)
    return np.where(time_ms < span_ms, time_ms, rng.integers(0, span_ms, count))


def _weekend(simulation: Simulation, day: NDArray[np.int64]) -> Any:
    """Return bool[n]: whether the n-th day of the simulation is a Saturday or a Sunday."""
    return (simulation.start_ms // DAY_MS + day + EPOCH_WEEKDAY) % 7 >= SATURDAY


def _table(simulation: Simulation, world: World, payments: Payments) -> pa.Table:
    merchant_country, home = world.merchant_country[payments.merchant], world.home[payments.user]
    decimals = np.array([EXPONENTS[currency] for currency in CURRENCIES])[home]
    amount = np.maximum(payments.euros * np.array(EURO_RATES)[home], 10.0**-decimals)
    online = payments.device >= 0
    pattern = pa.array(payments.pattern)
    names = pa.array([None, *PATTERNS, NEW_PATTERN], pa.string())
    return pa.table(
        {
            "transaction_id": _numbered(f"t{simulation.seed}-", np.arange(len(payments.time_ms)), 9),
            "user_id": _numbered("user-", payments.user, 7),
            "amount": pa.array(np.round(amount * 10.0**decimals) / 10.0**decimals),
            "currency": pa.array(CURRENCIES).take(pa.array(home)),
            "event_time": pa.array(payments.time_ms + simulation.start_ms).view(pa.timestamp("ms", "UTC")),
            "merchant_id": _numbered("m-", payments.merchant, 6),
            "mcc": pa.array(MCCS).take(pa.array(world.category[payments.merchant])),
            "country": pa.array(COUNTRIES).take(pa.array(merchant_country)),
            "channel": pa.array(["pos", "online"]).take(pa.array(online.astype(np.int8))),
            "device_id": _numbered("d-", payments.device, 8, online),
            "terminal_id": _numbered("pos-", payments.merchant, 6, ~online),
            "is_fraud": pa.array(payments.pattern > 0),
            "fraud_pattern": names.take(pattern),
        }
    )


def _numbered(
    prefix: str, numbers: NDArray[np.int64], digits: int, present: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return ids such as user-0000042; null where not present."""
    distinct, where = np.unique(numbers, return_inverse=True)
    names = pa.array([f"{prefix}{number:0{digits}d}" for number in distinct.tolist()], pa.string())
    return names.take(pa.array(where, mask=None if present is None else ~present))
