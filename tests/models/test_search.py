"""The search is seeded and runs on the folds alone; what nobody may learn from changes no model."""

from dataclasses import replace

import numpy as np
import pytest

from models.boosting import FITTERS, MAX_ROUNDS, Fit, lightgbm_parameters, xgboost_parameters
from models.folds import DAY_MS, Fold, Split, split_history
from models.forest import parse_lightgbm, parse_xgboost
from models.forest_engine import ForestMargins
from models.history import sort_history
from models.manifest import OUT_OF_FOLD
from models.metrics import auc_roc
from models.search import HONEST_A_FRAUD, SPACE, Trial, _sample, best, search
from models.train import Plan, _final_rounds, train_ensemble

NAMES = ("a", "b", "c", "d")
DEFAULTS = {"xgboost": xgboost_parameters(5, 1), "lightgbm": lightgbm_parameters(5, 1)}
PLAN = Plan(seed=5, holdout_ms=10 * DAY_MS, label_delay_ms=5 * DAY_MS, folds=2, trials=1, threads=1)


def drawn(n=3_600, days=100, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(NAMES))).astype(np.float32)
    x[rng.random(n) < 0.2, 2] = np.nan
    risk = x[:, 0] + np.abs(x[:, 1]) + np.nan_to_num(x[:, 2]) + rng.normal(size=n)
    return x, (risk > 3.4).astype(np.int8), np.sort(rng.integers(0, days * DAY_MS, n))


@pytest.fixture(scope="module")
def data():
    return drawn()


@pytest.fixture(scope="module")
def first(data):
    told = []
    trained, unseen = train_ensemble(*data, feature_names=NAMES, plan=PLAN, progress=lambda *at: told.append(at))
    return trained, unseen, told


def test_the_same_again_gives_the_same_and_progress_counts_every_step(data, first):
    again, unseen = train_ensemble(*data, feature_names=NAMES, plan=PLAN)
    assert again == first[0]
    assert unseen.held.scores.tobytes() == first[1].held.scores.tobytes()
    assert first[2] == [(at, PLAN.steps) for at in range(1, PLAN.steps + 1)]
    assert PLAN.steps == 2 * 2 + 2 + 1


@pytest.mark.parametrize("where", ["holdout", "gap"])
def test_what_may_not_be_learned_from_changes_no_model_and_no_threshold(data, first, where):
    x, y, times = data
    newest = times[-1]
    held = times > newest - 10 * DAY_MS
    gap = ~held & (times >= newest - 15 * DAY_MS + 1)
    rows = held if where == "holdout" else gap
    assert y[rows].sum() > 10
    rng = np.random.default_rng(1)
    spoiled_x, spoiled_y = x.copy(), y.copy()
    spoiled_x[rows], spoiled_y[rows] = rng.permuted(x[rows], axis=0), rng.permutation(y[rows])
    found, _ = train_ensemble(spoiled_x, spoiled_y, times, feature_names=NAMES, plan=PLAN)
    trained = first[0]
    for name in ("xgboost", "lightgbm", "meta", "thresholds", "trials", "parameters", "calibration"):
        assert getattr(found, name) == getattr(trained, name), name
    assert found.histograms.features == trained.histograms.features
    assert (found.metrics == trained.metrics) == (where == "gap")
    # What is shown to whoever chooses a model knows nothing of the holdout.
    assert out_of_fold(found) == out_of_fold(trained)


def out_of_fold(trained):
    return {name: value for name, value in trained.metrics.items() if name.startswith(OUT_OF_FOLD)}


def test_figures_out_of_fold_are_those_of_the_folds_validation_parts(data, first):
    _, y, times = data
    trained, scored = first[0], first[1].out_of_fold
    split = split_history(times, y, holdout_ms=PLAN.holdout_ms, label_delay_ms=PLAN.label_delay_ms, folds=PLAN.folds)
    assert scored.rows.tolist() == list(range(split.folds[0].start, split.folds[-1].end))
    assert (scored.labels == y[scored.rows]).all()
    assert out_of_fold(trained)["out_of_fold_auc_roc"] == auc_roc(scored.scores, scored.labels)
    assert {name.removeprefix(OUT_OF_FOLD) for name in out_of_fold(trained)} == trained.metrics.keys() - out_of_fold(
        trained
    ).keys()


def test_every_training_row_is_learned_from(data, first):
    x, y, times = data
    spoiled = y.copy()
    spoiled[:50] = 1 - spoiled[:50]
    found, _ = train_ensemble(x, spoiled, times, feature_names=NAMES, plan=PLAN)
    assert found.xgboost != first[0].xgboost
    assert found.lightgbm != first[0].lightgbm


