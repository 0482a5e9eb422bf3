"""Benchmark of engines and reasons, on trees trained on a seeded sample or on a labelled history of one's own.

PYTHONPATH=.:tests:tests/bench:tests/bench/peers .venv/bin/python tests/bench/engines.py [--help]

300 XGBoost trees of depth 6 and 300 LightGBM trees of 31 leaves over 24 features. For each batch size the engines, the
libraries' own predictions and two compilers of trees (each in an environment of its own) take turns in one run, and
every answer is compared inside it; then the same on two threads, and for the contributions of the rows that a batch
sends to review. A ratio is of one round's two turns; its spread is over the rounds. On one thread it is CPU time that
counts, on a machine with nothing else to do the same as elapsed time; on two threads it is elapsed time.
"""

import argparse
import hashlib
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime
import xgboost

from contenders import environment
from figures import Row
from models.ensemble import session_options, warm
from models.forest import Forest, parse_lightgbm, parse_xgboost
from models.forest_engine import ForestEngine
from models.meta import MetaModel
from models.onnx_graph import INPUT, SCORE, ensemble_graph
from models.shap import Contributions
from outside import Outside
from scene import KEPT
from spread import FAILED, claim, failure, spread

TREES = 300
FEATURES = 24
ROWS = 65_536
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048, 4096, 16_384, 65_536)
SEED = 0
ROUNDS = 15
LONG_ROUNDS = 5  # of more than 4,096 rows
# Calls a turn: short ones are repeated until they take about as long as so many rows.
ROWS_A_TURN = 256
BATCH = 2048
LEARNED = 200_000  # rows of a history, those before the ones that are scored
REVIEW_RATE = 0.02
META = MetaModel(bias=-0.2, xgboost=0.5, lightgbm=0.5)
BOUND = 10  # times, from 512 rows on
ONE_EVENT_US = 100
# Scripts in peers/, by the environment each needs; what they give of a row's two margins.
OUTSIDE = {"tl2cgen": ("trees_tl2cgen.py", slice(None)), "lleaves": ("trees_lleaves.py", slice(1, 2))}


def sample(seed=SEED):
    """Payments float32[ROWS, FEATURES] whose fraud depends on a few features; one is missing now and then."""
    rng = np.random.default_rng(seed)
    counts = [rng.lognormal(3, 1, ROWS), rng.poisson(3, ROWS), rng.poisson(10, ROWS)]
    x = np.column_stack([*counts, rng.normal(size=(ROWS, FEATURES - 3))]).astype(np.float32)
    risk = np.log(x[:, 0]) - 4 + x[:, 5] * x[:, 6] + 0.3 * x[:, 1] + rng.normal(size=ROWS)
    x[rng.random(ROWS) < 0.1, 4] = np.nan
    return x, (risk > 1.8).astype(np.int8)


def history(path, label, config):
    """Return features float32[n, k] and labels of a file's last payments, as `fraudstream train` reads them."""
    from state.features import default_feature_set
    from stream.labelled import read_labelled
    from stream.settings import load_settings

    settings = load_settings(config, {}, {})
    rows = read_labelled(
        path,
        label,
        settings.mapping(),
        settings.limits(),
        settings.state_spec(),
        default_feature_set(),
        now_ms=time.time_ns() // 1_000_000,
    )
    most = LEARNED + ROWS
    return rows.features[-most:], rows.labels[-most:]


def train(x, labels):
    """Return both boosters, each to run on one thread."""
    first = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "max_bin": 255, "nthread": 1}
    second = {"objective": "binary", "num_leaves": 31, "learning_rate": 0.1, "num_threads": 1, "verbose": -1}
    return (
        xgboost.train(first, xgboost.DMatrix(x, labels, nthread=1), TREES),
        lightgbm.train(second, lightgbm.Dataset(x, labels), TREES),
    )


def read(first, second) -> tuple[Forest, Forest]:
    return parse_xgboost(bytes(first.save_raw("json"))), parse_lightgbm(second.model_to_string())


