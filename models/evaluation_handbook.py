"""The protocol of the Fraud Detection Handbook: learn from a week, wait a week for labels, be judged on the week after.

    |<- train_days ->|<- delay_days ->|<- test_days ->|
    start            labels unknown    judged

A label is known delay_days after its transaction. So on each test day the cards with a fraud between `start` and
delay_days before that day are known as compromised, blocked, and left out: catching them again would be no merit. In
CP@100, a card found on one test day is left out of the days after. (Le Borgne, Siblini, Lebichot, Bontempi:
Reproducible Machine Learning for Credit Card Fraud Detection, 2022, chapters 3.4 and 4.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.boosting import FITTERS, Parameters
from models.bootstrap import RESAMPLES, Estimate, intervals
from models.errors import EvaluationError, TrainingError
from models.evaluation import ModelFigures
from models.evaluation_cards import CARDS_A_DAY, CardPrecision
from models.evaluation_ranking import Ranking
from models.folds import DAY_MS
from models.history import Part
from models.rivals import fit_logistic_regression, fit_random_forest
from models.train import DEFAULT_THREADS, train


@dataclass(frozen=True, slots=True)
class Protocol:
    """Lengths in days."""

    train_days: int = 7
    delay_days: int = 7
    test_days: int = 7

    @property
    def days(self) -> int:
        """From the first training day to the end of the last test day."""
        return self.train_days + self.delay_days + self.test_days


HANDBOOK = Protocol()


@dataclass(frozen=True, slots=True)
class History:
    """Labelled transactions: features float32[n, k], labels int8[n], times_ms int64[n], users int32[n] from 0."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    times_ms: npt.NDArray[np.int64]
    users: npt.NDArray[np.int32]
    feature_names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of the training and the test part, and how many test rows were of cards known as compromised."""

    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    known: int


@dataclass(frozen=True, slots=True)
class Run:
    """One training week and what came of it."""

    train_start: str
    train_events: int
    train_frauds: int
    test_events: int
    test_frauds: int
    left_out: int
    models: dict[str, ModelFigures]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs, and how they were made."""

    protocol: Protocol
    cards_a_day: int
    seed: int
    resamples: int
    runs: list[Run]


