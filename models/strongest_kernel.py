"""The features that moved each score most, picked in compiled code."""

import numpy as np
import numpy.typing as npt

from models.jit import entry

F64 = npt.NDArray[np.float64]


@entry
def strongest(
    first: F64, second: F64, weights: tuple[float, float], columns: npt.NDArray[np.int64], parts: F64
) -> None:
    """Write the features with the largest weighted sum either way, the strongest first, to columns int64[m, n].

    first, second: contributions float64[m, k], each with its weight; parts: the sums themselves, float64[m, n]. Among
    equals the first column comes first. Where all other parts are 0, or there are fewer than n: column 0 and part 0.
    """
    n = columns.shape[1]
    for row in range(first.shape[0]):
        for place in range(n):
            columns[row, place], parts[row, place] = 0, 0.0
        for column in range(first.shape[1]):
            part = weights[0] * first[row, column] + weights[1] * second[row, column]
            place = n
            while place > 0 and abs(part) > abs(parts[row, place - 1]):
                place -= 1
                if place + 1 < n:
                    columns[row, place + 1], parts[row, place + 1] = columns[row, place], parts[row, place]
            if place < n:
                columns[row, place], parts[row, place] = column, part
