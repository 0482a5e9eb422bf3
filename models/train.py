"""Trains the ensemble: two gradient-boosted forests and a logistic regression over their log-odds, calibrated.

Step 1  split by time: the holdout apart first, a training region, folds that run forward in it (`models.folds`)
Step 2  search the base models' parameters on the folds (`models.search`)
Step 3  fit both base models on every fold; their log-odds for the validation parts are the out-of-fold log-odds
Step 4  fit meta-model and calibration on those, and take the thresholds from the scores they give
Step 5  fit the base models on the whole training region, for as many rounds as the folds found, scaled
Step 6  read the holdout once: metrics for the watch, and the scores' reference histogram
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import xgboost

from models.boosting import FITTERS, MAX_ROUNDS, Fit, Parameters, lightgbm_parameters, xgboost_parameters
from models.calibration import Calibration, fit_calibration
from models.errors import TrainingError
from models.folds import DAY_MS, Fold, Split, split_history
from models.histograms import Histograms, reference
from models.history import History, check_labels, check_leaks, sort_history
from models.logistic import chances
from models.manifest import OUT_OF_FOLD
from models.meta import MetaModel, fit_meta
from models.metrics import figures
from models.policy import Thresholds
from models.search import Trial, best, search

DEFAULT_ROUNDS = 100
# Fixed, not the machine's number of cores: the order in which threads add up can change a model's last bits.
DEFAULT_THREADS = 2
DEFAULT_REVIEW_RATE = 0.02
DEFAULT_DECLINE_RATE = 0.005

# The quick path holds out the newest 15 % of events and blends on two folds.
QUICK_HOLDOUT = 0.15
QUICK_FOLDS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. rounds: None for early stopping on the folds, else a fixed number; trials: 0 for no search."""

    seed: int
    holdout_ms: int = 7 * DAY_MS
    label_delay_ms: int = 7 * DAY_MS
    folds: int = 3
    trials: int = 8
    rounds: int | None = None
    threads: int = DEFAULT_THREADS
    review_rate: float = DEFAULT_REVIEW_RATE
    decline_rate: float = DEFAULT_DECLINE_RATE

    def __post_init__(self) -> None:
        if (self.rounds is not None and self.rounds < 1) or self.threads < 1 or self.trials < 0:
            raise TrainingError(
                f"Rounds and threads must be at least 1 and trials not negative, "
                f"but they are {self.rounds}, {self.threads} and {self.trials}.",
            )
        if not 0.0 < self.decline_rate <= self.review_rate < 1.0:
            raise TrainingError(
                f"The rates must satisfy 0 < decline <= review < 1, "
                f"but decline is {self.decline_rate:g} and review {self.review_rate:g}.",
            )

    @property
    def steps(self) -> int:
        """How many times `progress` is told: once for each trial on each fold, each fold, and the final models."""
        return (self.trials + 1 if self.trials else 0) * self.folds + self.folds + 1


