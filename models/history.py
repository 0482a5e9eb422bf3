"""A labelled history, checked and split by time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import TrainingError

# The base models learn from the oldest 70 % of events, the meta-model from the next 15 %, and the thresholds and
# metrics come from the newest 15 %, which nothing has learned from.
LEARN_UNTIL = 0.70
BLEND_UNTIL = 0.85

# Fewer say nothing: with 10 frauds the share caught is known to about 15 percentage points at best.
MIN_FRAUDS_TO_LEARN = 20
MIN_FRAUDS_HELD_OUT = 5


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of time: features float32[n, k] and labels int8[n]."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class History:
    """The three parts, oldest first; no event time occurs in two of them."""

    learn: Part
    blend: Part
    judge: Part


def split_history(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.generic],
    event_times_ms: npt.NDArray[np.int64],
    feature_names: Sequence[str],
) -> History:
    """Check a history in any order of time and split it. Raises TrainingError with what to change."""
    _check_shapes(features, labels, event_times_ms, feature_names)
    fraud = _check_labels(labels)
    _check_features(features, feature_names)
    order = np.argsort(event_times_ms, kind="stable")
    features, fraud, times = features[order], fraud[order], event_times_ms[order]
    # Moved back to the first event of the same millisecond, so that one moment is never on both sides.
    first, second = (int(np.searchsorted(times, times[int(len(times) * at)])) for at in (LEARN_UNTIL, BLEND_UNTIL))
    bounds = ((0, first), (first, second), (second, len(times)))
    learn, blend, judge = (Part(features[a:b], fraud[a:b]) for a, b in bounds)
    _check_frauds("oldest 70 %", learn, MIN_FRAUDS_TO_LEARN)
    _check_frauds("15 % after them", blend, MIN_FRAUDS_HELD_OUT)
    _check_frauds("newest 15 %", judge, MIN_FRAUDS_HELD_OUT)
    return History(learn, blend, judge)


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


def _check_labels(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.int8]:
    wrong = ~np.isin(labels, (0, 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TrainingError(
            f"Labels must be 0 or 1, but row {row} says {labels[row]}; correct it or leave the row out."
        )
    frauds = int((labels == 1).sum())
    if frauds in (0, len(labels)):
        raise TrainingError(
            f"All {len(labels)} events have the label {labels[0]}; give a history that holds both kinds.",
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


def _check_frauds(which: str, part: Part, least: int) -> None:
    frauds = int(part.labels.sum())
    if frauds < least or frauds == len(part.labels):
        raise TrainingError(
            f"The {which} of the history must hold at least {least} frauds and an honest payment, "
            f"but {frauds} of its {len(part.labels)} events are frauds; give a longer history.",
        )
