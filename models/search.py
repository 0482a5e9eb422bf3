"""A small seeded random search over the base models' parameters, on the folds that run forward in time.

Random, not a grid (Bergstra and Bengio 2012, "Random search for hyper-parameter optimization"): few of the parameters
matter, and a grid tries few values of those. Each library is searched by itself; the meta-model weighs them later.

Searching looks at all frauds and a seeded sample of the honest payments, in training and in validation parts alike:
that ranks the parameters as all rows would, at a fraction of the cost. Nothing else is taken from these fits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.boosting import FITTERS, Parameters
from models.folds import Fold
from models.history import History, Part
from models.metrics import average_precision

# Honest payments looked at for each fraud. Boosting learns little from more of them.
HONEST_A_FRAUD = 20

# What is tried. More than 255 bins leave ranks that need two bytes, which the compiled forest takes as exactly, but
# slower; XGBoost's bins blur sparse ratios, so a finer cut is worth a try there.
SPACE: dict[str, dict[str, tuple[Any, ...]]] = {
    "xgboost": {
        "max_depth": (4, 5, 6, 7, 8),
        "eta": (0.03, 0.05, 0.1, 0.2),
        "min_child_weight": (1.0, 3.0, 10.0),
        "subsample": (0.6, 0.8, 1.0),
        "colsample_bytree": (0.5, 0.8, 1.0),
        "reg_lambda": (1.0, 5.0, 20.0),
        "max_bin": (255, 1_023),
    },
    "lightgbm": {
        "num_leaves": (15, 31, 63, 127),
        "learning_rate": (0.03, 0.05, 0.1, 0.2),
        "min_data_in_leaf": (10, 20, 50, 100),
        "bagging_fraction": (0.6, 0.8, 1.0),
        "feature_fraction": (0.5, 0.8, 1.0),
        "lambda_l2": (1.0, 5.0, 20.0),
    },
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of parameters of one library, and how it did: mean of the folds' average precisions."""

    library: str
    chosen: Parameters
    average_precision: float
    rounds: tuple[int, ...]


def search(
    history: History,
    folds: Sequence[Fold],
    defaults: dict[str, Parameters],
    *,
    trials: int,
    seed: int,
    rounds: int | None,
    done: Callable[[], object],
) -> list[Trial]:
    """Try each library's defaults and then `trials` random draws on every fold; return all trials in that order.

    done: called after both libraries' fits on one fold.
    """
    if not trials:
        return []
    rng = np.random.default_rng(seed)
    parts = [(_sample(rng, history.part(0, f.train_end)), _sample(rng, history.part(f.start, f.end))) for f in folds]
    found: list[Trial] = []
    for at in range(trials + 1):
        draws = {library: _draw(rng, library) if at else {} for library in FITTERS}
        results: dict[str, list[tuple[float, int]]] = {library: [] for library in FITTERS}
        for train, judge in parts:
            for library, fit in FITTERS.items():
                fitted = fit(train, judge, {**defaults[library], **draws[library]}, rounds)
                results[library].append((average_precision(fitted.margins, judge.labels), fitted.rounds))
            done()
        for library, figures in results.items():
            mean = float(np.mean([precision for precision, _ in figures]))
            found.append(Trial(library, draws[library], mean, tuple(rounds for _, rounds in figures)))
    return found


def best(trials: Sequence[Trial], library: str) -> Parameters:
    """Return what the library's best trial changed of the defaults; the earlier of equals, nothing without trials."""
    ours = [trial for trial in trials if trial.library == library]
    return max(ours, key=lambda trial: trial.average_precision).chosen if ours else {}


def _draw(rng: np.random.Generator, library: str) -> Parameters:
    return {name: values[int(rng.integers(len(values)))] for name, values in SPACE[library].items()}


def _sample(rng: np.random.Generator, part: Part) -> Part:
    """Return all frauds and, of the honest payments, on average HONEST_A_FRAUD for each of them."""
    honest = len(part.labels) - int(part.labels.sum())
    share = HONEST_A_FRAUD * int(part.labels.sum()) / honest
    if share >= 1.0:
        return part
    kept = (part.labels == 1) | (rng.random(len(part.labels)) < share)
    return Part(part.features[kept], part.labels[kept])
