"""Why an event has its score: the base models' own exact contributions, in log-odds.

Each library's TreeSHAP (path-dependent; Lundberg et al., "Consistent Individualized Feature Attribution for Tree
Ensembles", 2018) splits its margin into one part a feature and a bias. The meta-model is linear in the margins, so the
weighted parts add up to the log-odds of the score.
"""

from dataclasses import dataclass

import lightgbm
import numpy as np
import numpy.typing as npt
import xgboost

from models.bundle import Bundle
from models.errors import BundleError


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in one score: positive raised it, in log-odds; the text is a sentence in plain words."""

    feature: str
    contribution: float
    value: float
    text: str


class Explainer:
    """Exact contributions from the boosters themselves, on the calling thread alone.

    Costs more than a hundred times what the score does: meant for the few events reviewed or declined.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Load the bundle's boosters. Raises BundleError when a library refuses its own or features differ."""
        self._names = bundle.feature_names
        self._sentences = bundle.sentences
        self._meta = bundle.meta
        try:
            self._xgboost = xgboost.Booster({"nthread": 1}, model_file=bytearray(bundle.xgboost))
            self._lightgbm = lightgbm.Booster(model_str=bundle.lightgbm)
        except (xgboost.core.XGBoostError, lightgbm.basic.LightGBMError) as error:
            raise BundleError(
                f"A booster of the bundle {bundle.directory} cannot be loaded "
                f"({str(error).splitlines()[0]}); train it again.",
            ) from error
        for takes in (self._xgboost.num_features(), self._lightgbm.num_feature()):
            if takes != len(self._names):
                raise BundleError(
                    f"A booster of the bundle {bundle.directory} takes {takes} features, "
                    f"but its manifest names {len(self._names)}; train it again.",
                )

    def explain(self, x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return contributions float64[m, k] and bias float64[m] of x float32[m, k]: together the log-odds."""
        if not len(x):
            return np.zeros((0, len(self._names))), np.zeros(0)
        # XGBoost refuses infinities; no threshold lies beyond the largest finite number, so it reaches the same leaves.
        finite = np.nan_to_num(x, nan=np.nan)
        first = self._xgboost.predict(xgboost.DMatrix(finite, nthread=1), pred_contribs=True)
        second = self._lightgbm.predict(x, pred_contrib=True, num_threads=1)
        parts = self._meta.xgboost * first.astype(np.float64) + self._meta.lightgbm * second
        return parts[:, :-1], parts[:, -1] + self._meta.bias

    def contributions(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return each feature's part in the log-odds, float64[m, k], of x float32[m, k]."""
        return self.explain(x)[0]

    def top(self, x: npt.NDArray[np.float32], n: int = 3) -> list[list[Reason]]:
        """Return for each row the n features that moved its score most either way, the strongest first.

        Features without any part in the score are left out; among equals the first declared comes first.
        """
        contributions = self.contributions(x)
        order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :n]
        return [
            [self._reason(column, parts[column], row[column]) for column in columns if parts[column] != 0.0]
            for columns, parts, row in zip(order.tolist(), contributions.tolist(), x.tolist(), strict=True)
        ]

    def _reason(self, column: int, contribution: float, value: float) -> Reason:
        feature = self._names[column]
        return Reason(feature, contribution, value, self._sentences[feature].fill(feature, value))