def test_early_stopping_ends_long_before_the_limit_and_the_models_have_the_trees_they_say(first):
    trained = first[0]
    assert all(rounds < MAX_ROUNDS / 2 for trial in trained.trials for rounds in trial.rounds)
    assert len(parse_xgboost(trained.xgboost).roots) == trained.parameters["xgboost"]["rounds"]
    assert len(parse_lightgbm(trained.lightgbm).roots) == trained.parameters["lightgbm"]["rounds"]


def test_more_rows_get_more_trees_by_the_square_root_of_how_many_times_more():
    split = Split(Fold(9_000, 9_000, 9_500), (Fold(1_000, 1_000, 2_000), Fold(4_000, 4_000, 5_000)))
    fits = [Fit(np.empty(0), 100, b""), Fit(np.empty(0), 120, b"")]
    assert _final_rounds(fits, split, PLAN) == (300 + 180) / 2
    assert _final_rounds([Fit(np.empty(0), 900, b"")] * 2, split, PLAN) == MAX_ROUNDS
    assert _final_rounds(fits, split, replace(PLAN, rounds=7)) == 7


def test_the_defaults_are_tried_first_and_each_draw_comes_from_the_space(data):
    history = sort_history(*data, NAMES)
    folds = split_history(history.times_ms, history.labels, holdout_ms=9 * DAY_MS, label_delay_ms=DAY_MS, folds=1).folds
    done = []
    trials = search(history, folds, DEFAULTS, trials=3, seed=9, rounds=3, done=lambda: done.append(1))
    assert [trial.library for trial in trials] == ["xgboost", "lightgbm"] * 4
    assert [trial.chosen for trial in trials[:2]] == [{}, {}]
    assert len(done) == 4
    for trial in trials[2:]:
        space = SPACE[trial.library]
        assert trial.chosen.keys() == space.keys()
        assert all(value in space[name] for name, value in trial.chosen.items())
    assert len({str(trial.chosen) for trial in trials}) > 4
    other = search(history, folds, DEFAULTS, trials=3, seed=10, rounds=3, done=lambda: None)
    assert other != trials
    assert search(history, folds, DEFAULTS, trials=0, seed=9, rounds=3, done=lambda: None) == []


def test_the_best_trial_wins_and_of_equals_the_earlier():
    trials = [
        Trial("xgboost", {}, 0.5, (1,)),
        Trial("lightgbm", {}, 0.9, (1,)),
        Trial("xgboost", {"eta": 0.2}, 0.6, (1,)),
        Trial("xgboost", {"eta": 0.3}, 0.6, (1,)),
    ]
    assert best(trials, "xgboost") == {"eta": 0.2}
    assert best(trials, "lightgbm") == {}
    assert best([], "xgboost") == {}


def test_searching_looks_at_every_fraud_and_some_honest_payments():
    x, y, times = drawn()
    y = y * (np.arange(len(y)) % 8 == 0)
    part = sort_history(x, y, times, NAMES).part(0, len(y))
    frauds = int(y.sum())
    sampled = _sample(np.random.default_rng(0), part)
    assert sampled.labels.sum() == frauds
    honest = len(sampled.labels) - frauds
    assert 0.8 * HONEST_A_FRAUD * frauds < honest < 1.2 * HONEST_A_FRAUD * frauds
    few = sort_history(x, (np.arange(len(y)) % 3 == 0), times, NAMES).part(0, len(y))
    assert _sample(np.random.default_rng(0), few) is few


@pytest.mark.parametrize("library", FITTERS)
def test_what_the_space_holds_stays_exact_in_the_compiled_forest(data, library):
    """Every largest value at once: the deepest trees, the finest bins."""
    history = sort_history(*data, NAMES)
    part = history.part(0, 2_600)
    parameters = {**DEFAULTS[library], **{name: max(values) for name, values in SPACE[library].items()}}
    fit = FITTERS[library](part, history.part(2_600, 3_600), parameters, 10)
    forest = parse_xgboost(fit.model) if library == "xgboost" else parse_lightgbm(fit.model.decode())
    x = np.concatenate([history.features[2_600:], part.features[:500]])
    margins = ForestMargins(forest, 1).margins(x)
    assert margins[:1_000] == pytest.approx(fit.margins, abs=1e-5)
    assert ForestMargins(forest, 1 << 20).margins(x).tobytes() == margins.tobytes()
