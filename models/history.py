"""A labelled history: checked, brought into order of time, and looked over for features that give the label away."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import TrainingError
from models.metrics import auc_roc

# No window of past payments tells fraud this well; a column that was filled in after the fact does.
LEAK_AUC = 0.999


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a history: features float32[n, k] and labels int8[n]."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class History:
    """Rows in order of event time: features float32[n, k], labels int8[n], times int64[n] in epoch ms.

    order: int64[n], where each row stood in what was given.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    times_ms: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]

    def part(self, first: int, end: int) -> Part:
        """Return the rows [first, end), sharing memory."""
        return Part(self.features[first:end], self.labels[first:end])


def sort_history(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.generic],
    event_times_ms: npt.NDArray[np.int64],
    feature_names: Sequence[str],
) -> History:
    """Check a history in any order of time and sort it, ties as given. Raises TrainingError with what to change."""
    _check_shapes(features, labels, event_times_ms, feature_names)
    fraud = check_labels(labels)
    _check_features(features, feature_names)
    order = np.argsort(event_times_ms, kind="stable")
    if (order == np.arange(len(order))).all():
        return History(features, fraud, event_times_ms, order)
    return History(features[order], fraud[order], event_times_ms[order], order)


def check_leaks(part: Part, feature_names: Sequence[str]) -> None:
    """Raise TrainingError where a feature alone separates frauds from honest payments, upwards or downwards.

    A value that is not known ranks below all others: that it is known may give the label away, too.
    """
    leaking = []
    for column, name in enumerate(feature_names):
        values = part.features[:, column]
        auc = auc_roc(np.where(np.isnan(values), -np.inf, values), part.labels)
        if max(auc, 1.0 - auc) > LEAK_AUC:
            leaking.append(f"{name} (AUC {max(auc, 1.0 - auc):.4f})")
    if leaking:
        one = len(leaking) == 1
        raise TrainingError(
            f"The {'feature' if one else 'features'} {', '.join(leaking)} alone {'tells' if one else 'tell'} frauds "
            f"from honest payments, which no payment's past does: the label, or something known only after it, has got "
            f"into the data; leave that column out.",
        )


def _check_shapes(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.generic],
    event_times_ms: npt.NDArray[np.int64],
    feature_names: Sequence[str],
) -> None:
    if features.ndim != 2 or features.dtype != np.float32:
        raise TrainingError(
            f"The features must be a float32 matrix, one row an event, but are {features.dtype}{list(features.shape)}.",
        )
    n, k = features.shape
    if labels.shape != (n,) or event_times_ms.shape != (n,):
        raise TrainingError(
            f"There must be one label and one event time for each of the {n} rows of features, "
            f"but there are {labels.size} labels and {event_times_ms.size} event times.",
        )
    if len(feature_names) != k or len(set(feature_names)) != k:
        raise TrainingError(
            f"Each of the {k} feature columns needs a name of its own, "
            f"but {len(set(feature_names))} different names were given.",
        )
    if not n:
        raise TrainingError("The history is empty; give one with labelled events.")


def check_labels(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.int8]:
    """Return labels [n] as int8. Raises TrainingError unless each is 0 or 1 and both occur."""
    wrong = ~np.isin(labels, (0, 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TrainingError(
            f"Labels must be 0 or 1, but row {row} says {labels[row]}; correct it or leave the row out."
        )
    frauds = int((labels == 1).sum())
    if frauds in (0, len(labels)):
        raise TrainingError(
            f"All {len(labels)} events have the label {int(labels[0])}; give a history that holds both kinds.",
        )
    return labels.astype(np.int8)


def _check_features(features: npt.NDArray[np.float32], feature_names: Sequence[str]) -> None:
    infinite = np.isinf(features)
    if infinite.any():
        row, column = (int(at[0]) for at in np.nonzero(infinite))
        raise TrainingError(
            f"The feature {feature_names[column]!r} is infinite in row {row}; "
            "use NaN for a value that is not known, or leave the row out.",
        )