def check_leaves(boosters, forests, x):
    """Compare the leaf of every row in every tree with the libraries' own, and our sums with those leaves'."""
    engine = ForestEngine(*forests, META)
    reached = (
        boosters[0].predict(xgboost.DMatrix(x, nthread=1), pred_leaf=True),
        boosters[1].predict(x, pred_leaf=True, num_threads=1),
    )
    for number, (forest, theirs) in enumerate(zip(forests, reached, strict=True)):
        leaves = forest.leaves(x)
        assert np.array_equal(forest.leaf_id[leaves], theirs.reshape(len(x), -1)), "a leaf is not the library's"
        sums = forest.base + forest.value[leaves].sum(axis=1)
        assert np.allclose(engine.margins(x)[:, number], sums, rtol=0, atol=1e-12), "a leaf is not the forest's"


def contestants(first, second, forests, threads=1):
    """Return what scores, by name; the libraries' own predictions end with the meta-model in NumPy."""
    options = session_options()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(ensemble_graph(*forests, META), options, providers=["CPUExecutionProvider"])
    first.set_param({"nthread": threads})

    def native(x):
        margins = [
            first.inplace_predict(x, predict_type="margin", missing=np.nan),
            second.predict(x, raw_score=True, num_threads=threads),
        ]
        return (1.0 / (1.0 + np.exp(-META.log_odds(np.column_stack(margins))))).astype(np.float32)

    return {
        "forest": forest_on(forests, threads),
        "onnx": lambda x: session.run([SCORE], {INPUT: x})[0],
        "xgboost + lightgbm": native,
        "xgboost alone": first.inplace_predict,
        "lightgbm alone": lambda x: second.predict(x, num_threads=threads),
    }


def forest_on(forests, threads):
    """Return our engine; on several threads, one for each, which share a batch."""
    engines = [ForestEngine(*forests, META) for _ in range(threads)]
    if threads == 1:
        return engines[0].score
    pool = ThreadPoolExecutor(threads)

    def score(x):
        parts = pool.map(lambda engine, part: engine.score(part), engines, np.array_split(x, threads))
        return np.concatenate(list(parts))

    return score


def outsiders(boosters, x):
    """Return the contenders in environments of their own, and why those are not there that could not be made."""
    models = {
        "xgboost.json": bytes(boosters[0].save_raw("json")),
        "lightgbm.txt": boosters[1].model_to_string().encode(),
    }
    folder = KEPT / f"trees-{hashlib.sha256(b''.join(models.values())).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in models.items():
        (folder / name).write_bytes(content)
    np.save(folder / "rows.npy", x)
    found, failed = {}, {}
    for name, (script, _) in OUTSIDE.items():
        try:
            found[name] = Outside(environment(name), script, folder)
        except (subprocess.CalledProcessError, OSError, RuntimeError) as error:
            failed[name] = failure(error)
    return found, failed


