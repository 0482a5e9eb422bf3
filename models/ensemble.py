"""Engines: what turns a batch of feature rows into scores."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.bin_counts import warm as warm_counts
from models.bundle import Bundle
from models.errors import BundleError, EngineError, ModelError
from models.forest import Forest, parse_lightgbm, parse_xgboost
from models.forest_bank import MAX_BYTE_THRESHOLDS
from models.forest_engine import ForestEngine
from models.meta import MetaModel
from models.onnx_graph import INPUT, MARGINS, SCORE
from models.onnx_session import session_options
from models.shap import Contributions
from models.strongest_kernel import strongest
from models.tensor_engine import OnnxGpuEngine


class Engine(Protocol):
    """Scores a batch. A row's score is the same bit for bit in whatever batch and position it comes."""

    @property
    def name(self) -> str:
        """Name that stands in every decision."""

    def score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores float32[n] in [0, 1] of x float32[n, k], C-contiguous; n may be 0."""


class OnnxEngine:
    """ONNX Runtime on the CPU, on the calling thread alone."""

    name = "onnx"

    def __init__(self, bundle: Bundle) -> None:
        """Load the bundle's graph. Raises BundleError when ONNX Runtime refuses it or it takes other features."""
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.onnx,
                sess_options=session_options(),
                providers=["CPUExecutionProvider"],
            )
        # ONNX Runtime raises a dozen unrelated classes for a graph that it cannot load.
        except Exception as error:
            raise BundleError(
                f"ONNX Runtime cannot load the graph of the bundle {bundle.directory} "
                f"({_first_line(error)}); train it again.",
            ) from error
        takes = self._session.get_inputs()[0].shape[-1]
        if takes != len(bundle.feature_names):
            raise BundleError(
                f"The graph of the bundle {bundle.directory} takes {takes} features, "
                f"but its manifest names {len(bundle.feature_names)}; train it again.",
            )

    def score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores float32[n] of x float32[n, k]."""
        scores: npt.NDArray[np.float32] = self._session.run([SCORE], {INPUT: x})[0]
        return scores

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the base models' log-odds float32[n, 2] (XGBoost, LightGBM) of x float32[n, k]."""
        margins: npt.NDArray[np.float32] = self._session.run([MARGINS], {INPUT: x})[0]
        return margins


class ConstantEngine:
    """Gives every event one score: what is left of the line's cost without a model."""

    name = "constant"

    def __init__(self, score: float = 0.0) -> None:
        """Raise ModelError unless 0 <= score <= 1."""
        if not 0.0 <= score <= 1.0:
            raise ModelError(f"A constant score must lie between 0 and 1, but is {score:g}.")
        self._score = np.float32(score)

    def score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the constant float32[n] for x float32[n, k]."""
        return np.full(len(x), self._score, np.float32)


def read_forests(bundle: Bundle) -> tuple[Forest, Forest]:
    """Read the bundle's XGBoost and LightGBM forests, for whoever needs them more than once. Raises BundleError."""
    return parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm)


def load_engine(bundle: Bundle, name: str = "auto", forests: tuple[Forest, Forest] | None = None) -> Engine:
    """Return the engine of that name, or "auto" for the fastest that takes the model. Raises ModelError.

    forests: the bundle's, where they were read before.
    """
    match name:
        case "auto":
            try:
                return forest_engine(bundle, forests)
            except EngineError:
                return OnnxEngine(bundle)
        case "forest":
            return forest_engine(bundle, forests)
        case "onnx":
            return OnnxEngine(bundle)
        case "gpu" | OnnxGpuEngine.name:  # as the settings and as decisions call it
            return OnnxGpuEngine(*_checked(bundle, forests), bundle.meta)
        case "constant":
            return ConstantEngine()
        case _:
            raise ModelError(f"There is no engine {name!r}; choose auto, forest, onnx, gpu or constant.")


def forest_engine(bundle: Bundle, forests: tuple[Forest, Forest] | None = None) -> ForestEngine:
    """Compile the bundle's forests. Raises BundleError when they take other features, EngineError when too large."""
    return ForestEngine(*_checked(bundle, forests), bundle.meta)


def _checked(bundle: Bundle, forests: tuple[Forest, Forest] | None) -> tuple[Forest, Forest]:
    """Return XGBoost's and LightGBM's forest. Raises BundleError when they take other features than are named."""
    forests = forests or read_forests(bundle)
    for forest in forests:
        if forest.n_features != len(bundle.feature_names):
            raise BundleError(
                f"A forest of the bundle {bundle.directory} takes {forest.n_features} features, "
                f"but its manifest names {len(bundle.feature_names)}; train it again.",
            )
    return forests


def warm() -> None:
    """Compile the kernels, or load them from the cache: once at installation, so that a worker starts at once.

    Those that count what was scored, for telemetry, too.
    """
    warm_counts()
    x = np.zeros((1, 1), np.float32)
    for stumps in (1, MAX_BYTE_THRESHOLDS + 1):
        forest = _stumps(stumps)
        ForestEngine(forest, forest, MetaModel(0.0, 0.5, 0.5)).score(x)
        parts = Contributions(forest).of(x)
    strongest(parts, parts, (0.5, 0.5), np.empty((1, 1), np.int64), np.empty((1, 1)))


def _stumps(n: int) -> Forest:
    """Return n trees with one split each, at 1 to n."""
    inner = np.tile([True, False, False], n)
    roots = 3 * np.arange(n, dtype=np.int32)
    children = np.where(inner, np.arange(3 * n), -2)
    return Forest(
        n_features=1,
        base=0.0,
        roots=roots,
        feature=np.zeros(3 * n, np.int32),
        threshold=np.where(inner, np.arange(3 * n) // 3 + 1, 0).astype(np.float32),
        nan_left=np.zeros(3 * n, np.bool_),
        left=(children + 1).astype(np.int32),
        right=np.where(inner, children + 2, -1).astype(np.int32),
        value=np.zeros(3 * n),
        leaf_id=np.where(inner, -1, 0).astype(np.int32),
        cover=np.ones(3 * n),
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
