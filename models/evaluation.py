"""One model on labelled transactions: every figure a report shows, each with its interval.

figures (functions of how often each user counts)  →  bootstrap.intervals, one pass over the draws for all of them
                                                   →  Evaluation, plain numbers with names
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.bootstrap import LEVEL, RESAMPLES, Estimate, Weighted, intervals
from models.errors import EvaluationError
from models.evaluation_calibration import Bin, LineOfGroups, ReliabilityOfGroups, reliability
from models.evaluation_cards import CARDS_A_DAY, CardPrecision
from models.evaluation_curves import Curve, Histogram, curve, histogram
from models.evaluation_policy import DEFAULT_PRICES, PolicySums, Prices
from models.evaluation_ranking import Ranking
from models.evaluation_segments import Segment, SegmentFigures
from models.policy import Thresholds

ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled, scored transactions, one row each.

    scores float32[n], log_odds float64[n] (the scores', before they are rounded to chances), labels int8[n] (1: fraud),
    times_ms int64[n], users int32[n] (numbered from 0), amounts float64[n] (major units), dimensions: a value for each
    row by name of the dimension, base: the base models' log-odds float64[n] by name.
    """

    scores: npt.NDArray[np.float32]
    log_odds: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int8]
    times_ms: npt.NDArray[np.int64]
    users: npt.NDArray[np.int32]
    amounts: npt.NDArray[np.float64]
    dimensions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    base: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to evaluate: the policy and its prices, cards a day, and the resampling."""

    thresholds: Thresholds
    prices: Prices = DEFAULT_PRICES
    cards_a_day: int = CARDS_A_DAY
    drop_detected: bool = False
    seed: int = 1
    resamples: int = RESAMPLES
    level: float = LEVEL
    #: The order in which a dimension's segments are shown, where it is not that of their size.
    segment_order: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """How well one model ranks."""

    auc_roc: Estimate
    average_precision: Estimate
    card_precision: Estimate


@dataclass(frozen=True, slots=True)
class ThresholdFigures:
    """What reaches a threshold: share of events, of them frauds; of all frauds, of honest events, of fraud money."""

    threshold: float
    rate: Estimate
    precision: Estimate
    recall: Estimate
    false_positive_rate: Estimate
    amount_recall: Estimate


@dataclass(frozen=True, slots=True)
class CostFigures:
    """The cost of both thresholds together, in the amounts' unit, by its parts; and of approving everything."""

    total: Estimate
    missed_frauds: Estimate
    reviews: Estimate
    wrong_declines: Estimate
    without_model: Estimate


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """brier_of_rate: the Brier score of always saying the share of frauds, which a useful score is below."""

    brier: Estimate
    brier_of_rate: float
    intercept: Estimate
    slope: Estimate
    bins: list[Bin]
    fraud_shares: list[Estimate]


