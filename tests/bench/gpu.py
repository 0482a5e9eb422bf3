"""Benchmark of the GPU: the tensor engine beside XGBoost's predict and nvForest, at batches of 1 k to 64 k.

PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/gpu.py [LARGEST]     65,536 by default; 4,096 without a GPU

The ensemble of tests/bench/engines.py: 300 XGBoost trees of depth 6 and 300 LightGBM trees of 31 leaves over 24
features. Rows come from and scores go back to the host's memory, as in a worker. Where there is no CUDA device the same
runs on the CPU and says so: that proves the harness, and says nothing about a GPU. XGBoost's predict has half of the
trees to do, for its library has no more; nvForest (`pip install nvforest-cu12`) is there if it can be imported.
"""

import importlib.util
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import xgboost

from engines import META, ROWS, sample, train
from models.forest import parse_lightgbm, parse_xgboost
from models.forest_engine import ForestEngine
from models.tensor_engine import CPU, CUDA, TensorEngine

SIZES = (1_024, 4_096, 16_384, 65_536)
ON_CPU = 4_096
CALLS = (5, 300)
BUDGET_SECS = 2.0  # a contestant's share of a size


def on_cuda() -> bool:
    return CUDA in onnxruntime.get_available_providers()


def contestants(first, second, provider):
    """Return what predicts float32[n, k], by name, and which of them score the whole ensemble."""
    forests = parse_xgboost(bytes(first.save_raw("json"))), parse_lightgbm(second.model_to_string())
    tensors = TensorEngine(*forests, META, provider=provider)
    device = "cuda" if provider == CUDA else "cpu"
    first.set_param({"device": device})
    ways = {
        f"tensors, {tensors.nodes} nodes all on {provider.removesuffix('ExecutionProvider')}": tensors.score,
        "forest on one CPU thread": ForestEngine(*forests, META).score,
        f"XGBoost alone on {device}": xgboost_predict(first, device),
    }
    whole = list(ways)[:2]
    if importlib.util.find_spec("nvforest"):
        ways[f"nvForest on {device}"] = nvforest_score(first, second, "gpu" if device == "cuda" else "cpu")
        whole = [*whole, list(ways)[-1]]
    return ways, whole


def xgboost_predict(booster, device):
    """XGBoost predicts on the device its rows are on; from the host's memory they are copied there first."""
    if device == "cpu":
        return booster.inplace_predict
    if importlib.util.find_spec("cupy"):
        import cupy

        return lambda x: cupy.asnumpy(booster.inplace_predict(cupy.asarray(x)))
    return lambda x: booster.predict(xgboost.DMatrix(x))


def nvforest_score(first, second, device):
    """Both forests' probabilities by nvForest, back to log-odds and through the meta-model in NumPy."""
    import nvforest

    with tempfile.TemporaryDirectory() as folder:
        first.save_model(Path(folder, "x.json"))
        second.save_model(str(Path(folder, "l.txt")))
        models = [
            nvforest.load_model(Path(folder, "x.json"), model_type="xgboost_json", device=device),
            nvforest.load_model(Path(folder, "l.txt"), model_type="lightgbm", device=device),
        ]

    def score(x):
        chances = [np.asarray(model.predict_proba(x), np.float64).reshape(len(x), -1)[:, -1] for model in models]
        margins = np.column_stack([np.log(chance) - np.log1p(-chance) for chance in chances])
        return (1.0 / (1.0 + np.exp(-META.log_odds(margins)))).astype(np.float32)

    return score


def latencies(score, x):
    """Return seconds of each call, warm, as many as the budget has room for."""
    score(x)
    taken = []
    while len(taken) < CALLS[0] or (len(taken) < CALLS[1] and sum(taken) < BUDGET_SECS):
        start = time.perf_counter()
        score(x)
        taken.append(time.perf_counter() - start)
    return taken


def table(largest: int = 0) -> list[tuple[str, str, str]]:
    """Rows of (figure, measured, bound); every answer is compared inside the run."""
    provider = CUDA if on_cuda() else CPU
    if provider == CPU:
        print(
            "There is no CUDA device here: everything runs on the CPU, which says nothing about a GPU.", file=sys.stderr
        )
    largest = largest or (ROWS if provider == CUDA else ON_CPU)
    x, labels = sample()
    ways, whole = contestants(*train(x[: ROWS * 9 // 10], labels[: ROWS * 9 // 10]), provider)
    rows = []
    for size in [size for size in SIZES if size <= largest]:
        batch = x[:size].copy()
        answers = [ways[name](batch) for name in whole]
        assert all(np.allclose(answer, answers[0], rtol=2e-5, atol=1e-7) for answer in answers)
        for name, score in ways.items():
            p50, p99 = np.percentile(latencies(score, batch), [50, 99]) * 1e3
            measured = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, {size / p50 / 1e3:.2f} M rows a second"
            rows.append((f"batch {size:,}: {name}", measured, ""))
    return rows


if __name__ == "__main__":
    for figure, measured, bound in table(*map(int, sys.argv[1:])):
        print(f"{figure:<60} {measured:<60} {bound}")
