"""Gates on parity: the compiled forest reaches the libraries' own leaves, and the engines give the same log-odds.

Looked at are holdout rows and rows made of what decides comparisons: thresholds, their neighbours one ULP away, NaN,
infinities, zeros and denormals.

**Leaves by fingerprint.** Each leaf gets a random whole number so small that the sum over all trees is exact in
float64. The kernel adds up the numbers of the leaves it reaches, `pred_leaf` says which should be added, and a row in
which even one tree went wrong has another sum, but for a chance below 2⁻³⁰. So the very layout that scores is tested,
in two runs, one for each of its paths.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import onnxruntime
import xgboost

from models.bundle import Bundle
from models.ensemble import OnnxEngine, forest_engine
from models.errors import EngineError, NoCudaError
from models.forest import Forest, parse_lightgbm, parse_xgboost
from models.forest_engine import ForestMargins
from models.gate import Gate
from models.self_check import MAX_LOG_ODDS_APART, MAX_SCORE_APART, awkward_rows
from models.tensor_engine import CPU, CUDA, TensorEngine

SEED = 20_250_103
HOLDOUT_ROWS = 2_000
EDGE_ROWS = 2_000

GPU = "gpu"  # as the settings call the engine
EXACT_BITS = 53
# The kernel's two paths: leaf bits however few the rows are, and the walk however many.
PATHS = (1, 1 << 30)

FLOAT32 = np.finfo(np.float32)


def parity_gates(bundle: Bundle, x: npt.NDArray[np.float32], engine: str = "auto") -> list[Gate]:
    """Return the gates on parity for the holdout's features x float32[n, k].

    engine: what the workers will choose; for "gpu" the tensor graph is compared too, on the CPU where there is no CUDA.
    """
    rng = np.random.default_rng(SEED)
    first, second = parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm)
    some = x if len(x) <= HOLDOUT_ROWS else x[rng.choice(len(x), HOLDOUT_ROWS, replace=False)]
    rows = np.concatenate([some, awkward_rows((first, second), EDGE_ROWS, SEED)])
    wrong = [
        leaves_apart(first, xgboost_leaves(bundle.xgboost, rows), rows, rng),
        leaves_apart(second, lightgbm_leaves(bundle.lightgbm, rows), rows, rng),
    ]
    trees = first.n_trees + second.n_trees
    leaves = Gate(
        name="rows with a leaf of another tree path",
        value=float(sum(wrong)),
        at_most=0.0,
        note=f"{len(rows):,} rows, {trees} trees: XGBoost {wrong[0]}, LightGBM {wrong[1]}",
    )
    gates = [leaves, *_engines(bundle, rows)]
    if engine == GPU:
        gates += _tensors(bundle, (first, second), rows)
    return gates


def _tensors(bundle: Bundle, forests: tuple[Forest, Forest], rows: npt.NDArray[np.float32]) -> list[Gate]:
    """Compare the graph that the engine gpu runs with onnx."""
    tensors, where = _tensor_engine(bundle, forests)
    onnx = OnnxEngine(bundle)
    apart = np.abs(bundle.meta.log_odds(tensors.margins(rows)) - bundle.meta.log_odds(onnx.margins(rows)))
    differ = np.abs(tensors.score(rows).astype(np.float64) - onnx.score(rows).astype(np.float64))
    note = f"tensor graph against onnx, on {where}"
    return [
        Gate(name="engine gpu's log-odds apart", value=_most(apart), at_most=MAX_LOG_ODDS_APART, note=note),
        Gate(name="engine gpu's scores apart", value=_most(differ), at_most=MAX_SCORE_APART, note=note),
    ]


def _tensor_engine(bundle: Bundle, forests: tuple[Forest, Forest]) -> tuple[TensorEngine, str]:
    """Return the graph on CUDA where that is, else on the CPU, and which of the two it is."""
    # Asked first, so that no graph is built in vain.
    if CUDA in onnxruntime.get_available_providers():
        with suppress(NoCudaError):
            return TensorEngine(*forests, bundle.meta, provider=CUDA), "CUDA"
    return TensorEngine(*forests, bundle.meta, provider=CPU), "the CPU, for there is no CUDA here"


def _engines(bundle: Bundle, rows: npt.NDArray[np.float32]) -> list[Gate]:
    """Compare the engines forest and onnx; where forest does not take the model, there is one engine alone."""
    onnx = OnnxEngine(bundle)
    try:
        forest = forest_engine(bundle)
    except EngineError as error:
        reference = [parse(raw).margins(rows) for parse, raw in _forests(bundle)]
        margins, note = np.column_stack(reference), f"onnx against plain traversal, for {error}"
        scores = 0.5 * (1.0 + np.tanh(0.5 * bundle.meta.log_odds(margins)))
    else:
        margins, scores, note = forest.margins(rows), forest.score(rows).astype(np.float64), "forest against onnx"
    apart = np.abs(bundle.meta.log_odds(margins) - bundle.meta.log_odds(onnx.margins(rows)))
    differ = np.abs(scores - onnx.score(rows).astype(np.float64))
    return [
        Gate(name="engines' log-odds apart", value=_most(apart), at_most=MAX_LOG_ODDS_APART, note=note),
        Gate(name="engines' scores apart", value=_most(differ), at_most=MAX_SCORE_APART, note=note),
    ]


def _forests(bundle: Bundle) -> tuple[tuple[Any, Any], ...]:
    return (parse_xgboost, bundle.xgboost), (parse_lightgbm, bundle.lightgbm)


def _most(values: npt.NDArray[np.float64]) -> float:
    """Return the largest, NaN where one is NaN."""
    return float(np.max(values, initial=0.0))


def leaves_apart(
    forest: Forest,
    own: npt.NDArray[np.int64],
    x: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> int:
    """Return in how many rows x float32[n, k] the engine reaches other leaves than `own` int64[n, T], the library's."""
    if own.shape != (len(x), forest.n_trees):
        return len(x)
    is_leaf = forest.left < 0
    tree = np.repeat(np.arange(forest.n_trees), np.diff(forest.roots, append=len(forest.left)))
    bits = EXACT_BITS - forest.n_trees.bit_length()
    fingerprint = np.where(is_leaf, rng.integers(0, 1 << bits, len(tree)), 0).astype(np.float64)
    # One more column stands for leaves that the forest does not have; no leaf's fingerprint is NaN.
    known = np.full((forest.n_trees, int(forest.leaf_id.max()) + 2), np.nan)
    known[tree[is_leaf], forest.leaf_id[is_leaf]] = fingerprint[is_leaf]
    expected = known[np.arange(forest.n_trees), np.clip(own, -1, known.shape[1] - 1)].sum(axis=1)
    marked = replace(forest, base=0.0, value=fingerprint)
    wrong = np.zeros(len(x), np.bool_)
    for found in _sums(marked, x):
        wrong |= found != expected
    return int(wrong.sum())


def _sums(forest: Forest, x: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float64]]:
    """Return the margins by each of the kernel's paths, or by plain traversal where it does not take the forest."""
    try:
        return [ForestMargins(forest, crossover).margins(x) for crossover in PATHS]
    except EngineError:
        return [forest.margins(x)]


def xgboost_leaves(raw: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return XGBoost's own numbers of the leaves reached, int64[n, T]."""
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(raw))
    # It names no leaves for infinities; the largest finite numbers stand on the same side of every threshold.
    data = xgboost.DMatrix(np.clip(x, FLOAT32.min, FLOAT32.max), nthread=1)
    return np.asarray(booster.predict(data, pred_leaf=True).reshape(len(x), -1), np.int64)


def lightgbm_leaves(text: str, x: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return LightGBM's own numbers of the leaves reached, int64[n, T]."""
    found = lightgbm.Booster(model_str=text).predict(x, pred_leaf=True, num_threads=1)
    return np.asarray(found.reshape(len(x), -1), np.int64)