def race(scorers, outside, x, margins, threads=1):
    """Return µs an event of each, by round, their turns taken in alternation, and who failed; compare all answers."""
    clock = time.process_time if threads == 1 else time.perf_counter
    calls = max(1, ROWS_A_TURN // len(x))
    times = {name: [] for name in (*scorers, *outside)}
    answers, failed = {}, {}
    for name, contender in outside.items():
        try:
            found = contender.answers(len(x), threads)
        except (OSError, RuntimeError) as error:
            failed[name] = failure(error)
            continue
        if not np.allclose(found, margins[:, OUTSIDE[name][1]], rtol=0, atol=1e-4):
            failed[name] = f"{FAILED}its log-odds are not ours"
    running = {name: contender for name, contender in outside.items() if name not in failed}
    for _ in range(ROUNDS if len(x) <= 4096 else LONG_ROUNDS):
        for name, score in scorers.items():
            start = clock()
            for _ in range(calls):
                answers[name] = score(x)
            times[name].append((clock() - start) / calls / len(x) * 1e6)
        for name, contender in running.items():
            times[name].append(contender.secs(len(x), calls, threads) / calls / len(x) * 1e6)
    for name in ("onnx", "xgboost + lightgbm"):
        assert np.allclose(answers["forest"], answers[name], rtol=2e-5, atol=1e-7), name
    return times, failed


def rows_of(size, times, failed, threads=1):
    """Rows of (figure, measured, bound) of one batch size; failed: what is said of those that did not race."""
    label = f"engines, batch {size}" + (f", {threads} threads" if threads > 1 else "")
    own = times["forest"]
    yield Row(
        f"{label}, forest, µs an event",
        claim(own, f"≤ {ONE_EVENT_US}" if size == 1 else ""),
        f"≤ {ONE_EVENT_US}" if size == 1 else "",
        own,
        "µs an event",
    )
    for name, other in times.items():
        if name == "forest" or name in failed:
            continue
        # lleaves and the libraries alone do a part of the work: they are shown, and bound nothing.
        whole = name in ("onnx", "xgboost + lightgbm", "tl2cgen")
        bound = (f"≥ {BOUND}" if size >= 512 and name != "tl2cgen" else "≥ 1") if whole else ""
        ratios = [b / a for a, b in zip(own, other, strict=True)]
        part = "" if whole else ", a part of the work"
        yield Row(f"  {name}{part}, times ours", f"{claim(ratios, bound, 1)}; {spread(other)} µs", bound, ratios)
    for name, why in failed.items():
        yield Row(f"  {name}", why, "")


def explainers(first, second, forests):
    """Return what gives contributions float64[n, k] of the ensemble, by name."""
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


def reasons(first, second, forests, x, scoring_us):
    """Rows for a batch's share of reviews and for one review alone."""
    ways = explainers(first, second, forests)
    for count in (1, int(REVIEW_RATE * BATCH)):
        times = {name: [] for name in ways}
        answers = {}
        for _ in range(ROUNDS):
            for name, explain in ways.items():
                start = time.process_time()
                answers[name] = explain(x[:count])
                times[name].append((time.process_time() - start) / count * 1e6)
        assert np.allclose(answers["compiled"], answers["xgboost + lightgbm"], rtol=0, atol=1e-5)
        own, native = times.values()
        ratios = [b / a for a, b in zip(own, native, strict=True)]
        measured = f"{spread(own, 1)} µs; libraries {spread(ratios, 0)} ×"
        yield Row(f"reasons, {count} at a time, a row explained", measured, "", own, "µs")
    added = [REVIEW_RATE * one for one in own]
    measured = f"{spread(added)} µs an event; scoring it {spread(scoring_us)}"
    yield Row(f"reasons for {REVIEW_RATE:.0%} of a batch of {BATCH}", measured, "", added, "µs")


def table(data=None, sizes=SIZES, *, with_outside=True):
    """Rows of (figure, measured, bound). data: features and labels in order of time; without, the seeded sample."""
    warm()
    x, labels = data or sample()
    scored = min(ROWS, len(x) // 4) if data else ROWS  # rows that were not learned from, where there are enough
    learned = slice(0, len(x) - scored) if data else slice(0, ROWS * 9 // 10)
    boosters = train(x[learned], labels[learned])
    x = np.ascontiguousarray(x[-scored:])
    forests = read(*boosters)
    check_leaves(boosters, forests, x[:BATCH])
    outside, missing = outsiders(boosters, x) if with_outside else ({}, {})
    rows, scoring_us = [], [0.0]
    try:
        engine = ForestEngine(*forests, META)
        everything, margins = engine.score(x), engine.margins(x)
        for threads in (1, 2):
            scorers = contestants(*boosters, forests, threads)
            for size in sizes:
                batch = x[:size].copy()
                assert (scorers["forest"](batch) == everything[: len(batch)]).all()
                times, failed = race(scorers, outside, batch, margins[:size], threads)
                if size == BATCH and threads == 1:
                    scoring_us = times["forest"]
                rows += rows_of(size, times, missing | failed, threads)
        boosters[0].set_param({"nthread": 1})
    finally:
        for contender in outside.values():
            contender.close()
    return [*rows, *reasons(*boosters, forests, x, scoring_us)]


def asked():
    parser = argparse.ArgumentParser(description="Engines side by side.")
    parser.add_argument("--history", type=Path, help="train on this labelled file (CSV, Parquet) instead of the sample")
    parser.add_argument("--label", default="is_fraud", help="its column that says 1 for fraud")
    parser.add_argument("--config", type=Path, help="settings with the mapping of its columns")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="batch sizes")
    parser.add_argument("--inside", action="store_true", help="without tl2cgen and lleaves")
    return parser.parse_args()


if __name__ == "__main__":
    given = asked()
    read_rows = history(given.history, given.label, given.config) if given.history else None
    for figure, measured, bound, *_ in table(read_rows, given.sizes, with_outside=not given.inside):
        print(f"{figure:<45} {measured:<75} {bound}", flush=True)
