"""Sums by group: figures that are made of sums need each group's only once, however many draws there are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def sums_by_group(columns: Sequence[npt.NDArray[Any]], groups: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the sum of each column [n] over each group's rows, float64[columns, groups]; groups int32[n] from 0."""
    return np.stack([np.bincount(groups, weights=column) for column in columns])
