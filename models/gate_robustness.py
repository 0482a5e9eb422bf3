"""Gates on robustness: what is left of the ranking when a feature, or a whole field, is missing, or a little wrong.

Each figure is a share of the average precision on the undisturbed rows. A model that rests on one feature alone fails:
the day its source is down, it is blind.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.gate import Bounds, Gate
from models.metrics import average_precision

SEED = 20_250_102
NOISE = 0.01
# More rows make the shares no truer, only slower to compute: each feature is one more scoring of all of them.
MAX_ROWS = 30_000

LogOdds = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]


def robustness_gates(
    x: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    log_odds: LogOdds,
    names: Sequence[str],
    fields: Mapping[str, Sequence[str]],
    bounds: Bounds,
) -> list[Gate]:
    """Return the gates for x float32[n, k], labels int8[n], feature names [k] and the features that read each field.

    Both classes must occur.
    """
    rng = np.random.default_rng(SEED)
    x, labels = _some(x, labels, rng)
    whole = average_precision(log_odds(x), labels)
    place = {name: column for column, name in enumerate(names)}

    def left(columns: Sequence[int]) -> float:
        gone = x.copy()
        gone[:, columns] = np.nan
        return average_precision(log_odds(gone), labels) / whole

    features = {name: left([column]) for name, column in place.items()}
    groups = {field: left([place[name] for name in read]) for field, read in fields.items()}
    noisy = x * (1.0 + NOISE * rng.standard_normal(x.shape, np.float32))
    gates = [_worst("one feature missing", features, bounds.min_missing_share)]
    if groups:
        gates.append(_worst("one field missing", groups, bounds.min_missing_share))
    share = average_precision(log_odds(noisy.astype(np.float32)), labels) / whole
    gates.append(Gate(name=f"precision left with {NOISE:.0%} noise", value=share, at_least=bounds.min_noise_share))
    return gates


def _worst(what: str, shares: Mapping[str, float], least: float) -> Gate:
    worst = min(shares, key=lambda name: shares[name])
    return Gate(name=f"precision left with {what}", value=shares[worst], at_least=least, note=f"lowest: {worst}")


def _some(
    x: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Keep every fraud, and honest events up to MAX_ROWS in all."""
    honest = np.flatnonzero(labels == 0)
    room = max(1, MAX_ROWS - int((labels == 1).sum()))
    if len(honest) <= room:
        return x, labels
    rows = np.sort(np.concatenate([np.flatnonzero(labels == 1), rng.choice(honest, room, replace=False)]))
    return x[rows], labels[rows]
