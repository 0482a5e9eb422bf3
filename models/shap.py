"""Exact contributions of one forest: what each feature added to a row's log-odds."""

from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ModelError
from models.forest import Forest
from models.shap_bank import build_shap
from models.shap_kernel import contributions, new_work


class Contributions:
    """Path-dependent TreeSHAP in compiled code on the calling thread. Used by one thread at a time.

    `expected` and a row's contributions together are the forest's log-odds of it.
    """

    def __init__(self, forest: Forest) -> None:
        """Lay out the forest."""
        bank = build_shap(forest)
        self.expected = bank.expected
        self._n_features = bank.n_features
        self._nodes: tuple[Any, ...] = tuple(bank.nodes)
        self._trees: tuple[Any, ...] = tuple(bank.trees)
        self._work: tuple[Any, ...] = tuple(new_work(bank))

    def of(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return each feature's part in the log-odds, float64[n, k], of x float32[n, k]."""
        if x.ndim != 2 or x.shape[1] != self._n_features:
            raise ModelError(f"The model takes rows of {self._n_features} features, but was given {x.shape}.")
        out = np.empty(x.shape, np.float64)
        contributions(np.ascontiguousarray(x, np.float32), self._nodes, self._trees, self._work, out)
        return out
