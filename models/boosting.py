"""The two base models: gradient-boosted forests of XGBoost and LightGBM, behind one way of fitting them.

Deterministic: equal rows, parameters, seed and library versions give equal models byte for byte on one thread. With
more threads LightGBM promises the same of its deterministic mode; XGBoost adds histograms up in blocks whose number
follows the number of threads, so that number is part of what must be equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import numpy as np
import numpy.typing as npt
import xgboost

from models.history import Part

# Equal for both libraries. At most 255 bins keep every feature's thresholds countable in one byte.
LEARNING_RATE = 0.1
MAX_BIN = 255

# With early stopping: enough for any learning rate searched, and how long the log loss may fail to improve.
MAX_ROUNDS = 1_000
PATIENCE = 30

Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fit:
    """A base model fitted on one part: log-odds float64[n] of the other, rounds used, the model in its own writing."""

    margins: npt.NDArray[np.float64]
    rounds: int
    model: bytes


class Fitter(Protocol):
    """Fits on `train` and gives the log-odds of `judge`.

    rounds: how many trees. None: as many as `judge`'s log loss goes down for, which is then part of the fitting.
    """

    def __call__(self, train: Part, judge: Part, parameters: Parameters, rounds: int | None) -> Fit:
        """Return the fit."""


def xgboost_parameters(seed: int, threads: int) -> Parameters:
    """Return what XGBoost trains with unless a search finds better."""
    return {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "max_depth": 6,
        "eta": LEARNING_RATE,
        "max_bin": MAX_BIN,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "seed": seed,
        "nthread": threads,
        "verbosity": 0,
    }


def lightgbm_parameters(seed: int, threads: int) -> Parameters:
    """Return what LightGBM trains with unless a search finds better."""
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": 31,
        "learning_rate": LEARNING_RATE,
        "max_bin": MAX_BIN,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": 0.8,
        # The default 0.001 lets one leaf of honest payments alone run off to any log-odds.
        "min_sum_hessian_in_leaf": 0.1,
        "lambda_l2": 1.0,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }


def fit_xgboost(train: Part, judge: Part, parameters: Parameters, rounds: int | None) -> Fit:
    """Fit XGBoost; its model is JSON."""
    threads = parameters["nthread"]
    data = xgboost.DMatrix(train.features, train.labels, nthread=threads)
    seen = xgboost.DMatrix(judge.features, judge.labels, nthread=threads)
    if rounds is None:
        booster = xgboost.train(
            parameters,
            data,
            MAX_ROUNDS,
            evals=[(seen, "judge")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        rounds = booster.best_iteration + 1
    else:
        booster = xgboost.train(parameters, data, rounds)
    margins = booster.predict(seen, output_margin=True, iteration_range=(0, rounds))
    return Fit(margins.astype(np.float64), rounds, bytes(booster.save_raw("json")))


def fit_lightgbm(train: Part, judge: Part, parameters: Parameters, rounds: int | None) -> Fit:
    """Fit LightGBM; its model is text."""
    data = lightgbm.Dataset(train.features, train.labels, params=parameters)
    if rounds is None:
        seen = lightgbm.Dataset(judge.features, judge.labels, params=parameters, reference=data)
        stopping: list[Callable[..., Any]] = [lightgbm.early_stopping(PATIENCE, verbose=False)]
        booster = lightgbm.train(parameters, data, MAX_ROUNDS, valid_sets=[seen], callbacks=stopping)
        rounds = max(1, booster.best_iteration)
    else:
        booster = lightgbm.train(parameters, data, rounds)
    margins = booster.predict(judge.features, raw_score=True, num_iteration=rounds)
    return Fit(np.asarray(margins, np.float64), rounds, booster.model_to_string().encode())


FITTERS: dict[str, Fitter] = {"xgboost": fit_xgboost, "lightgbm": fit_lightgbm}
