"""What may change in a simulated stream from some day on: the injected drifts that a watch is tried with.

    day       0              DAY                      days
              ├───────────────┼────────────────────────┤
    payments    as without it   changed as KIND says

Each drift draws from a generator of its own, so before its day every payment is, byte for byte, the one of the same
simulation without it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream.errors import UsageError
from stream.nearest import did_you_mean
from stream.simulated_fraud import remote_access
from stream.simulated_world import COUNTRIES, Payments, World

__all__ = ["KINDS", "Drift", "drift_payments", "drift_table", "read_drift"]

DAY_MS: Final = 86_400_000
WEEK_DAYS: Final = 7

#: Where few people and merchants are until the mix changes.
RARE_COUNTRIES: Final = ("US", "JP", "KW")

Changed = Callable[[np.random.Generator, World, Payments, "Drift", int], Payments]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a drift does, what its strength means, and which strengths there are: [least, most]."""

    does: str
    strength: float
    least: float
    most: float
    payments: Changed | None = None
    column: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """kind: a name of KINDS; day: from when on, counted from the simulation's start, None for the middle of it.

    strength: as the kind says. Raises UsageError.
    """

    kind: str
    strength: float
    day: float | None = None

    def __post_init__(self) -> None:
        kind = KINDS.get(self.kind)
        if kind is None:
            raise UsageError(f"there is no drift {self.kind}{did_you_mean(self.kind, list(KINDS))}")
        if not kind.least <= self.strength <= kind.most:
            raise UsageError(f"the drift {self.kind} takes a strength of {kind.least:g} to {kind.most:g}: {kind.does}")
        if self.day is not None and not 0 <= self.day < float("inf"):
            raise UsageError(f"the drift {self.kind} begins on a day from 0 on, not on day {self.day:g}")

    def start_ms(self, span_ms: int) -> int:
        """Return when it begins, in ms from the simulation's start."""
        return span_ms // 2 if self.day is None else round(self.day * DAY_MS)


def read_drift(text: str) -> Drift:
    """Read KIND[:STRENGTH][@DAY], such as inflation:1.5@20. Raises UsageError."""
    written = re.fullmatch(r"([^:@]+)(?::([^:@]+))?(?:@([^:@]+))?", text)
    try:
        name, strength, day = written.groups() if written else ("", "none", None)
        strong = float(strength) if strength is not None else KINDS[name].strength if name in KINDS else 0.0
        began = None if day is None else float(day)
    except ValueError:
        raise UsageError(f"a drift is written KIND[:STRENGTH][@DAY], such as inflation:1.5@20, not {text}") from None
    return Drift(name, strong, began)


def drift_payments(seed: int, world: World, payments: Payments, drifts: Sequence[Drift], span_ms: int) -> Payments:
    """Return the payments with what the drifts change of them; as many as there were, in any order."""
    for place, drift in enumerate(drifts):
        change = KINDS[drift.kind].payments
        if change is not None:
            rng = np.random.default_rng((seed, place, list(KINDS).index(drift.kind)))
            payments = change(rng, world, payments, drift, span_ms)
    return payments


def drift_table(seed: int, table: Any, drifts: Sequence[Drift], since_start_ms: NDArray[np.int64], span_ms: int) -> Any:
    """Return the table with what the drifts take out of its columns; since_start_ms int64[n] of each row."""
    for place, drift in enumerate(drifts):
        name = KINDS[drift.kind].column
        if name:
            rng = np.random.default_rng((seed, place, list(KINDS).index(drift.kind)))
            lost = (since_start_ms >= drift.start_ms(span_ms)) & (rng.random(len(since_start_ms)) < drift.strength)
            column = table.column(name).combine_chunks()
            kept = pa.array(np.arange(len(lost)), mask=lost)
            table = table.set_column(table.column_names.index(name), name, column.take(kept))
    return table


def _inflation(_: np.random.Generator, __: World, payments: Payments, drift: Drift, span_ms: int) -> Payments:
    after = payments.time_ms >= drift.start_ms(span_ms)
    payments.euros = np.where(after, payments.euros * drift.strength, payments.euros)
    return payments


def _trend(_: np.random.Generator, __: World, payments: Payments, drift: Drift, span_ms: int) -> Payments:
    weeks = np.maximum(payments.time_ms - drift.start_ms(span_ms), 0) / (WEEK_DAYS * DAY_MS)
    payments.euros = payments.euros * drift.strength**weeks
    return payments


def _countries(rng: np.random.Generator, world: World, payments: Payments, drift: Drift, span_ms: int) -> Payments:
    moved = (payments.time_ms >= drift.start_ms(span_ms)) & (rng.random(len(payments.time_ms)) < drift.strength)
    rare = np.array([COUNTRIES.index(country) for country in RARE_COUNTRIES])
    target = rng.choice(rare, int(moved.sum()))
    payments.merchant = payments.merchant.copy()
    payments.merchant[moved] = world.merchants_in(rng, target)
    return payments


def _new_fraud(rng: np.random.Generator, world: World, payments: Payments, drift: Drift, span_ms: int) -> Payments:
    """Thieves take the place of honest payments, so that there are as many events as without them."""
    start_ms = min(drift.start_ms(span_ms), span_ms)
    honest = np.flatnonzero((payments.time_ms >= start_ms) & (payments.pattern == 0))
    wanted = round(drift.strength * int((payments.time_ms >= start_ms).sum()))
    wanted = min(wanted, len(honest))
    gone = rng.choice(honest, wanted, replace=False)
    stays = np.ones(len(payments.time_ms), np.bool_)
    stays[gone] = False
    thieves = remote_access(rng, world, wanted, start_ms, span_ms)
    return Payments.joined([payments.rows(np.flatnonzero(stays)), thieves])


KINDS: Final[Mapping[str, Kind]] = {
    "inflation": Kind("amounts are STRENGTH times as high", 1.5, 0.01, 100, _inflation),
    "trend": Kind("amounts grow by the factor STRENGTH each week", 1.25, 0.1, 10, _trend),
    "countries": Kind("the share STRENGTH of payments moves to rare countries", 0.25, 0, 1, _countries),
    "fraud": Kind("a new kind of fraud makes up the share STRENGTH of payments", 0.01, 0, 0.5, _new_fraud),
    "no-device": Kind("the share STRENGTH of payments loses device_id", 1.0, 0, 1, column="device_id"),
    "no-country": Kind("the share STRENGTH of payments loses country", 1.0, 0, 1, column="country"),
}
