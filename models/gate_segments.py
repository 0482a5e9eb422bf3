"""Gates on fairness: nobody's honest payments are held much more often than the others'.

    ratio = (share of a segment's honest events that are held) / (share of all honest events that are held)

What must keep the bound is the lower end of the ratio's 95 % interval: a ratio that chance explains fails nobody. The
interval goes by users, whose payments are held together; it is that of the ratio's logarithm, linear in their sums.

A segment too small for its share to mean anything is named as not judged. Where all are, so is the gate: neither passed
nor failed, and somebody has to say that it may be so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.gate import NORMAL_95, Bounds, Gate
from models.holdout import Holdout
from models.sentences import in_major_units

# With fewer false positives to be expected in a segment, a ratio of 2 is nothing unusual.
MIN_EXPECTED = 5.0

AMOUNT_BANDS = 4
UNKNOWN = "unknown"
NAMED = 20


def segment_gates(holdout: Holdout, held: npt.NDArray[np.bool_], bounds: Bounds) -> list[Gate]:
    """Return one gate for each way to divide the holdout, given whether each event bool[n] is held."""
    honest = np.asarray(holdout.labels) == 0
    users = np.unique(np.asarray(holdout.user_ids, dtype=str)[honest], return_inverse=True)[1]
    dimensions = (
        ("country", _known(holdout.countries), bounds.max_false_positive_ratio),
        ("channel", _known(holdout.channels), bounds.max_false_positive_ratio),
        ("amount band", amount_bands(holdout.amount_minor), bounds.max_amount_false_positive_ratio),
    )
    return [_gate(name, segment[honest], held[honest], users, most, bounds) for name, segment, most in dimensions]


@dataclass(frozen=True, slots=True)
class _Ratio:
    """How many times as often as all a segment is held, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def _gate(
    name: str,
    segment: npt.NDArray[Any],
    held: npt.NDArray[np.bool_],
    users: npt.NDArray[np.int64],
    most: float,
    bounds: Bounds,
) -> Gate:
    title = f"false positives by {name}"
    labels, place, events = np.unique(segment, return_inverse=True, return_counts=True)
    expected = events * (held.mean() if len(held) else 0.0)
    large = (events >= bounds.min_segment_honest) & (expected >= MIN_EXPECTED)
    judged = {str(labels[at]): _ratio(place == at, held, users) for at in np.flatnonzero(large)}
    small = [str(label) for label in labels[~large]]
    notes = [f"not judged, too small: {_named(small)}"] if small else []
    if not judged:
        note = "; ".join(["no segment is large enough", *notes])
        return Gate(name=title, value=None, at_most=most, note=note, unjudged=True)
    worst = max(judged, key=lambda label: judged[label].low)
    found = judged[worst]
    highest = f"highest: {worst}, {found.value:.2f} times as often, 95 % interval {found.low:.2f} to {found.high:.2f}"
    return Gate(name=title, value=found.low, at_most=most, note="; ".join([highest, *notes]))


def _ratio(inside: npt.NDArray[np.bool_], held: npt.NDArray[np.bool_], users: npt.NDArray[np.int64]) -> _Ratio:
    """Return the ratio of a segment, given of each honest event whether it lies inside and is held, and its user."""
    caught = int((inside & held).sum())
    ratio = caught / int(inside.sum()) / held.mean()
    if not caught:
        return _Ratio(0.0, 0.0, 0.0)
    # What each user adds to the logarithm of (caught / inside) / (held / all).
    parts = ((inside & held, 1.0), (inside, -1.0), (held, -1.0), (np.ones(len(held), np.bool_), 1.0))
    each = sum(sign * np.bincount(users, weights=rows) / rows.sum() for rows, sign in parts)
    error = math.exp(NORMAL_95 * math.sqrt(float((np.asarray(each) ** 2).sum())))
    return _Ratio(float(ratio), float(ratio / error), float(ratio * error))


def amount_bands(amount_minor: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    """Return for each amount int64[n] (minor units) the name of the quarter of all amounts that it lies in."""
    inner = np.arange(1, AMOUNT_BANDS) / AMOUNT_BANDS
    edges = np.unique(np.quantile(amount_minor, inner, method="lower")) if len(amount_minor) else np.zeros(0, np.int64)
    names = [f"up to {in_major_units(edge)}" for edge in edges.tolist()]
    names.append(f"above {in_major_units(edges[-1].item())}" if len(edges) else "all")
    return np.array(names)[np.searchsorted(edges, amount_minor, side="left")]


def _known(values: Sequence[str] | npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    named = np.array(values, dtype=str)
    return np.where(named == "", UNKNOWN, named)


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return ", ".join(labels[:NAMED]) + more
