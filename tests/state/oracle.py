"""Windows by naive recomputation: the rules of `state.windows`, written for clarity and in plain Python numbers.

A user is a list of payments in (time, arrival) order. Every feature is computed afresh from that list.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from state.features import Feature, FeatureSet, StateSpec
from state.windows import Flag

NAN = math.nan


@dataclass(frozen=True, eq=False)
class Payment:
    time: int
    offset: int
    transaction: int
    amount: int
    currency: int
    values: tuple[int, ...]  # 0: missing

    def content(self):
        return self.time, self.amount, self.currency, self.values


@dataclass
class User:
    kept: list[Payment] = field(default_factory=list)
    floor: int | None = None
    applied: int = -1

    def drop(self, time):
        self.floor = time if self.floor is None else max(self.floor, time)


class Oracle:
    def __init__(self, spec: StateSpec, feature_set: FeatureSet):
        self.spec, self.feature_set, self.users = spec, feature_set, {}

    def observe(self, name: bytes, payment: Payment) -> tuple[np.ndarray | None, Flag]:
        user = self.users.setdefault(name, User())
        if payment.offset <= user.applied:
            return None, Flag.SKIPPED
        user.applied = payment.offset

        # Expire.
        horizon = max(p.time for p in [*user.kept, payment]) - self.spec.retention_ms
        while user.kept and user.kept[0].time <= horizon:
            user.drop(user.kept.pop(0).time)

        # Deduplicate, insert, truncate: `counted` is what windows count, `itself` the one that is no "other".
        same = next((p for p in user.kept if p.transaction == payment.transaction), None)
        at_cap = len(user.kept) == self.spec.max_events
        if same is not None:
            flags = Flag.DUPLICATE
            if same.content() != payment.content():
                flags |= Flag.CONFLICT
            counted, itself = user.kept, same
        elif (
            (user.floor is not None and payment.time <= user.floor)
            or payment.time <= horizon
            or (at_cap and payment.time < user.kept[0].time)
        ):
            flags = Flag.LATE
            user.drop(payment.time)
            counted, itself = [*user.kept, payment], payment
        else:
            flags = Flag(0)
            user.kept.append(payment)
            user.kept.sort(key=lambda p: p.time)  # stable: after all that are not later
            if len(user.kept) > self.spec.max_events:
                user.drop(user.kept.pop(0).time)
            counted, itself = user.kept, payment

        # Read.
        windows = [f.window_ms for f in self.feature_set.features if f.window_ms]
        if user.floor is not None and any(payment.time - window < user.floor for window in windows):
            flags |= Flag.TRUNCATED
        row = [self.feature(feature, payment, counted, itself) for feature in self.feature_set.features]
        return np.array(row, np.float32), flags

    def feature(self, feature: Feature, payment: Payment, counted: list[Payment], itself: Payment) -> float:
        inside = [p for p in counted if payment.time - feature.window_ms < p.time <= payment.time]
        others = [p for p in inside if p is not itself]
        amounts = [p.amount for p in inside]
        n, total = len(amounts), sum(amounts)
        place = self.spec.fields.index(feature.field) if feature.field in self.spec.fields else -1
        match feature.aggregate:
            case "value":
                return float(payment.amount)
            case "count":
                return float(n)
            case "sum":
                return float(total)
            case "mean":
                return float(total) / n if n else NAN
            case "std":
                return deviation(amounts) if n else NAN
            case "min":
                return float(min(amounts)) if n else NAN
            case "max":
                return float(max(amounts)) if n else NAN
            case "ratio":
                return float(payment.amount * n) / float(total) if total else NAN
            case "distinct":
                return float(len({p.values[place] for p in inside} - {0}))
            case "first_seen":
                if payment.values[place] == 0:
                    return NAN
                return float(all(p.values[place] != payment.values[place] for p in others))
            case "seconds_since_last":
                return (payment.time - max(p.time for p in others)) / 1000.0 if others else NAN
        raise AssertionError(feature.aggregate)


def deviation(amounts: list[int]) -> float:
    """The population standard deviation: n²·variance is an exact integer, of which one root is taken."""
    n = len(amounts)
    mean = Fraction(sum(amounts), n)
    variance = sum((amount - mean) ** 2 for amount in amounts) / n
    scaled = variance * n * n
    assert scaled.denominator == 1
    return math.sqrt(float(scaled.numerator)) / n
