"""What the window kernel would have made of a payment that came a little otherwise, from what it did make of it.

Nothing is remembered of the payments in a window but its features, and from these follows what the kernel would make

    of a payment without a field      first_seen is NaN; a value that no other payment had is one distinct value less
    where no payment has the field    first_seen is NaN, no value is distinct
    of a payment of another amount    by the windows' counts: sums move by the difference, means by its share, …

Where features leave something open, the row returned is one that the kernel makes of some history that fits them: a
value that other payments may have had stays among the distinct ones, and of a window whose count no feature says all
amounts are off alike.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from state.features import AMOUNT_AGGREGATES, FIELD_AGGREGATES, Feature, FeatureSet

__all__ = ["fields_of", "with_amounts", "without_field"]

Matrix = npt.NDArray[np.float32]
Column = npt.NDArray[np.float64]


def fields_of(feature_set: FeatureSet) -> list[str]:
    """Return the kept fields that features read, as first declared; amount and time are never missing."""
    read = (feature.field for feature in feature_set.features if feature.aggregate in FIELD_AGGREGATES)
    return list(dict.fromkeys(read))


def without_field(feature_set: FeatureSet, field: str, x: Matrix, *, ever: bool) -> Matrix:
    """Return features x float32[n, k] as they are of payments without a field; ever: of users who never have it."""
    gone = x.copy()
    for column, feature in enumerate(feature_set.features):
        if feature.field != field or feature.aggregate not in FIELD_AGGREGATES:
            continue
        if feature.aggregate == "first_seen":
            gone[:, column] = np.nan
        elif ever:
            gone[:, column] = 0.0
        else:
            gone[:, column] -= _new(feature_set, feature, x)
    return gone


def _new(feature_set: FeatureSet, distinct: Feature, x: Matrix) -> npt.NDArray[np.bool_]:
    """Return where no other payment in the window of `distinct` has this one's value, as far as features say so."""
    new = np.zeros(len(x), np.bool_)
    for column, other in enumerate(feature_set.features):
        longer = other.window_ms >= distinct.window_ms
        if other.aggregate == "first_seen" and other.field == distinct.field and longer:
            new |= x[:, column] == 1.0
    return new


def with_amounts(
    feature_set: FeatureSet, x: Matrix, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]
) -> Matrix:
    """Return features x float32[n, k] as they are of payments of the amounts `after` in place of `before`.

    Both int64[n], in minor units.
    """
    changed = x.astype(np.float64)
    places: dict[int, dict[str, list[int]]] = {}
    for column, feature in enumerate(feature_set.features):
        places.setdefault(feature.window_ms, {}).setdefault(feature.aggregate, []).append(column)
    paid, pays = before.astype(np.float64), after.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        for of_window in places.values():
            had = {aggregate: changed[:, columns[0]].copy() for aggregate, columns in of_window.items()}
            for aggregate in (name for name in AMOUNT_AGGREGATES if name in had):
                changed[:, of_window[aggregate]] = _with_amount(aggregate, had, paid, pays)[:, None]
    return changed.astype(np.float32)


def _with_amount(aggregate: str, had: Mapping[str, Column], paid: Column, pays: Column) -> Column:
    """Return an aggregate over a window, given what all of that window's were, once a payment of it is another one."""
    was, more = had[aggregate], pays - paid
    match aggregate:
        case "value":
            return pays
        case "sum":
            return was + more
        case "min" | "max":
            # What was the extreme by itself still is, as far as anybody can tell.
            kept = np.minimum(was, pays) if aggregate == "min" else np.maximum(was, pays)
            return np.where(was == paid.astype(np.float32), pays, kept)
    count, mean = _count_and_mean(had, paid)
    if count is None or mean is None:
        # All amounts of the window are off alike.
        return was if aggregate == "ratio" else was * np.where(paid == 0.0, 1.0, pays / paid)
    after = mean + more / count
    match aggregate:
        case "mean":
            changed = after
        case "ratio":
            changed = np.where(after == 0.0, np.nan, pays / after)
        case _:
            variance = was**2 + more * (paid + pays) / count - (after - mean) * (after + mean)
            changed = np.where(count == 1.0, 0.0, np.sqrt(np.maximum(variance, 0.0)))
    # A duplicate may stand in an empty window.
    return np.where(count >= 1.0, changed, was)


def _count_and_mean(had: Mapping[str, Column], paid: Column) -> tuple[Column | None, Column | None]:
    """Return how many payments a window holds and their mean amount, as far as its features say so."""
    count, total, mean = had.get("count"), had.get("sum"), had.get("mean")
    if count is None and total is not None and mean is not None:
        count = np.where(mean == 0.0, np.nan, np.round(total / mean))
    if mean is None and total is not None and count is not None:
        mean = total / count
    if mean is None and "ratio" in had:
        mean = paid / had["ratio"]
    return count, mean