@dataclass(frozen=True, slots=True)
class Trained:
    """All of an ensemble that a bundle needs from its training; the models as the libraries' own JSON and text.

    meta: with the calibration folded in. uncalibrated, calibration: what it was made of, for the record. metrics: see
    `models.manifest.OUT_OF_FOLD`.
    """

    feature_names: tuple[str, ...]
    xgboost: bytes
    lightgbm: str
    meta: MetaModel
    thresholds: Thresholds
    metrics: dict[str, float]
    parameters: dict[str, Any]
    uncalibrated: MetaModel
    calibration: Calibration
    histograms: Histograms
    trials: tuple[Trial, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Which of the rows given (int64[m], in order of time), their labels int8[m], their scores float32[m]."""

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Unseen:
    """What was scored by models that had not learned from it: the folds' validation parts, and the holdout."""

    out_of_fold: ScoredRows
    held: ScoredRows


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
    """Train quickly, for a fixed number of rounds, without a search, on labels that are known at once.

    Takes features float32[n, k] (NaN: not known), labels int8[n] (1: fraud) and times [n], in any order; the newest
    15 % of events are the holdout. Raises TrainingError.
    """
    ordered = np.sort(event_times_ms)
    newest = int(ordered[-1] - ordered[math.ceil((1 - QUICK_HOLDOUT) * len(ordered)) - 1]) if len(ordered) else 1
    plan = Plan(
        seed=seed,
        holdout_ms=max(1, newest),
        label_delay_ms=0,
        folds=QUICK_FOLDS,
        trials=0,
        rounds=rounds,
        threads=threads,
        review_rate=review_rate,
        decline_rate=decline_rate,
    )
    return train_ensemble(features, labels, event_times_ms, feature_names=feature_names, plan=plan)[0]


def train_ensemble(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    event_times_ms: npt.NDArray[np.int64],
    *,
    feature_names: Sequence[str],
    plan: Plan,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> tuple[Trained, Unseen]:
    """Train on features float32[n, k] (NaN: not known), labels int8[n] (1: fraud) and times int64[n], in any order.

    progress: told how many of `plan.steps` are done. Same data, plan and library versions give the same models byte
    for byte (see `models.boosting` for threads). Raises TrainingError.
    """
    # Step 1
    history = sort_history(features, labels, event_times_ms, feature_names)
    split = _split(history.times_ms, history.labels, plan)
    check_leaks(history.part(0, split.holdout.train_end), feature_names)
    steps = _Steps(plan.steps, progress)
    # Step 2
    defaults = {
        "xgboost": xgboost_parameters(plan.seed, plan.threads),
        "lightgbm": lightgbm_parameters(plan.seed, plan.threads),
    }
    trials = search(
        history, split.folds, defaults, trials=plan.trials, seed=plan.seed, rounds=plan.rounds, done=steps.done
    )
    parameters = {library: {**default, **best(trials, library)} for library, default in defaults.items()}
    # Step 3
    fits: dict[str, list[Fit]] = {library: [] for library in FITTERS}
    for fold in split.folds:
        for library, fitted in fits.items():
            fitted.append(_fit(history, library, parameters, fold, plan.rounds))
        steps.done()
    margins = np.column_stack([np.concatenate([fit.margins for fit in fits[library]]) for library in FITTERS])
    # Step 4
    blend = _Blend.of(margins, history, split, plan)
    # Step 5
    rounds = {library: _final_rounds(fits[library], split, plan) for library in FITTERS}
    final = {library: _fit(history, library, parameters, split.holdout, rounds[library]) for library in FITTERS}
    steps.done()
    # Step 6
    held_margins = np.column_stack([final[library].margins for library in FITTERS])
    held = _scored(history, split.holdout.start, len(history.labels), blend.meta, held_margins)
    out_of_fold = _scored(history, split.folds[0].start, split.folds[-1].end, blend.meta, margins)
    trained = Trained(
        feature_names=tuple(feature_names),
        xgboost=final["xgboost"].model,
        lightgbm=final["lightgbm"].model.decode(),
        meta=blend.meta,
        thresholds=blend.thresholds,
        metrics=figures(held.scores, held_margins, held.labels, blend.thresholds)
        | {
            f"{OUT_OF_FOLD}{name}": value
            for name, value in figures(out_of_fold.scores, margins, out_of_fold.labels, blend.thresholds).items()
        },
        parameters=_record(plan, parameters, rounds, split, history),
        uncalibrated=blend.uncalibrated,
        calibration=blend.calibration,
        histograms=reference(history.features[: split.holdout.train_end], feature_names, held.scores),
        trials=tuple(trials),
    )
    return trained, Unseen(out_of_fold, held)


def check_splits(times_ms: npt.NDArray[np.int64], labels: npt.NDArray[np.int8], plan: Plan) -> None:
    """Raise TrainingError where ascending times int64[n] and labels int8[n] cannot be split as planned.

    For whoever would rather know before anything is computed over the whole history.
    """
    _split(times_ms, check_labels(labels), plan)


def threshold_for(scores: npt.NDArray[np.float32], rate: float) -> float:
    """Return the lowest threshold that at most this share of the scores float32[n] reaches; 1.0 where none fits."""
    allowed = int(rate * len(scores))
    distinct, counts = np.unique(scores, return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1]
    fits = distinct[reached <= allowed]
    return float(fits[0]) if len(fits) else 1.0


class _Steps:
    """Counts what is done."""

    def __init__(self, total: int, progress: Callable[[int, int], object]) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def done(self, steps: int = 1) -> None:
        self._done += steps
        self._progress(self._done, self._total)


@dataclass(frozen=True, slots=True)
class _Blend:
    """What is fitted on the out-of-fold log-odds."""

    uncalibrated: MetaModel
    calibration: Calibration
    meta: MetaModel
    thresholds: Thresholds

    @classmethod
    def of(cls, margins: npt.NDArray[np.float64], history: History, split: Split, plan: Plan) -> "_Blend":
        """Fit on margins [m, 2], the folds' validation parts one after the other."""
        labels = history.labels[split.folds[0].start : split.folds[-1].end]
        at = split.folds[0].start
        uncalibrated = fit_meta(margins, labels)
        calibration = fit_calibration(margins, labels, [slice(fold.start - at, fold.end - at) for fold in split.folds])
        meta = calibration.fold_into(uncalibrated)
        scores = _scores(meta, margins)
        rates = {"review": plan.review_rate, "decline": plan.decline_rate}
        thresholds = Thresholds(**{name: threshold_for(scores, rate) for name, rate in rates.items()})
        return cls(uncalibrated, calibration, meta, thresholds)


def _split(times_ms: npt.NDArray[np.int64], labels: npt.NDArray[np.int8], plan: Plan) -> Split:
    return split_history(
        times_ms,
        labels,
        holdout_ms=plan.holdout_ms,
        label_delay_ms=plan.label_delay_ms,
        folds=plan.folds,
    )


def _fit(history: History, library: str, parameters: dict[str, Parameters], fold: Fold, rounds: int | None) -> Fit:
    train_part, judge = history.part(0, fold.train_end), history.part(fold.start, fold.end)
    return FITTERS[library](train_part, judge, parameters[library], rounds)


def _final_rounds(fits: Sequence[Fit], split: Split, plan: Plan) -> int:
    """Return how many trees the final model gets: the mean of the folds' best numbers, each scaled for its size.

    More rows carry more rounds before a forest learns noise. The noise in a leaf's gain falls with the square root of
    its rows, so a fold's number grows by the square root of how many times more rows the whole region has.
    """
    if plan.rounds is not None:
        return plan.rounds
    scaled = [
        fit.rounds * math.sqrt(split.holdout.train_end / fold.train_end)
        for fit, fold in zip(fits, split.folds, strict=True)
    ]
    return min(MAX_ROUNDS, max(1, round(sum(scaled) / len(scaled))))


def _scored(history: History, first: int, end: int, meta: MetaModel, margins: npt.NDArray[np.float64]) -> ScoredRows:
    return ScoredRows(history.order[first:end], history.labels[first:end], _scores(meta, margins))


def _scores(meta: MetaModel, margins: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return chances(meta.log_odds(margins)).astype(np.float32)


def _record(
    plan: Plan, parameters: dict[str, Parameters], rounds: dict[str, int], split: Split, history: History
) -> dict[str, Any]:
    """Return everything that the models followed from, besides the data."""
    versions = {"xgboost": xgboost.__version__, "lightgbm": lightgbm.__version__}
    return {
        "seed": plan.seed,
        "holdout_days": plan.holdout_ms / DAY_MS,
        "label_delay_days": plan.label_delay_ms / DAY_MS,
        "trials": plan.trials,
        "early_stopping": plan.rounds is None,
        "review_rate": plan.review_rate,
        "decline_rate": plan.decline_rate,
        "training_events": split.holdout.train_end,
        "training_frauds": int(history.labels[: split.holdout.train_end].sum()),
        "folds": [[fold.train_end, fold.start, fold.end] for fold in split.folds],
        **{
            library: {"version": versions[library], "rounds": rounds[library], **parameters[library]}
            for library in FITTERS
        },
    }
