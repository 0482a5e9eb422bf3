"""Why an event has its score: the base models' exact contributions, in log-odds.

TreeSHAP (path-dependent; Lundberg et al., "Consistent Individualized Feature Attribution for Tree Ensembles", 2018)
splits a forest's margin into one part a feature and a bias, as the libraries' own predictions of contributions do. The
meta-model is linear in the margins, so the weighted parts add up to the log-odds of the score.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.errors import BundleError
from models.forest import Forest, parse_lightgbm, parse_xgboost
from models.sentences import Money, in_minor_units
from models.shap import Contributions
from models.strongest_kernel import strongest

R = TypeVar("R")


class Reason(msgspec.Struct, frozen=True):
    """One feature's part in one score: positive raised it, in log-odds; the text is a sentence in plain words."""

    feature: str
    contribution: float
    value: float
    text: str


class Explainer:
    """Exact contributions in compiled code, on the calling thread alone. Used by one thread at a time.

    A row costs some thirty times what its score does: meant for the few events reviewed or declined.
    """

    def __init__(self, bundle: Bundle, forests: tuple[Forest, Forest] | None = None) -> None:
        """Lay out the bundle's forests, or those read from it before.

        Raises BundleError when one cannot be read or takes other features.
        """
        self._names = bundle.feature_names
        self._sayings = [bundle.sentences[name].saying(name) for name in self._names]
        forests = forests or (parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm))
        for forest in forests:
            if forest.n_features != len(self._names):
                raise BundleError(
                    f"A forest of the bundle {bundle.directory} takes {forest.n_features} features, "
                    f"but its manifest names {len(self._names)}; train it again.",
                )
        self._parts = [Contributions(forest) for forest in forests]
        self._weights = (bundle.meta.xgboost, bundle.meta.lightgbm)
        self._bias = bundle.meta.log_odds(np.array([[part.expected for part in self._parts]]))

    def explain(self, x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return contributions float64[m, k] and bias float64[m] of x float32[m, k]: together the log-odds."""
        first, second = (weight * part.of(x) for weight, part in zip(self._weights, self._parts, strict=True))
        return first + second, np.repeat(self._bias, len(x))

    def contributions(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return each feature's part in the log-odds, float64[m, k], of x float32[m, k]."""
        return self.explain(x)[0]

    def top(self, x: npt.NDArray[np.float32], n: int = 3, money: Sequence[Money] = ()) -> list[list[Reason]]:
        """Return for each row the n features that moved its score most either way, the strongest first.

        Features without any part in the score are left out; among equals the first declared comes first. money: how
        each row's amounts are said; without it, in minor units.
        """
        return self.told(Reason, x, n, money)

    def told(
        self,
        reason: Callable[[str, float, float, str], R],
        x: npt.NDArray[np.float32],
        n: int = 3,
        money: Sequence[Money] = (),
    ) -> list[list[R]]:
        """Return what `top` does, each made of its feature, contribution, value and text by `reason`."""
        columns, parts = np.empty((len(x), n), np.int64), np.empty((len(x), n), np.float64)
        first, second = (part.of(x) for part in self._parts)
        strongest(first, second, self._weights, columns, parts)
        values = x[np.arange(len(x))[:, None], columns]
        names, sayings = self._names, self._sayings
        return [
            [
                reason(names[column], part, value, sayings[column](value, say))
                for column, part, value in zip(*told, strict=True)
                if part != 0.0
            ]
            for *told, say in zip(
                columns.tolist(), parts.tolist(), values.tolist(), money or [in_minor_units] * len(x), strict=True
            )
        ]
