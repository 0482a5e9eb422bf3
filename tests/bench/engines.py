"""Benchmark of engines and reasons: `python tests/bench/engines.py`.

300 XGBoost trees of depth 6 and 300 LightGBM trees of 31 leaves over 24 features, on one thread. For each batch size
the engines and the libraries' own predictions take turns in one run, and every answer is compared inside it; then the
same for the contributions of the rows that a batch sends to review.
"""

import statistics
import time

import lightgbm
import numpy as np
import onnxruntime
import xgboost

from models.ensemble import session_options, warm
from models.forest import parse_lightgbm, parse_xgboost
from models.forest_engine import ForestEngine
from models.meta import MetaModel
from models.onnx_graph import INPUT, SCORE, ensemble_graph
from models.shap import Contributions

TREES = 300
FEATURES = 24
ROWS = 65_536
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048, 4096, 16_384, 65_536)
ROUNDS = 15
# Calls a turn: short ones are repeated until they take about as long as so many rows.
ROWS_A_TURN = 256
BATCH = 2048
REVIEW_RATE = 0.02
META = MetaModel(bias=-0.2, xgboost=0.5, lightgbm=0.5)


def sample(seed=0):
    """Payments float32[ROWS, FEATURES] whose fraud depends on a few features; one is missing now and then."""
    rng = np.random.default_rng(seed)
    counts = [rng.lognormal(3, 1, ROWS), rng.poisson(3, ROWS), rng.poisson(10, ROWS)]
    x = np.column_stack([*counts, rng.normal(size=(ROWS, FEATURES - 3))]).astype(np.float32)
    risk = np.log(x[:, 0]) - 4 + x[:, 5] * x[:, 6] + 0.3 * x[:, 1] + rng.normal(size=ROWS)
    x[rng.random(ROWS) < 0.1, 4] = np.nan
    return x, (risk > 1.8).astype(np.int8)


def train(x, labels):
    """Return both boosters, each to run on one thread."""
    first = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "max_bin": 255, "nthread": 1}
    second = {"objective": "binary", "num_leaves": 31, "learning_rate": 0.1, "num_threads": 1, "verbose": -1}
    return (
        xgboost.train(first, xgboost.DMatrix(x, labels, nthread=1), TREES),
        lightgbm.train(second, lightgbm.Dataset(x, labels), TREES),
    )


def contestants(first, second):
    """Return what scores, by name; the libraries' own predictions end with the meta-model in NumPy."""
    forests = parse_xgboost(bytes(first.save_raw("json"))), parse_lightgbm(second.model_to_string())
    engine = ForestEngine(*forests, META)
    session = onnxruntime.InferenceSession(
        ensemble_graph(*forests, META), session_options(), providers=["CPUExecutionProvider"]
    )

    def native(x):
        margins = [
            first.inplace_predict(x, predict_type="margin", missing=np.nan),
            second.predict(x, raw_score=True, num_threads=1),
        ]
        return (1.0 / (1.0 + np.exp(-META.log_odds(np.column_stack(margins))))).astype(np.float32)

    return {
        "forest": engine.score,
        "onnx": lambda x: session.run([SCORE], {INPUT: x})[0],
        "xgboost + lightgbm": native,
        "xgboost alone": first.inplace_predict,
        "lightgbm alone": lambda x: second.predict(x, num_threads=1),
    }


def explainers(first, second):
    """Return what gives contributions float64[n, FEATURES] of the ensemble, by name."""
    forests = parse_xgboost(bytes(first.save_raw("json"))), parse_lightgbm(second.model_to_string())
    own = [Contributions(forest) for forest in forests]

    def native(x):
        parts = (
            first.predict(xgboost.DMatrix(x, nthread=1), pred_contribs=True),
            second.predict(x, pred_contrib=True, num_threads=1),
        )
        return META.xgboost * parts[0][:, :-1] + META.lightgbm * parts[1][:, :-1]

    return {
        "compiled": lambda x: META.xgboost * own[0].of(x) + META.lightgbm * own[1].of(x),
        "xgboost + lightgbm": native,
    }


def reasons(first, second, x, scoring_us):
    """Rows of (figure, measured, bound) for a batch's share of reviews and for one review alone."""
    rows = []
    ways = explainers(first, second)
    for count in (1, int(REVIEW_RATE * BATCH)):
        times = {name: [] for name in ways}
        answers = {}
        for _ in range(ROUNDS):
            for name, explain in ways.items():
                start = time.perf_counter()
                answers[name] = explain(x[:count])
                times[name].append((time.perf_counter() - start) / count * 1e6)
        assert np.allclose(answers["compiled"], answers["xgboost + lightgbm"], rtol=0, atol=1e-5)
        own, native = (statistics.median(taken) for taken in times.values())
        measured = f"{own:.0f} µs; libraries {native:.0f}, {native / own:.0f} ×"
        rows.append((f"reasons, {count} at a time, a row explained", measured, ""))
    added = REVIEW_RATE * own
    measured = f"{added:.2f} µs an event, {added / scoring_us:.0%} of scoring it"
    rows.append((f"reasons for {REVIEW_RATE:.0%} of a batch of {BATCH}", measured, ""))
    return rows


def race(scorers, x):
    """Return the median µs an event of each, their turns taken in alternation; compare the ensembles' answers."""
    calls = max(1, ROWS_A_TURN // len(x))
    times = {name: [] for name in scorers}
    answers = {}
    for _ in range(ROUNDS if len(x) <= 4096 else 3):
        for name, score in scorers.items():
            start = time.perf_counter()
            for _ in range(calls):
                answers[name] = score(x)
            times[name].append((time.perf_counter() - start) / calls / len(x) * 1e6)
    for name in ("onnx", "xgboost + lightgbm"):
        assert np.allclose(answers["forest"], answers[name], rtol=2e-5, atol=1e-7), name
    return {name: statistics.median(taken) for name, taken in times.items()}


def table():
    """Rows of (figure, measured, bound)."""
    warm()
    x, labels = sample()
    boosters = train(x[: ROWS * 9 // 10], labels[: ROWS * 9 // 10])
    scorers = contestants(*boosters)
    everything = scorers["forest"](x)
    rows = []
    for size in SIZES:
        batch = x[:size].copy()
        assert (scorers["forest"](batch) == everything[:size]).all()
        taken = race(scorers, batch)
        own = taken.pop("forest")
        if size == BATCH:
            scoring_us = own
        others = ", ".join(f"{name} {other:.1f}" for name, other in taken.items())
        rows.append(
            (f"engines, batch {size}, µs an event", f"forest {own:.2f}; {others}", "≤ 100" if size == 1 else "")
        )
        onnx, native = taken["onnx"] / own, taken["xgboost + lightgbm"] / own
        bound = "≥ 6, ≥ 6" if size >= 512 else "≥ 1, ≥ 1"
        rows.append((f"engines, batch {size}, forest is faster", f"{onnx:.1f} × onnx, {native:.1f} × libraries", bound))
    return [*rows, *reasons(*boosters, x, scoring_us)]


if __name__ == "__main__":
    for figure, measured, bound in table():
        print(f"{figure:<45} {measured:<100} {bound}")
