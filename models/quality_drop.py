"""Whether a model is worse on what it decided than it was on its holdout, by more than chance explains.

Compared are two figures that say the same whatever share of payments is labelled:

    roc_auc          does not depend on the share of frauds; compared only where declined decisions are labelled too,
                     for without them the range of scores is cut off, and with it the AUC, however good the model is
    review_recall    of the frauds that were not declined, the share put under review. It needs neither a label of a
                     declined payment nor one of an honest payment, so it can be told where frauds alone are reported

The error of either is that of a mean over users, for a stolen card brings its frauds in a row: each row's influence on
the figure is added up by user (DeLong et al., Biometrics 1988; clustered: Obuchowski, Biometrics 1997). The holdout's
own error is added (Hanley and McNeil, Radiology 1982, which needs only its AUC and its numbers).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.policy import DECLINE, REVIEW
from models.quality_figures import Floats, Labelled

#: Standard errors below the holdout at which a drop is taken for one. It is asked once a minute of a window that moves
#: slowly, which is some tens of independent questions a month.
RAISE_ERRORS: Final = 3.5
#: And at which it is taken back, so that it does not flicker.
CLEAR_ERRORS: Final = 2.0
#: A drop that is certain and yet smaller than this is no reason to call anybody.
LEAST_DROP: Final = {"roc_auc": 0.02, "review_recall": 0.05}
#: Declined decisions count as labelled where there are at least this share of those that the holdout would give.
DECLINED_LABELLED: Final = 0.5


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure beside the holdout's. error: standard error of their difference, the holdout's own included."""

    statistic: str
    value: float
    holdout: float
    error: float

    def bound(self, errors: float) -> float:
        """Return what the value should keep to."""
        return self.holdout - max(errors * self.error, LEAST_DROP[self.statistic])

    @property
    def dropped(self) -> bool:
        """Whether it is lower than chance explains."""
        return self.value < self.bound(RAISE_ERRORS)

    @property
    def recovered(self) -> bool:
        """Whether a drop that was found is over."""
        return self.value >= self.bound(CLEAR_ERRORS)


def compare(rows: Labelled, holdout: Mapping[str, float], min_frauds: int) -> list[Comparison]:
    """Return what can be compared with a bundle's metrics; both sides must rest on enough frauds."""
    if holdout.get("frauds", 0.0) < min_frauds or np.count_nonzero(rows.frauds) < min_frauds:
        return []
    found = (_auc(rows, holdout, min_frauds), _recall(rows, holdout, min_frauds))
    return [one for one in found if one is not None]


def _auc(rows: Labelled, holdout: Mapping[str, float], min_frauds: int) -> Comparison | None:
    if "auc_roc" not in holdout or np.count_nonzero(~rows.frauds) < min_frauds or not _declined_labelled(rows, holdout):
        return None
    auc, error = auc_with_error(rows)
    of_holdout = holdout["auc_roc"]
    other = _hanley_mcneil(of_holdout, holdout["frauds"], holdout["events"] - holdout["frauds"])
    return Comparison("roc_auc", auc, of_holdout, math.hypot(error, other))


def _recall(rows: Labelled, holdout: Mapping[str, float], min_frauds: int) -> Comparison | None:
    if "review_recall" not in holdout or "decline_recall" not in holdout:
        return None  # other thresholds, without a holdout to compute figures at them
    passed = rows.frauds & (rows.outcomes < DECLINE)
    left = holdout["frauds"] * (1.0 - holdout["decline_recall"])
    if min(float(np.count_nonzero(passed)), left) < min_frauds:
        return None
    reviewed, weight = (rows.outcomes[passed] == REVIEW).astype(np.float64), rows.weights[passed]
    share = float((weight * reviewed).sum() / weight.sum())
    expected = (holdout["review_recall"] - holdout["decline_recall"]) / (1.0 - holdout["decline_recall"])
    error = _clustered(weight * (reviewed - expected) / weight.sum(), rows.users[passed])
    return Comparison("review_recall", share, expected, math.hypot(error, math.sqrt(expected * (1 - expected) / left)))


def _declined_labelled(rows: Labelled, holdout: Mapping[str, float]) -> bool:
    """Whether declined decisions are among the labelled as they would be if labels did not depend on the outcome."""
    recall, rate = holdout.get("decline_recall"), holdout.get("decline_rate")
    if recall is None or rate is None:
        return bool(np.any(rows.outcomes == DECLINE))
    honest = holdout["events"] - holdout["frauds"]
    of_honest = max(0.0, rate * holdout["events"] - recall * holdout["frauds"]) / honest
    weight_of_frauds = float(rows.weights[rows.frauds].sum())
    expected = recall * weight_of_frauds + of_honest * (float(rows.weights.sum()) - weight_of_frauds)
    return float(rows.weights[rows.outcomes == DECLINE].sum()) >= DECLINED_LABELLED * expected


def auc_with_error(rows: Labelled) -> tuple[float, float]:
    """Return (ROC AUC, its standard error over users); both classes must occur."""
    order = np.argsort(rows.scores, kind="stable")
    scores, weight, fraud = rows.scores[order], rows.weights[order], rows.frauds[order]
    first = np.searchsorted(scores, scores, "left")
    last = np.searchsorted(scores, scores, "right")
    frauds = np.concatenate([[0.0], np.cumsum(np.where(fraud, weight, 0.0))])
    honest = np.concatenate([[0.0], np.cumsum(np.where(fraud, 0.0, weight))])
    # Of each fraud the share of honest events below it, of each honest event the share of frauds above it.
    below = 0.5 * (honest[first] + honest[last]) / honest[-1]
    above = 1.0 - 0.5 * (frauds[first] + frauds[last]) / frauds[-1]
    auc = float((weight * below)[fraud].sum() / frauds[-1])
    influence = np.where(fraud, (below - auc) / frauds[-1], (above - auc) / honest[-1]) * weight
    return auc, _clustered(influence, rows.users[order])


def _clustered(influence: Floats, users: npt.NDArray[np.uint64]) -> float:
    _, codes = np.unique(users, return_inverse=True)
    sums = np.bincount(codes, weights=influence)
    # Few users look surer than they are: the usual correction for estimating the mean from them.
    return float(np.sqrt((sums**2).sum() * len(sums) / max(1, len(sums) - 1)))


def _hanley_mcneil(auc: float, frauds: float, honest: float) -> float:
    two_frauds, two_honest = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = (frauds - 1) * (two_frauds - auc * auc) + (honest - 1) * (two_honest - auc * auc)
    return math.sqrt(max(0.0, auc * (1 - auc) + spread) / (frauds * honest))
