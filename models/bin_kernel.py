"""How many values lie at or above each edge of a histogram, for all columns of a batch in one call.

A bin's count is the difference of two such numbers, so nothing is looked up and nothing scattered: a column's values
are brought side by side, and each edge is compared with all of them, a vector at a time. Twenty compares a value take
less than a binary search, which takes five steps each of which waits for the one before.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from models.jit import entry, section

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

# Rows a block: one column's values stay in the first-level cache while the edges go by.
ROWS = 1024


@entry
def count_above(
    x: F32, scores: F32, latency: F32, edges: F32, starts: I64, values: F32, above: I64, known: I64
) -> None:
    """Add to above int64[e] how many values are >= each edge, to known int64[k + 2] how many are not NaN.

    Columns are those of x float32[n, k], then scores float32[n], then latency float32[n]; column c has the edges
    starts[c] to starts[c + 1] - 1. values: scratch float32[ROWS].
    """
    k = x.shape[1]
    for first in range(0, x.shape[0], ROWS):
        block = x[first : first + ROWS]
        n = block.shape[0]
        own = values[:n]
        for c in range(k):
            for i in range(n):
                own[i] = block[i, c]
            count_column(own, c, edges, starts, above, known)
        count_column(scores[first : first + ROWS], k, edges, starts, above, known)
        count_column(latency[first : first + ROWS], k + 1, edges, starts, above, known)


@section
def count_column(values: F32, c: int, edges: F32, starts: I64, above: I64, known: I64) -> None:
    """Count one column of a block."""
    first, last = starts[c], starts[c + 1]
    own_edges, own_above = edges[first:last], above[first:last]
    for e in range(own_edges.shape[0]):
        own_above[e] += at_least(values, own_edges[e])
    known[c] += not_nan(values)


@section
def at_least(values: F32, edge: Any) -> Any:
    """Return how many values are >= edge; a NaN is not."""
    total = np.int32(0)
    for i in range(values.shape[0]):
        total = np.int32(total + (np.int32(1) if values[i] >= edge else np.int32(0)))
    return total


@section
def not_nan(values: F32) -> Any:
    """Return how many values are not NaN, which does not equal itself."""
    total = np.int32(0)
    for i in range(values.shape[0]):
        total = np.int32(total + (np.int32(1) if values[i] == values[i] else np.int32(0)))
    return total
