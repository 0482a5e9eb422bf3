"""From features to verdicts: the engine, its thresholds and its reasons behind the line's one call."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.ensemble import ConstantEngine, Engine
from models.policy import APPROVE, OUTCOMES, Thresholds
from models.reasons import Explainer
from stream.currencies import money_of
from stream.decision import Reason
from stream.line import Verdicts

__all__ = ["ConstantJudge", "EnsembleJudge"]

REASONS = 3


class EnsembleJudge:
    """Scores with the engine, decides by the thresholds, explains what is not approved."""

    outcome_names: Sequence[str] = OUTCOMES

    def __init__(self, engine: Engine, thresholds: Thresholds, explainer: Explainer) -> None:
        self._engine = engine
        self._thresholds = thresholds
        self._explainer = explainer

    def judge(self, features: npt.NDArray[np.float32], currencies: npt.NDArray[np.uint16]) -> Verdicts:
        """Judge float32[n, k] of payments in currencies uint16[n]; only reviewed and declined rows pay for reasons."""
        scores = self._engine.score(features)
        outcomes = self._thresholds.decide(scores)
        held = np.flatnonzero(outcomes != APPROVE)
        reasons: dict[int, Sequence[Reason]] = {}
        if held.size:
            money = [money_of(code) for code in currencies[held].tolist()]
            reasons = dict(
                zip(held.tolist(), self._explainer.told(_published, features[held], REASONS, money), strict=True)
            )
        return Verdicts(scores, outcomes, reasons)


class ConstantJudge:
    """Gives every event the same score and approves it: what the line costs without a model."""

    outcome_names: Sequence[str] = OUTCOMES

    def __init__(self, score: float) -> None:
        self._engine = ConstantEngine(score)

    def judge(self, features: npt.NDArray[np.float32], currencies: npt.NDArray[np.uint16]) -> Verdicts:  # noqa: ARG002 (Judge's shape)
        """Judge float32[n, k]; in whatever currencies uint16[n], nothing is said of it."""
        return Verdicts(self._engine.score(features), np.full(len(features), APPROVE, np.uint8), {})


def _published(feature: str, contribution: float, _value: float, text: str) -> Reason:
    """Leave out the raw value: the sentence says it in words."""
    return Reason(feature, contribution, text)
