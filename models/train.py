"""Trains the ensemble: two gradient-boosted forests and a logistic regression over their log-odds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import xgboost

from models.errors import TrainingError
from models.history import Part, split_history
from models.meta import MetaModel, fit_meta
from models.metrics import at_threshold, auc_roc, average_precision
from models.policy import Thresholds

# Equal for both libraries. At most 255 bins keep every feature's thresholds countable in one byte.
LEARNING_RATE = 0.1
MAX_BIN = 255

DEFAULT_ROUNDS = 100
# Fixed, not the machine's number of cores: the order in which threads add up can change a model's last bits.
DEFAULT_THREADS = 2
DEFAULT_REVIEW_RATE = 0.02
DEFAULT_DECLINE_RATE = 0.005


@dataclass(frozen=True, slots=True)
class Trained:
    """All of an ensemble that a bundle needs from its training; the models as the libraries' own JSON and text."""

    feature_names: tuple[str, ...]
    xgboost: bytes
    lightgbm: str
    meta: MetaModel
    thresholds: Thresholds
    metrics: dict[str, float]
    parameters: dict[str, Any]


def train(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    event_times_ms: npt.NDArray[np.int64],
    *,
    feature_names: Sequence[str],
    seed: int,
    rounds: int = DEFAULT_ROUNDS,
    threads: int = DEFAULT_THREADS,
    review_rate: float = DEFAULT_REVIEW_RATE,
    decline_rate: float = DEFAULT_DECLINE_RATE,
) -> Trained:
    """Train on features float32[n, k] (NaN: not known), labels int8[n] (1: fraud) and times [n], in any order.

    The history is split by time: base models, meta-model, and thresholds with metrics each see a later part (see
    `models.history`). The thresholds send the `review_rate` most suspicious share of the newest part to review and
    decline the `decline_rate` share. Same data, parameters and library versions give the same models byte for byte.
    Raises TrainingError.
    """
    _check_parameters(rounds, threads, review_rate, decline_rate)
    history = split_history(features, labels, event_times_ms, feature_names)
    xgboost_params, lightgbm_params = _parameters(seed, threads)
    first = _train_xgboost(history.learn, xgboost_params, rounds)
    second = _train_lightgbm(history.learn, lightgbm_params, rounds)
    meta = fit_meta(_margins(first, second, history.blend), history.blend.labels)

    margins = _margins(first, second, history.judge)
    scores = (1.0 / (1.0 + np.exp(-meta.log_odds(margins)))).astype(np.float32)
    thresholds = Thresholds(review=threshold_for(scores, review_rate), decline=threshold_for(scores, decline_rate))
    return Trained(
        feature_names=tuple(feature_names),
        xgboost=bytes(first.save_raw("json")),
        lightgbm=second.model_to_string(),
        meta=meta,
        thresholds=thresholds,
        metrics=_metrics(scores, margins, history.judge.labels, thresholds),
        parameters={
            "rounds": rounds,
            "review_rate": review_rate,
            "decline_rate": decline_rate,
            "xgboost": {"version": xgboost.__version__, **xgboost_params},
            "lightgbm": {"version": lightgbm.__version__, **lightgbm_params},
        },
    )


def threshold_for(scores: npt.NDArray[np.float32], rate: float) -> float:
    """Return the lowest threshold that at most this share of the scores float32[n] reaches; 1.0 where none fits."""
    allowed = int(rate * len(scores))
    distinct, counts = np.unique(scores, return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1]
    fits = distinct[reached <= allowed]
    return float(fits[0]) if len(fits) else 1.0


def _check_parameters(rounds: int, threads: int, review_rate: float, decline_rate: float) -> None:
    if rounds < 1 or threads < 1:
        raise TrainingError(f"Rounds and threads must be at least 1, but are {rounds} and {threads}.")
    if not 0.0 < decline_rate <= review_rate < 1.0:
        raise TrainingError(
            f"The rates must satisfy 0 < decline <= review < 1, "
            f"but decline is {decline_rate:g} and review {review_rate:g}.",
        )


def _parameters(seed: int, threads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what each library trains with."""
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": 6,
        "eta": LEARNING_RATE,
        "max_bin": MAX_BIN,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "seed": seed,
        "nthread": threads,
        "verbosity": 0,
    }, {
        "objective": "binary",
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


def _train_xgboost(part: Part, params: dict[str, Any], rounds: int) -> Any:
    data = xgboost.DMatrix(part.features, part.labels, nthread=params["nthread"])
    return xgboost.train(params, data, rounds)


def _train_lightgbm(part: Part, params: dict[str, Any], rounds: int) -> Any:
    data = lightgbm.Dataset(part.features, part.labels, params=params)
    return lightgbm.train(params, data, rounds)


def _margins(first: Any, second: Any, part: Part) -> npt.NDArray[np.float64]:
    """Return the log-odds float64[n, 2] that the two base models give a part."""
    margins = first.predict(xgboost.DMatrix(part.features), output_margin=True)
    return np.column_stack([margins, second.predict(part.features, raw_score=True)]).astype(np.float64)


def _metrics(
    scores: npt.NDArray[np.float32],
    margins: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    thresholds: Thresholds,
) -> dict[str, float]:
    """Return the figures on the part nothing has learned from, the base models' own beside the ensemble's."""
    figures = {"events": float(len(labels)), "frauds": float(labels.sum())}
    for name, ranking in (("", scores), ("xgboost_", margins[:, 0]), ("lightgbm_", margins[:, 1])):
        figures[f"{name}auc_roc"] = auc_roc(ranking, labels)
        figures[f"{name}average_precision"] = average_precision(ranking, labels)
    for name, threshold in (("review", thresholds.review), ("decline", thresholds.decline)):
        figures |= {f"{name}_{key}": value for key, value in at_threshold(scores, labels, threshold).items()}
    return figures
