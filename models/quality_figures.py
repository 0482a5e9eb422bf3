"""How good decisions were, from those whose truth is known: exact, weighted, ties as scikit-learn counts them.

What the figures can say and what not:

- Only a label says what a payment was. A payment without one is not taken for honest; it is in no figure.
- A decision that was declined rarely gets a label, for nobody charges back what was not paid. Recall, and every figure
  of the ranking, is about the labelled payments alone; where no declined one is labelled, it is about the others.
- ROC AUC depends neither on how many frauds there are nor on how often each class is labelled, as long as that does not
  depend on the score. Average precision, precision, Brier score and calibration do depend on the share of frauds among
  what is labelled.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.policy import DECLINE, REVIEW

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """n labelled decisions. scores, weights: float64[n]; frauds: bool[n]; outcomes: uint8[n], as in models.policy.

    users: uint64[n], a hash of whose each is; segments: int64[n], the number of each one's segment.
    """

    scores: Floats
    frauds: npt.NDArray[np.bool_]
    outcomes: npt.NDArray[np.uint8]
    weights: Floats
    users: npt.NDArray[np.uint64]
    segments: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return n."""
        return len(self.scores)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "Labelled":
        """Return some of the rows."""
        return Labelled(
            self.scores[rows],
            self.frauds[rows],
            self.outcomes[rows],
            self.weights[rows],
            self.users[rows],
            self.segments[rows],
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one model in one segment; None where they cannot be computed or rest on too few frauds.

    events and frauds are numbers of labels; everything else counts each as its weight says.
    """

    events: int
    frauds: int
    label_rate: float | None = None
    roc_auc: float | None = None
    average_precision: float | None = None
    review_precision: float | None = None
    review_recall: float | None = None
    decline_precision: float | None = None
    decline_recall: float | None = None
    brier: float | None = None
    calibration_ratio: float | None = None


def figures(rows: Labelled, min_frauds: int) -> Figures:
    """Return the figures of these rows.

    label_rate: share of frauds. Precision and recall: of the decisions that were taken, "review" meaning reviewed or
    declined. calibration_ratio: expected frauds over those that came.
    """
    events, frauds = len(rows), int(np.count_nonzero(rows.frauds))
    if frauds < min_frauds:
        return Figures(events, frauds)
    weight = rows.weights
    of_frauds = float(weight[rows.frauds].sum())
    total = float(weight.sum())
    auc, precision = ranking(rows.scores, rows.frauds, weight)
    at = {name: _at(rows, rows.outcomes >= outcome, of_frauds) for name, outcome in (("r", REVIEW), ("d", DECLINE))}
    return Figures(
        events,
        frauds,
        label_rate=of_frauds / total,
        roc_auc=auc,
        average_precision=precision,
        review_precision=at["r"][0],
        review_recall=at["r"][1],
        decline_precision=at["d"][0],
        decline_recall=at["d"][1],
        brier=float((weight * (rows.scores - rows.frauds) ** 2).sum() / total),
        calibration_ratio=float((weight * rows.scores).sum() / of_frauds),
    )


def ranking(scores: Floats, frauds: npt.NDArray[np.bool_], weights: Floats) -> tuple[float | None, float | None]:
    """Return (ROC AUC, average precision) of scores, frauds bool and weights, all [n]; None where a class is absent.

    Equal scores are one step of either curve.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, weight = scores[order], weights[order]
    fraud = np.where(frauds[order], weight, 0.0)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.empty(0, np.intp)
    caught, seen = np.cumsum(fraud)[last], np.cumsum(weight)[last]
    if not len(last) or caught[-1] <= 0:
        return None, None
    step = np.diff(caught, prepend=0.0)
    precision = float((step * caught / seen).sum() / caught[-1])
    honest = seen - caught
    if not np.any(~frauds):
        return None, precision
    height = 0.5 * (caught + np.concatenate([[0.0], caught[:-1]]))
    auc = float((np.diff(honest, prepend=0.0) * height).sum() / (caught[-1] * honest[-1]))
    return auc, precision


def _at(rows: Labelled, flagged: npt.NDArray[np.bool_], of_frauds: float) -> tuple[float | None, float]:
    caught = float(rows.weights[flagged & rows.frauds].sum())
    seen = float(rows.weights[flagged].sum())
    return (caught / seen if seen > 0 else None), caught / of_frauds
