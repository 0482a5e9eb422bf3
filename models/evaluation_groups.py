"""Sums by group: figures that are made of sums need each group's only once, however many draws there are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def sums_by_group(columns: Sequence[npt.NDArray[Any]], groups: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the sum of each column [n] over each group's rows, float64[columns, groups]; groups int32[n] from 0."""
    return np.stack([np.bincount(groups, weights=column) for column in columns])


class CellCounts:
    """How many events each cell of a table holds, as a function of how often each group counts.

    The rows are put in the order of their cells once; a draw then adds up runs of memory in order.
    """

    def __init__(self, cells: npt.NDArray[np.int64], groups: npt.NDArray[np.int32], number: int) -> None:
        """Take each row's cell int64[n], below number, and its group int32[n]; n must be at least 1."""
        order = np.argsort(cells, kind="stable")
        sizes = np.bincount(cells, minlength=number)
        self._groups = groups[order]
        self._number = number
        self._filled = np.flatnonzero(sizes)
        self._starts = (np.cumsum(sizes) - sizes)[self._filled]

    def __call__(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the cells' counts float64[number]."""
        found = np.zeros(self._number)
        found[self._filled] = np.add.reduceat(counts[self._groups], self._starts)
        return found
