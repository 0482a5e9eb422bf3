"""One gate: a figure of a candidate model, the bound it must keep, and the verdict."""

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.ensemble import OnnxEngine, forest_engine
from models.errors import EngineError
from models.forest_engine import ForestEngine
from models.policy import DECLINE

#: Standard errors on either side that hold 95 % of a normal distribution.
NORMAL_95 = 1.96


class Gate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of the gate table. A value of None could not be computed, which no bound admits."""

    name: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""
    #: The holdout cannot tell; that is no pass, but somebody may take it upon themselves.
    unjudged: bool = False

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return "not judged" if self.unjudged else "pass" if self.passed else "FAIL"

    @property
    def passed(self) -> bool:
        """Whether the value keeps both bounds; NaN keeps none."""
        if self.value is None:
            return False
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below and not math.isnan(self.value)

    @property
    def shown(self) -> str:
        """The value in words."""
        return shown(self.value)

    @property
    def bound(self) -> str:
        """The bound in words: "≥ 0.1", "≤ 20" or "0.7 to 1.4"."""
        if self.at_least is not None and self.at_most is not None:
            return f"{shown(self.at_least)} to {shown(self.at_most)}"
        return f"≥ {shown(self.at_least)}" if self.at_least is not None else f"≤ {shown(self.at_most)}"


def shown(value: float | None) -> str:
    """Return a figure in at most four significant digits; whole numbers in full."""
    if value is None:
        return "—"
    if abs(value) < 1e15 and value == round(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a candidate must keep. The settings under `registry.gates` say what each means to an operator."""

    review_rate: float = 0.02
    min_frauds: int = 30
    max_precision_loss: float = 0.03
    max_recall_loss: float = 0.05
    min_average_precision: float = 0.1
    min_recall: float = 0.1
    max_held_rate: float = 0.1
    max_decline_rate: float = 0.02
    min_decline_precision: float = 0.5
    max_honest_held_gain: float = 0.01
    max_honest_declined_gain: float = 0.002
    min_slope: float = 0.6
    max_slope: float = 1.6
    min_score_ratio: float = 0.67
    max_score_ratio: float = 1.5
    max_brier_ratio: float = 1.05
    batch: int = 512
    max_batch_ms: float = 5.0
    max_memory_bytes: int = 64 << 20
    max_false_positive_ratio: float = 3.0
    max_amount_false_positive_ratio: float = 10.0
    min_segment_honest: int = 500
    min_missing_share: float = 0.5
    min_noise_share: float = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """How one version judges the holdout: log-odds float64[n]; what it holds (reviews, declines), declines bool[n]."""

    log_odds: npt.NDArray[np.float64]
    held: npt.NDArray[np.bool_]
    declined: npt.NDArray[np.bool_]

    @property
    def chances(self) -> npt.NDArray[np.float64]:
        """The scores as float64[n]; tanh does not overflow, as 1 / (1 + exp(-z)) would."""
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * self.log_odds)), np.float64)


class Scorer:
    """A version's scores in log-odds, whose order float32 scores close to 0 or 1 would lose."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the engine that `auto` would. Raises ModelError."""
        self._bundle = bundle
        self._engine = _engine(bundle)

    def log_odds(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return float64[n] of x float32[n, k]."""
        return self._bundle.meta.log_odds(self.margins(x))

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating[Any]]:
        """Return the base models' log-odds [n, 2] of x float32[n, k]."""
        return self._engine.margins(np.ascontiguousarray(x))

    def scores(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return float32[n] of x float32[n, k]."""
        return self._engine.score(np.ascontiguousarray(x))

    def judge(self, x: npt.NDArray[np.float32]) -> Scored:
        """Return log-odds and outcomes of x float32[n, k]."""
        outcomes = self._bundle.thresholds.decide(self.scores(x))
        return Scored(self.log_odds(x), outcomes > 0, outcomes == DECLINE)


def _engine(bundle: Bundle) -> OnnxEngine | ForestEngine:
    try:
        return forest_engine(bundle)
    except EngineError:
        return OnnxEngine(bundle)
