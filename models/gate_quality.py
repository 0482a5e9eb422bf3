"""Gates on what a candidate finds: ranking and calibration on the holdout, beside the champion where there is one.

"Not worse" is non-inferiority: the lower end of the paired bootstrap's 95 % interval of the difference must not lie
further below 0 than the loss that is allowed. A holdout too small to show that much does not pass.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bootstrap import paired_bootstrap
from models.evaluation_calibration import brier
from models.gate import NORMAL_95, Bounds, Gate, Scored
from models.metrics import average_precision

SEED = 20_250_101
RESAMPLES = 400

MAX_STEPS = 50
TOLERANCE = 1e-9
# A slope beyond this is no calibration; it also stops Newton on separable data, where there is no finite one.
STEEPEST = 1e3

Statistic = Callable[[npt.NDArray[np.floating[Any]], npt.NDArray[np.int8]], float]


def quality_gates(
    labels: npt.NDArray[np.int8],
    users: npt.NDArray[Any],
    own: Scored,
    champion: Scored | None,
    bounds: Bounds,
) -> list[Gate]:
    """Return the gates on ranking and thresholds for labels int8[n] and user ids [n]; both classes must occur."""
    rate = f"{bounds.review_rate:.3g}"
    precision = average_precision(own.log_odds, labels)
    recall = recall_at_rate(bounds.review_rate)
    gates = [
        Gate(name="events held", value=float(own.held.mean()), at_most=bounds.max_held_rate),
        Gate(name="frauds held", value=float(own.held[labels == 1].mean()), at_least=bounds.min_recall),
        *_decline_gates(labels, own, bounds),
    ]
    if champion is None:
        return [
            Gate(name="average precision", value=precision, at_least=bounds.min_average_precision),
            Gate(name=f"recall at rate {rate}", value=recall(own.log_odds, labels), at_least=bounds.min_recall),
            *gates,
        ]
    compared = (
        ("average precision", average_precision, bounds.max_precision_loss),
        (f"recall at rate {rate}", recall, bounds.max_recall_loss),
    )
    return [
        *(_not_worse(name, fn, loss, labels, users, own, champion) for name, fn, loss in compared),
        *gates,
        *(
            _no_more_honest(name, labels, mine, theirs, most)
            for name, mine, theirs, most in (
                ("held", own.held, champion.held, bounds.max_honest_held_gain),
                ("declined", own.declined, champion.declined, bounds.max_honest_declined_gain),
            )
        ),
    ]


def _decline_gates(labels: npt.NDArray[np.int8], own: Scored, bounds: Bounds) -> list[Gate]:
    """Return the gates on declines, which nobody looks at; of none, no share is fraud."""
    gates = [Gate(name="events declined", value=float(own.declined.mean()), at_most=bounds.max_decline_rate)]
    if own.declined.any():
        precision = float(labels[own.declined].mean())
        note = f"of {int(own.declined.sum()):,} declined"
        gates.append(
            Gate(name="declined that are fraud", value=precision, at_least=bounds.min_decline_precision, note=note)
        )
    return gates


def _no_more_honest(
    outcome: str,
    labels: npt.NDArray[np.int8],
    own: npt.NDArray[np.bool_],
    champion: npt.NDArray[np.bool_],
    most: float,
) -> Gate:
    """Return the gate on how much more of the honest events are held or declined (bool[n]) than by the champion."""
    mine, theirs = (float(outcomes[labels == 0].mean()) for outcomes in (own, champion))
    note = f"{mine:.2%} against {theirs:.2%} of honest events"
    return Gate(name=f"honest {outcome} less the champion's", value=mine - theirs, at_most=most, note=note)


def _not_worse(
    name: str,
    statistic: Statistic,
    loss: float,
    labels: npt.NDArray[np.int8],
    users: npt.NDArray[Any],
    own: Scored,
    champion: Scored,
) -> Gate:
    found = paired_bootstrap(
        statistic, labels, own.log_odds, champion.log_odds, seed=SEED, groups=users, resamples=RESAMPLES
    )
    note = (
        f"{statistic(own.log_odds, labels):.4f} against {statistic(champion.log_odds, labels):.4f}, "
        f"95 % interval of the difference {found.low:+.4f} to {found.high:+.4f}"
    )
    return Gate(name=f"{name} less the champion's", value=found.low, at_least=-loss, note=note)


def recall_at_rate(rate: float) -> Statistic:
    """Return the share of frauds among the `rate` most suspicious share of events, as a function of scores and labels.

    Equal scores are taken in proportion, so an order among them never helps.
    """

    def recall(scores: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int8]) -> float:
        distinct, place = np.unique(-scores, return_inverse=True)
        events = np.bincount(place, minlength=len(distinct)).cumsum()
        frauds = np.bincount(place, weights=labels, minlength=len(distinct)).cumsum()
        caught = np.interp(rate * len(scores), np.append(0, events), np.append(0.0, frauds))
        return float(caught / frauds[-1])

    return recall


def calibration_gates(
    labels: npt.NDArray[np.int8],
    own: Scored,
    champion: Scored | None,
    bounds: Bounds,
) -> list[Gate]:
    """Return the gates on calibration; both classes must occur.

    In the large: the sum of the scores over the number of frauds, which neither ranking nor slope sees and, where fraud
    is rare, the Brier score hardly. The slope is that of a logistic regression of the labels on the log-odds (Cox 1958,
    Two further applications of a model for binary regression): 1 is right, less is over-confident, more is too timid.
    """
    intercept, slope = calibration_line(own.log_odds, labels)
    own_brier = brier(own.chances, labels)
    rival = brier(champion.chances if champion else np.full(len(labels), labels.mean()), labels)
    whose, most = ("the champion's", bounds.max_brier_ratio) if champion else ("a constant's", 1.0)
    frauds = int(labels.sum())
    error = float(np.exp(NORMAL_95 / np.sqrt(frauds)))
    ratio = float(own.chances.sum()) / frauds
    return [
        Gate(
            name="mean score over fraud rate",
            value=ratio,
            at_least=bounds.min_score_ratio,
            at_most=bounds.max_score_ratio,
            note=f"95 % interval {ratio / error:.2f} to {ratio * error:.2f} by the number of frauds, {frauds:,}",
        ),
        Gate(
            name="calibration slope",
            value=slope,
            at_least=bounds.min_slope,
            at_most=bounds.max_slope,
            note=f"intercept {intercept:+.3f}",
        ),
        Gate(
            name=f"Brier score over {whose}",
            value=own_brier / rival if rival > 0.0 else (1.0 if own_brier == 0.0 else None),
            at_most=most,
            note=f"{own_brier:.5f} against {rival:.5f}",
        ),
    ]


def calibration_line(log_odds: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> tuple[float, float]:
    """Return intercept and slope of labels int8[n] on log_odds float64[n]; the slope lies within ± STEEPEST."""
    spread = float(log_odds.std()) or 1.0
    centre = float(log_odds.mean())
    design = np.column_stack([np.ones(len(log_odds)), (log_odds - centre) / spread])
    beta = np.array([np.log(labels.mean() / (1.0 - labels.mean())), 0.0])
    loss = _log_loss(design @ beta, labels)
    for _ in range(MAX_STEPS):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (design @ beta)))
        curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (chance - labels))
        size = 1.0
        while (after := _log_loss(design @ (beta - size * step), labels)) > loss and size > TOLERANCE:
            size /= 2.0
        beta = beta - size * step
        if loss - after <= TOLERANCE * loss or abs(beta[1]) > STEEPEST * spread:
            break
        loss = after
    slope = float(np.clip(beta[1] / spread, -STEEPEST, STEEPEST))
    return float(beta[0] - slope * centre), slope


def _log_loss(log_odds: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> float:
    return float((np.logaddexp(0.0, log_odds) - labels * log_odds).sum())