def split_by_protocol(history: History, start_ms: int, protocol: Protocol = HANDBOOK) -> Split:
    """Return the parts; start_ms is the beginning of a UTC day."""
    day = (history.times_ms - start_ms) // DAY_MS
    judged_from = protocol.train_days + protocol.delay_days
    train = np.flatnonzero((day >= 0) & (day < protocol.train_days))
    test = np.flatnonzero((day >= judged_from) & (day < protocol.days))
    # The day of each card's first fraud since the start: known from delay_days after that day's end.
    first = np.full(int(history.users.max(initial=-1)) + 1, np.iinfo(np.int64).max // 2)
    frauds = np.flatnonzero((history.labels == 1) & (day >= 0))
    np.minimum.at(first, history.users[frauds], day[frauds])
    known = first[history.users[test]] < day[test] - protocol.delay_days
    return Split(train, test[~known], int(known.sum()))


def compare(
    history: History,
    starts: Sequence[str],
    *,
    protocol: Protocol = HANDBOOK,
    cards_a_day: int = CARDS_A_DAY,
    seed: int = 1,
    resamples: int = RESAMPLES,
    threads: int = DEFAULT_THREADS,
    progress: Callable[[int], object] = lambda _: None,
) -> Comparison:
    """Train and judge every model for each first training day (YYYY-MM-DD, UTC); progress is told the runs done.

    Raises EvaluationError where the history does not cover a run, or its week cannot be learned from.
    """
    splits = [_covered(history, start, protocol) for start in starts]
    runs = []
    for start, split in zip(starts, splits, strict=True):
        try:
            scores = _scores(history, split, seed, threads)
        except TrainingError as error:
            # What it says to change are settings of `train`, which the protocol fixes.
            why = str(error).partition(";")[0].rstrip(".")
            raise EvaluationError(
                f"The {protocol.train_days} days from {start} cannot be learned from: {why}; choose another first "
                f"training day, or give a file with more frauds."
            ) from error
        labels, learned = history.labels[split.test], history.labels[split.train]
        users, times = history.users[split.test], history.times_ms[split.test]
        models = {
            name: _figures(found, labels, users, times, cards_a_day, seed, resamples) for name, found in scores.items()
        }
        runs.append(
            Run(start, len(learned), int(learned.sum()), len(labels), int(labels.sum()), split.known, models),
        )
        progress(len(runs))
    return Comparison(protocol, cards_a_day, seed, resamples, runs)


def _covered(history: History, start: str, protocol: Protocol) -> Split:
    """Return the run's parts, once it is sure that the history holds all of its days and both classes."""
    first_day, last_day = (int(time // DAY_MS) for time in (history.times_ms.min(), history.times_ms.max()))
    day = int(np.datetime64(start, "D").astype(np.int64))
    covered = last_day - first_day + 1
    if covered < protocol.days:
        raise EvaluationError(f"A run takes {protocol.days} days, but the history has {covered}: give a longer one.")
    if not first_day <= day <= last_day - protocol.days + 1:
        first, latest = np.datetime64(first_day, "D"), np.datetime64(last_day - protocol.days + 1, "D")
        raise EvaluationError(
            f"A run from {start} takes {protocol.days} days that the history does not hold: choose a first training "
            f"day from {first} to {latest}.",
        )
    split = split_by_protocol(history, day * DAY_MS, protocol)
    frauds = int(history.labels[split.test].sum())
    if frauds in (0, len(split.test)):
        raise EvaluationError(
            f"The test days of the run from {start} hold {frauds} frauds among {len(split.test)} transactions of cards "
            "not yet known: choose another first training day.",
        )
    return split


def _scores(history: History, split: Split, seed: int, threads: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return each model's scores of the test rows."""
    features, labels = history.features[split.train], history.labels[split.train]
    judged = np.ascontiguousarray(history.features[split.test])
    return {
        **_ensemble(history, split.train, judged, seed, threads),
        "random forest": fit_random_forest(features, labels, seed=seed, threads=threads).shares(judged),
        "logistic regression": fit_logistic_regression(features, labels).log_odds(judged),
    }


def _ensemble(
    history: History,
    learned: npt.NDArray[np.int64],
    judged: npt.NDArray[np.float32],
    seed: int,
    threads: int,
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the scores of the default ensemble and of its base models.

    The weights of the two come from folds within the days given, as `train` finds them; then both learn from all days.
    """
    trained = train(
        history.features[learned],
        history.labels[learned],
        history.times_ms[learned],
        feature_names=list(history.feature_names),
        seed=seed,
        threads=threads,
    )
    # `train` keeps the week's last days from its models; the rivals learned from them too.
    week = Part(history.features[learned], history.labels[learned])
    unknown = Part(judged, np.zeros(len(judged), np.int8))
    margins = np.column_stack([_fitted(library, trained.parameters[library], week, unknown) for library in FITTERS])
    return {"ensemble": trained.meta.log_odds(margins), "XGBoost": margins[:, 0], "LightGBM": margins[:, 1]}


def _fitted(library: str, recorded: Parameters, week: Part, judged: Part) -> npt.NDArray[np.float64]:
    """Return the margins float64[n] of what is judged, by the library as it was trained, but on the whole week."""
    own = {name: value for name, value in recorded.items() if name not in ("version", "rounds")}
    return FITTERS[library](week, judged, own, recorded["rounds"]).margins


def _figures(
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int8],
    users: npt.NDArray[np.int32],
    times_ms: npt.NDArray[np.int64],
    cards_a_day: int,
    seed: int,
    resamples: int,
) -> ModelFigures:
    ranking = Ranking(scores, labels, users)
    cards = CardPrecision(scores, labels, times_ms, users, k=cards_a_day, drop_detected=True)
    found: list[Estimate] = intervals(
        lambda counts: np.concatenate([ranking(counts), cards(counts)]),
        int(users.max()) + 1,
        seed=seed,
        resamples=resamples,
    )
    return ModelFigures(*found)
