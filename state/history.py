"""Features of a history that is at hand whole: every user begins with its first payment here, no store behind it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from state.events import Events
from state.features import FeatureSet, StateSpec
from state.windows import Windows


def observe(
    windows: Windows, users: Sequence[bytes], events: Events
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Apply a part of it in order, `users` being each event's user; return features float32[n, K], flags uint8[n]."""
    slots = windows.find(users)
    unknown = list(dict.fromkeys(users[row] for row in np.flatnonzero(slots < 0).tolist()))
    if unknown:
        windows.add(unknown, [None] * len(unknown))
        slots = windows.find(users)
    return windows.observe(slots, events)


def compute(
    spec: StateSpec, feature_set: FeatureSet, users: Sequence[bytes], events: Events, *, chunk: int = 8_192
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return features float32[n, K] and flags uint8[n] of all of it, in order, `users` being each event's user."""
    windows = Windows(spec, feature_set)
    features = np.empty((len(users), len(feature_set.features)), np.float32)
    flags = np.empty(len(users), np.uint8)
    for first in range(0, len(users), chunk):
        rows = slice(first, first + chunk)
        features[rows], flags[rows] = observe(windows, users[rows], events[rows])
    return features, flags
