"""Rows of the uniform sample: which one the detectors are given, as ranks, and which are kept for a classifier.

A worker's sample has as many rows of a busy interval as of a quiet one, and so has a busy worker. One row is drawn for
all workers: first a record by its share of the events, then one of its rows. The draw is by a hash of the time, so
whoever reads the log again draws the same.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from stream.telemetry_record import Telemetry
from stream.watch_panes import SCORE, Layout

__all__ = ["KeptRows", "Ranks", "draw_row"]

NAN: Final = float("nan")


def draw_row(records: Sequence[Telemetry], layout: Layout, slot: int) -> tuple[list[float], bool] | None:
    """Return a row in the layout's order, NaN where missing, and whether it fits; None where there is none to draw.

    The columns of a sample stand in the order of the record's features. A row that fits nowhere is no row: the
    caller counts it.
    """
    sampled = [record for record in records if record.sample.features]
    total = sum(record.events for record in sampled)
    if not total:
        return None
    luck = xxhash.xxh3_64_intdigest(slot.to_bytes(8, "big", signed=True))
    target = luck % total
    for record in sampled:
        target -= record.events
        if target < 0:
            break
    sample = record.sample
    at = (luck >> 32) % len(sample.features)
    row = sample.features[at]
    if len(row) != len(record.features) or len(sample.scores) != len(sample.features):
        return [], False
    values = dict(zip(record.features, row, strict=True))
    values[SCORE] = sample.scores[at]
    return [NAN if (value := values.get(name)) is None else value for name in layout.names], True


class Ranks:
    """Where a value lies in the distribution expected, 0 to 1: the share below its bin and half of the bin's own."""

    def __init__(self, layout: Layout, expected: npt.NDArray[Any]) -> None:
        self._edges = [edges.tolist() for edges in layout.edges]
        self._middles: list[list[float]] = []
        for subject in range(len(layout.names)):
            counts = layout.known(expected, subject).astype(np.float64)
            total = counts.sum()
            middles = (np.cumsum(counts) - counts / 2) / total if total else np.full(len(counts), 0.5)
            self._middles.append(middles.tolist())

    def of(self, row: Sequence[float]) -> list[float]:
        """Return the ranks of a row in the layout's order, NaN where a value is."""
        return [
            value if value != value else middles[bisect_right(edges, value)]  # noqa: PLR0124 (NaN)
            for value, edges, middles in zip(row, self._edges, self._middles, strict=True)
        ]


class KeptRows:
    """Rows by pane, no more than `each` of one pane; the first come, first kept, for rows come evenly."""

    def __init__(self, each: int, kept: int) -> None:
        self._each, self._kept = each, kept
        self._rows: dict[int, list[npt.NDArray[np.float32]]] = {}

    def add(self, pane: int, row: Sequence[float]) -> None:
        """Keep a row, the score left out."""
        held = self._rows.get(pane)
        if held is None:
            held = self._rows[pane] = []
            for old in [other for other in self._rows if other < pane - self._kept]:
                del self._rows[old]
        if len(held) < self._each:
            held.append(np.array(row[:-1], np.float32))

    def between(self, panes: tuple[int, int], most: int) -> npt.NDArray[np.float32]:
        """Return rows float32[n, k] of these panes in order of time, evenly thinned to no more than `most`."""
        rows = [row for pane in range(panes[0], panes[1] + 1) for row in self._rows.get(pane, ())]
        if len(rows) > most:
            rows = [rows[at * len(rows) // most] for at in range(most)]
        return np.array(rows, np.float32)