@dataclass(frozen=True, slots=True)
class DayFigures:
    """One UTC day (days since 1970-01-01): how many cards had a fraud, and the card precision."""

    day: int
    compromised_cards: int
    card_precision: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All of it; `models` has the ensemble first, then its base models."""

    events: int
    frauds: int
    users: int
    plan: Plan
    models: dict[str, ModelFigures]
    review: ThresholdFigures
    decline: ThresholdFigures
    cost: CostFigures
    calibration: CalibrationFigures
    days: list[DayFigures]
    segments: dict[str, list[Segment]]
    curves: dict[str, Curve]
    histogram: Histogram


def evaluate(sample: Sample, plan: Plan, *, progress: Callable[[int], object] = lambda _: None) -> Evaluation:
    """Evaluate; progress is told how many resamples are done. Raises EvaluationError."""
    _check(sample)
    rankings: dict[str, npt.NDArray[np.floating]] = {ENSEMBLE: sample.scores, **sample.base}
    cards = {
        name: CardPrecision(
            scores, sample.labels, sample.times_ms, sample.users, k=plan.cards_a_day, drop_detected=plan.drop_detected
        )
        for name, scores in rankings.items()
    }
    by_dimension = {
        name: SegmentFigures(
            values,
            sample.scores,
            sample.labels,
            sample.users,
            plan.thresholds,
            order=plan.segment_order.get(name, ()),
        )
        for name, values in sample.dimensions.items()
    }
    figures: dict[str, Weighted] = {
        "policy": PolicySums(sample.scores, sample.labels, sample.amounts, sample.users, plan.thresholds, plan.prices),
        "line": LineOfGroups(sample.log_odds, sample.labels, sample.users),
        "reliability": ReliabilityOfGroups(sample.scores, sample.labels, sample.users),
        **{f"rank {name}": Ranking(scores, sample.labels, sample.users) for name, scores in rankings.items()},
        **{f"cards {name}": one for name, one in cards.items()},
        **{f"segments {name}": one for name, one in by_dimension.items()},
    }
    users = int(sample.users.max()) + 1
    found = _all_intervals(figures, users, plan, progress)
    reliable = found["reliability"]
    rate = float(sample.labels.mean())
    once = np.ones(users, np.int64)
    ensemble_cards = cards[ENSEMBLE]
    policy = found["policy"]
    return Evaluation(
        events=len(sample.labels),
        frauds=int(sample.labels.sum()),
        users=users,
        plan=plan,
        models={name: ModelFigures(*found[f"rank {name}"], *found[f"cards {name}"]) for name in rankings},
        review=ThresholdFigures(plan.thresholds.review, *policy[:5]),
        decline=ThresholdFigures(plan.thresholds.decline, *policy[5:10]),
        cost=CostFigures(*policy[10:]),
        calibration=CalibrationFigures(
            brier=reliable[0],
            brier_of_rate=rate * (1.0 - rate),
            intercept=found["line"][0],
            slope=found["line"][1],
            bins=reliability(sample.scores, sample.labels),
            fraud_shares=reliable[1:],
        ),
        days=[
            DayFigures(int(day), int(number), float(precision))
            for day, number, precision in zip(
                ensemble_cards.days, ensemble_cards.compromised_by_day(), ensemble_cards.by_day(once), strict=True
            )
        ],
        segments={name: one.segments(found[f"segments {name}"], users) for name, one in by_dimension.items()},
        curves={name: curve(scores, sample.labels) for name, scores in rankings.items()},
        histogram=histogram(sample.log_odds, sample.labels),
    )


def first_and_last_day(evaluation: Evaluation) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last UTC day of the sample."""
    first, last = evaluation.days[0].day, evaluation.days[-1].day
    return np.datetime64(first, "D"), np.datetime64(last, "D")


def _all_intervals(
    figures: Mapping[str, Weighted], users: int, plan: Plan, progress: Callable[[int], object]
) -> dict[str, list[Estimate]]:
    """Return the estimates of each group of figures, all from the same draws."""
    once = np.ones(users, np.int64)
    ends = np.cumsum([len(figure(once)) for figure in figures.values()]).tolist()
    found = intervals(
        lambda counts: np.concatenate([figure(counts) for figure in figures.values()]),
        users,
        seed=plan.seed,
        resamples=plan.resamples,
        level=plan.level,
        progress=progress,
    )
    return {name: found[start:end] for name, start, end in zip(figures, [0, *ends], ends, strict=False)}


def _check(sample: Sample) -> None:
    n, frauds = len(sample.labels), int(sample.labels.sum())
    if not n:
        raise EvaluationError("There are no labelled transactions; give a file that holds some.")
    if frauds in (0, n):
        kind = "frauds" if frauds else "honest"
        raise EvaluationError(
            f"All {n:,} transactions are labelled as {kind}, so nothing can be told apart; give both kinds.",
        )
    if not np.isfinite(sample.scores).all():
        raise EvaluationError("Some scores are not finite numbers; the model is damaged: train it again.")
