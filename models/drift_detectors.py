"""River's drift detectors over a sequence of rows, one set for each feature and one for the score.

    row      r0   r1   r2   r3   r4   r5 …        ranks in [0, 1], NaN where missing
    ADWIN     •    •    •    •    •    •          every row: a change of the mean (Bifet and Gavaldà 2007)
    PH        •    •    •    •    •    •          every row: a change of the mean, two-sided (Page 1954)
    KSWIN     •                        •          one in `kswin_every`: a change of the distribution (Raab 2020)

A missing value is skipped: how many are missing has a test of its own. The detectors take **ranks**: where a value lies
in the distribution expected at its time, 0 to 1. ADWIN's bound holds for values in [0, 1] only, and an amount's tail
would keep PageHinkley's threshold from meaning anything.

**False alarms.** All detectors together raise at most `false_alarms` false alarms an epoch in expectation, a third of
it each, if rows are independent and as expected:

- ADWIN: River's delta bounds a check's chance to cut; a check comes every 32 rows, so delta is the budget over the
  subjects and the checks of an epoch.
- PageHinkley: a sum with drift −DELTA a row reaches λ from its minimum with chance exp(−2 · DELTA · λ / σ²)
  (Kingman's bound), σ² = 1/12 for ranks, once a row at most and on two sides, which gives the threshold. River's
  forgetting is switched off: with it the sum comes to rest where forgetting undoes DELTA, and then wanders.
- KSWIN: alpha is the budget over subjects and tests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from river.drift import ADWIN, KSWIN, PageHinkley

__all__ = ["DETECTORS", "Detection", "DetectorPlan", "Detectors"]

#: In the order in which a row meets them.
DETECTORS: Final = ("adwin", "page_hinkley", "kswin")

# A mean rank that moves by less than this is no change that a model would notice.
DELTA: Final = 0.05
RANK_VARIANCE: Final = 1 / 12
ADWIN_CLOCK: Final = 32
# A detector that knows its mean to 0.02 of a rank.
MIN_ROWS: Final = 300
# Against 150 rows of the recent past, a distance of 0.3 stands out at the smallest alpha used.
KSWIN_ROWS: Final = 500
KSWIN_RECENT: Final = 150


@dataclass(frozen=True, slots=True)
class Detection:
    """Detector `detector` of subject number `subject` found a change at row number `row` of the epoch."""

    subject: int
    detector: str
    row: int


@dataclass(frozen=True, slots=True)
class DetectorPlan:
    """What the detectors of one model keep to: subjects, rows of an epoch, false alarms an epoch, thinning, seed."""

    subjects: int
    rows: int
    false_alarms: float = 0.1
    kswin_every: int = 30
    seed: int = 1

    @property
    def budget(self) -> float:
        """False alarms an epoch of one detector of one subject."""
        return self.false_alarms / (len(DETECTORS) * max(self.subjects, 1))

    @property
    def adwin_delta(self) -> float:
        """ADWIN's delta."""
        return self.budget / max(1, self.rows // ADWIN_CLOCK)

    @property
    def page_hinkley_threshold(self) -> float:
        """PageHinkley's threshold, in ranks."""
        return RANK_VARIANCE / (2 * DELTA) * math.log(2 * max(self.rows, 1) / self.budget)

    @property
    def kswin_alpha(self) -> float:
        """KSWIN's alpha."""
        return self.budget / max(1, self.rows // self.kswin_every)

    def adwin(self) -> Any:
        """Return a new ADWIN."""
        return ADWIN(delta=self.adwin_delta, clock=ADWIN_CLOCK)

    def page_hinkley(self) -> Any:
        """Return a new PageHinkley."""
        return PageHinkley(
            min_instances=MIN_ROWS, delta=DELTA, threshold=self.page_hinkley_threshold, alpha=1.0, mode="both"
        )

    def kswin(self, subject: int) -> Any:
        """Return a new KSWIN; each subject has a seed of its own, so that they do not draw alike."""
        return KSWIN(
            alpha=self.kswin_alpha, window_size=KSWIN_ROWS, stat_size=KSWIN_RECENT, seed=self.seed * 1_000_003 + subject
        )


class Detectors:
    """The detectors of one model in one epoch; a new epoch begins with a new object."""

    def __init__(self, plan: DetectorPlan) -> None:
        self.plan = plan
        self.rows = 0
        self._adwin = [plan.adwin() for _ in range(plan.subjects)]
        self._page_hinkley = [plan.page_hinkley() for _ in range(plan.subjects)]
        self._kswin = [plan.kswin(subject) for subject in range(plan.subjects)]

    def update(self, ranks: npt.NDArray[np.float64] | Sequence[float]) -> list[Detection]:
        """Take a row, the ranks float64[subjects] of one event, and return what was found at it."""
        found = []
        row, with_kswin = self.rows, self.rows % self.plan.kswin_every == 0
        self.rows += 1
        values = ranks.tolist() if isinstance(ranks, np.ndarray) else ranks
        for subject, value in enumerate(values):
            if value != value:  # noqa: PLR0124  NaN; math.isnan takes twice as long
                continue
            each = [("adwin", self._adwin[subject]), ("page_hinkley", self._page_hinkley[subject])]
            if with_kswin:
                each.append(("kswin", self._kswin[subject]))
            for name, detector in each:
                detector.update(value)
                if detector.drift_detected:
                    found.append(Detection(subject, name, row))
        return found
