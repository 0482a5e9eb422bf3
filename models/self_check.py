"""What a model must show before it may score: that its engine computes what the bundle says, on awkward rows too.

A bundle's checksums prove that its bytes are those that were written; this proves that the code which is about to score
reads them as another implementation does, on this machine.
"""

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.ensemble import Engine, OnnxEngine, forest_engine
from models.errors import EngineError, ModelError
from models.forest import Forest

__all__ = ["MAX_LOG_ODDS_APART", "MAX_SCORE_APART", "awkward_rows", "check_engine"]

#: Between engines: one adds up float32, the other float64.
MAX_LOG_ODDS_APART: Final = 1e-5
#: Half an ULP of a float32 close to 1, once for each engine's rounding, on top of what the log-odds may differ.
MAX_SCORE_APART: Final = MAX_LOG_ODDS_APART / 4 + 2.0**-23
ROWS: Final = 512
SEED: Final = 20_260_105
#: Batches whose scores must be those of the whole; an engine may take other paths for few rows and for many.
SIZES: Final = (1, 7, 128)
LARGEST: Final = np.finfo(np.float32).max
SPECIAL: Final = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-40, LARGEST, -LARGEST], np.float32)


class _Marginal(Engine, Protocol):
    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        """Return the base models' log-odds [n, 2]."""


def awkward_rows(forests: tuple[Forest, Forest], n: int = ROWS, seed: int = SEED) -> npt.NDArray[np.float32]:
    """Return float32[n, k] where comparisons are decided: thresholds, their neighbours, and what is no usual number.

    The same for the same forests; an eighth of the rows are plain normal numbers.
    """
    rng = np.random.default_rng(seed)
    rows = np.empty((n, forests[0].n_features), np.float32)
    for column in range(rows.shape[1]):
        met = [f.threshold[(f.left >= 0) & (f.feature == column)] for f in forests]
        thresholds = np.unique(np.concatenate([*met, np.zeros(1, np.float32)]))
        steps = rng.choice(thresholds, n)
        toward = rng.choice(np.array([-np.inf, np.inf], np.float32), n)
        choice = rng.choice(4, n, p=[0.4, 0.3, 0.15, 0.15])
        plain = rng.normal(size=n).astype(np.float32)
        rows[:, column] = np.choose(choice, [steps, np.nextafter(steps, toward), rng.choice(SPECIAL, n), plain])
    rows[: n // 8] = rng.normal(size=(n // 8, rows.shape[1])).astype(np.float32)
    return rows


def check_engine(bundle: Bundle, engine: Engine, forests: tuple[Forest, Forest]) -> None:
    """Raise ModelError unless the engine agrees with the other one, and each score is the same in other batches.

    Log-odds and scores may differ by the bounds above: the log-odds are the base models', the scores are what decides.
    An engine without log-odds of its own is compared by its scores.
    """
    x = awkward_rows(forests)
    scores = engine.score(x)
    if not np.isfinite(scores).all() or scores.min() < 0.0 or scores.max() > 1.0:
        raise ModelError(f"The engine {engine.name} gives scores of {bundle.version} that are no probabilities.")
    _check_batches(bundle, engine, x, scores)
    other = _other(bundle, engine, forests)
    if other is None:
        return
    if hasattr(engine, "margins"):
        _check_apart(bundle, "log-odds", engine.margins(x), other.margins(x), MAX_LOG_ODDS_APART)
    _check_apart(bundle, "scores", scores, other.score(x), MAX_SCORE_APART)


def _check_apart(
    bundle: Bundle, what: str, one: npt.NDArray[np.floating], other: npt.NDArray[np.floating], most: float
) -> None:
    apart = float(np.abs(one.astype(np.float64) - other).max())
    if not apart <= most:
        raise ModelError(
            f"The engines do not agree on {bundle.version}: their {what} are up to {apart:.3g} apart, and {most:.3g} "
            f"is allowed; train it again, or choose another engine."
        )


def _check_batches(bundle: Bundle, engine: Engine, x: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> None:
    for size in SIZES:
        pieces = [engine.score(x[at : at + size]) for at in range(0, len(x), size)]
        if not np.array_equal(np.concatenate(pieces).view(np.uint32), scores.view(np.uint32)):
            raise ModelError(
                f"The engine {engine.name} gives other scores of {bundle.version} in batches of {size}: choose another."
            )


def _other(bundle: Bundle, engine: Engine, forests: tuple[Forest, Forest]) -> _Marginal | None:
    """Return the engine to compare with, None where no other takes the model."""
    if engine.name != "onnx":
        return OnnxEngine(bundle)
    try:
        return forest_engine(bundle, forests)
    except EngineError:
        return None
