"""How a history is split: always by time, with the label delay between what is learned from and what is judged on.

    time ──►
    ├────────── training region ──────────┤ gap ├─ holdout ─┤      the holdout is read once, for metrics and gates
    ├── always trained on ──┤
    ├──────── train ───┤ gap ├ validation ┤                        fold 1 of 2
    ├──────── train ───────────────┤ gap ├ validation ┤            fold 2 of 2

The gap is as long as it takes to learn a payment's label: a model trained at the moment a validation part begins could
not have known younger labels: the verification latency of Dal Pozzolo et al. 2018, "Credit card fraud
detection: a realistic modeling and a novel learning strategy".
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import TrainingError

DAY_MS = 86_400_000

# The training region is cut into this many pieces more than there are folds; those always belong to the training part,
# so that the first fold has learned from at least as much as it is judged on, even after the gap.
ALWAYS_TRAINED = 2

# Fewer say nothing: with 10 frauds the share caught is known to about 15 percentage points at best.
MIN_FRAUDS_TO_LEARN = 20
MIN_FRAUDS_TO_JUDGE = 5


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of a history in order of time: trained on [0, train_end), judged on [start, end)."""

    train_end: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a history in order of time: the training region [0, train_end), the holdout [start, end), the folds."""

    holdout: Fold
    folds: tuple[Fold, ...]


def split_history(
    times_ms: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int8],
    *,
    holdout_ms: int,
    label_delay_ms: int,
    folds: int,
) -> Split:
    """Split ascending times int64[n] and their labels int8[n]. Raises TrainingError with what to change.

    The holdout are the events of the last `holdout_ms`, (newest − holdout, newest]; the training region ends the label
    delay earlier. The folds' validation parts hold equally many events, and no moment is in two of them.
    """
    if folds < 1 or holdout_ms < 1 or label_delay_ms < 0:
        raise TrainingError(
            f"There must be at least one fold, a holdout and a label delay that is not negative, "
            f"but they are {folds}, {holdout_ms / DAY_MS:g} days and {label_delay_ms / DAY_MS:g} days.",
        )
    start = int(np.searchsorted(times_ms, times_ms[-1] - holdout_ms, side="right"))
    holdout = Fold(_before(times_ms, times_ms[-1] - holdout_ms + 1 - label_delay_ms), start, len(times_ms))
    pieces = folds + ALWAYS_TRAINED
    # Moved back to the first event of the same millisecond, so that one moment is never on both sides.
    cuts = [_before(times_ms, times_ms[holdout.train_end * at // pieces]) for at in range(ALWAYS_TRAINED, pieces)]
    parts = tuple(
        Fold(_before(times_ms, times_ms[cut] - label_delay_ms), cut, after)
        for cut, after in zip(cuts, [*cuts[1:], holdout.train_end], strict=True)
    )
    _check(labels, holdout, parts, times_ms, label_delay_ms)
    return Split(holdout, parts)


def _before(times_ms: npt.NDArray[np.int64], moment_ms: int) -> int:
    """Return how many events came before a moment."""
    return int(np.searchsorted(times_ms, moment_ms))


def _check(
    labels: npt.NDArray[np.int8],
    holdout: Fold,
    folds: tuple[Fold, ...],
    times_ms: npt.NDArray[np.int64],
    label_delay_ms: int,
) -> None:
    days = (times_ms[-1] - times_ms[0]) / DAY_MS
    where = f"of this history of {days:,.1f} days (label delay {label_delay_ms / DAY_MS:g} days)"
    change = "give a longer history, fewer folds, a shorter holdout or a shorter label delay"
    named = [(f"Fold {at} of {len(folds)}", "trains on", "judges on", fold) for at, fold in enumerate(folds, 1)]
    for name, learns, judges, part in (*named, ("The holdout", "comes after", "holds", holdout)):
        learned, judged = labels[: part.train_end], labels[part.start : part.end]
        for what, rows, least in ((learns, learned, MIN_FRAUDS_TO_LEARN), (judges, judged, MIN_FRAUDS_TO_JUDGE)):
            frauds = int(rows.sum())
            if frauds < least or frauds == len(rows):
                raise TrainingError(
                    f"{name} {where} {what} {frauds} frauds among {len(rows)} events, and needs at least {least} "
                    f"frauds and an honest payment; {change}.",
                )
