"""Gates on robustness: what is left of the ranking when a field is missing, or the amount a little wrong.

Each figure is a share of the average precision on the undisturbed rows. What is disturbed is what may come, a payment,
and not what is made of it: a row that the windows never make proves nothing. A model that rests on one field alone
fails: the day its source is down, it is blind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.gate import Bounds, Gate
from models.metrics import average_precision

SEED = 20_250_102
NOISE = 0.01
# More rows make the shares no truer, only slower to compute: each disturbance is one more scoring of all of them.
MAX_ROWS = 30_000

Matrix = npt.NDArray[np.float32]
Amounts = npt.NDArray[np.int64]
LogOdds = Callable[[Matrix], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Disturbances:
    """What the windows make of payments that come otherwise, as functions of features float32[n, k].

    missing: by what the payments then lack. amounts: also given the amounts int64[n] (minor units) before and after.
    """

    missing: Mapping[str, Callable[[Matrix], Matrix]]
    amounts: Callable[[Matrix, Amounts, Amounts], Matrix]


def robustness_gates(
    x: Matrix,
    labels: npt.NDArray[np.int8],
    amounts: Amounts,
    log_odds: LogOdds,
    disturbances: Disturbances,
    bounds: Bounds,
) -> list[Gate]:
    """Return the gates for x float32[n, k], labels int8[n] and amounts int64[n]; both classes must occur."""
    rng = np.random.default_rng(SEED)
    rows = _some(labels, rng)
    x, labels, amounts = x[rows], labels[rows], amounts[rows]
    whole = average_precision(log_odds(x), labels)

    def left(disturbed: Matrix) -> float:
        return average_precision(log_odds(disturbed), labels) / whole

    gates = []
    shares = {lacking: left(disturb(x)) for lacking, disturb in disturbances.missing.items()}
    if shares:
        worst = min(shares, key=lambda lacking: shares[lacking])
        note, least = f"lowest: {worst}", bounds.min_missing_share
        gates.append(Gate(name="precision left with a field missing", value=shares[worst], at_least=least, note=note))
    noisy = np.round(amounts * (1.0 + NOISE * rng.standard_normal(len(amounts)))).astype(np.int64)
    share = left(disturbances.amounts(x, amounts, noisy))
    name = f"precision left with {NOISE:.0%} noise on the amount"
    return [*gates, Gate(name=name, value=share, at_least=bounds.min_noise_share)]


def _some(labels: npt.NDArray[np.int8], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the rows of every fraud, and of honest events up to MAX_ROWS in all."""
    honest = np.flatnonzero(labels == 0)
    room = max(1, MAX_ROWS - int((labels == 1).sum()))
    if len(honest) <= room:
        return np.arange(len(labels))
    return np.sort(np.concatenate([np.flatnonzero(labels == 1), rng.choice(honest, room, replace=False)]))
