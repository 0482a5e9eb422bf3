"""Gates on fairness: nobody's honest payments are held much more often than the others'.

    ratio = (share of a segment's honest events that are held) / (share of all honest events that are held)

A segment too small for its share to mean anything is named as not judged. Where all are, so is the gate: neither passed
nor failed, and somebody has to say that it may be so.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.gate import Bounds, Gate
from models.holdout import Holdout
from models.sentences import in_major_units

# With fewer false positives to be expected in a segment, a ratio of 2 is nothing unusual.
MIN_EXPECTED = 5.0

AMOUNT_BANDS = 4
UNKNOWN = "unknown"
NAMED = 5


def segment_gates(holdout: Holdout, held: npt.NDArray[np.bool_], bounds: Bounds) -> list[Gate]:
    """Return one gate for each way to divide the holdout, given whether each event bool[n] is held."""
    honest = np.asarray(holdout.labels) == 0
    dimensions = (
        ("country", _known(holdout.countries), bounds.max_false_positive_ratio),
        ("channel", _known(holdout.channels), bounds.max_false_positive_ratio),
        ("amount band", amount_bands(holdout.amount_minor), bounds.max_amount_false_positive_ratio),
    )
    return [_gate(name, segment[honest], held[honest], most, bounds) for name, segment, most in dimensions]


def _gate(
    name: str,
    segment: npt.NDArray[Any],
    held: npt.NDArray[np.bool_],
    most: float,
    bounds: Bounds,
) -> Gate:
    title = f"false positives by {name}"
    overall = float(held.mean()) if len(held) else 0.0
    judged: dict[str, float] = {}
    small: list[str] = []
    for label, share, events in _shares(segment, held):
        if events < bounds.min_segment_honest or overall * events < MIN_EXPECTED:
            small.append(label)
        else:
            judged[label] = share / overall
    notes = [f"not judged, too small: {_named(small)}"] if small else []
    if not judged:
        note = "; ".join(["no segment is large enough", *notes])
        return Gate(name=title, value=None, at_most=most, note=note, unjudged=True)
    worst = max(judged, key=lambda label: judged[label])
    return Gate(name=title, value=judged[worst], at_most=most, note="; ".join([f"highest: {worst}", *notes]))


def _shares(segment: npt.NDArray[Any], held: npt.NDArray[np.bool_]) -> Iterator[tuple[str, float, int]]:
    labels, place = np.unique(segment, return_inverse=True)
    events = np.bincount(place, minlength=len(labels))
    caught = np.bincount(place, weights=held, minlength=len(labels))
    for label, number, some in zip(labels, events, caught, strict=True):
        yield str(label), float(some / number), int(number)


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
