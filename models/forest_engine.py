"""The engine "forest": both libraries' trees in compiled code on the calling thread."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ModelError
from models.forest import Forest
from models.forest_bank import build_bank
from models.forest_kernel import margins, new_work, scores
from models.leafbits_kernel import ROWS
from models.meta import MetaModel

# Rows walked, and times each path is run, when the paths are compared.
WALKED = 8
REPEATS = 5


class ForestMargins:
    """One forest's log-odds. Used by one thread at a time."""

    def __init__(self, forest: Forest, crossover: int | None = None) -> None:
        """Take at least `crossover` rows to be worth a block; by default that is measured."""
        self.bank = build_bank(forest)
        self._n_features = forest.n_features
        bank = self.bank
        parts = (bank.ranking, bank.bits, bank.walk, new_work(bank.ranking))
        self._arrays: tuple[tuple[Any, ...], ...] = tuple(map(tuple, parts))
        self.crossover = crossover or self._measure()

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the log-odds float64[n] of x float32[n, k], C-contiguous."""
        return self._margins(x, self.crossover)

    def _margins(self, x: npt.NDArray[np.float32], crossover: int) -> npt.NDArray[np.float64]:
        out = np.empty(len(x), np.float64)
        ranking, bits, walk, work = self._arrays
        margins(x, self.bank.base, crossover, ranking, bits, walk, work, out)
        return out

    def _measure(self) -> int:
        """Return how many rows take as long to walk as a block does; the answer changes no score."""
        x = np.zeros((ROWS, self._n_features), np.float32)  # neither path's time depends on the values
        block = min(self._seconds(x, 1) for _ in range(REPEATS))
        walk = min(self._seconds(x[:WALKED], ROWS) for _ in range(REPEATS)) / WALKED
        return int(np.clip(np.ceil(block / walk), 1, ROWS))

    def _seconds(self, x: npt.NDArray[np.float32], crossover: int) -> float:
        start = time.perf_counter()
        self._margins(x, crossover)
        return time.perf_counter() - start


class ForestEngine:
    """Scores with the compiled forest, on the calling thread alone; an instance is used by one thread at a time."""

    name = "forest"

    def __init__(self, xgboost: Forest, lightgbm: Forest, meta: MetaModel, crossover: int | None = None) -> None:
        """Lay out two forests over the same features; `crossover` as in ForestMargins. Raises EngineError."""
        self._n_features = xgboost.n_features
        self._meta = (meta.bias, meta.xgboost, meta.lightgbm)
        self._first = ForestMargins(xgboost, crossover)
        self._second = ForestMargins(lightgbm, crossover)

    def score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores float32[n] of x float32[n, k]."""
        x = self._checked(x)
        out = np.empty(len(x), np.float32)
        scores(self._first.margins(x), self._second.margins(x), *self._meta, out)
        return out

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the base models' log-odds float64[n, 2] (XGBoost, LightGBM) of x float32[n, k]."""
        x = self._checked(x)
        return np.column_stack([self._first.margins(x), self._second.margins(x)])

    def _checked(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return x as the kernel reads it, for it checks no bounds of its own."""
        if x.ndim != 2 or x.shape[1] != self._n_features:
            raise ModelError(f"The model takes rows of {self._n_features} features, but was given {x.shape}.")
        return np.ascontiguousarray(x, np.float32)
