"""River's detectors on the errors of one model, which tell whether what it gets wrong has changed.

    misses         of each fraud: was it approved?             DDM, ADWIN   concept drift
    false_alarms   of each honest payment: was it not?         ADWIN        concept drift
    label_rate     of each labelled payment: is it fraud?      ADWIN        another mix of labels

Errors of frauds and of honest payments are two sequences: in one, a day on which more honest labels came than usual
would look like a model that got better. DDM is not asked about false alarms: where errors are rare, it takes the first
one for a drift. Of errors only a rise is told; of the mix of labels any change.

A detector begins anew at each multiple of `epoch_ms` of the stream's clock and an alarm holds for `hold_ms` after the
last detection, neither longer than half of what is read back, so that a restart finds the same state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from river.drift import ADWIN
from river.drift.binary import DDM

#: What is fed to which detectors.
SEQUENCES: Final = (
    ("misses", "ddm"),
    ("misses", "adwin"),
    ("false_alarms", "adwin"),
    ("label_rate", "adwin"),
)
CONCEPT: Final = ("misses", "false_alarms")

#: DDM's usual 3.0 after 30 values is crossed by chance in a quarter of all sequences of some thousand without drift.
DDM_DEVIATIONS: Final = 4.5
DDM_WARM_UP: Final = 100
#: A rate that rests on fewer errors is not known.
LEAST_ERRORS: Final = 10
#: Chance of a false detection of ADWIN, bounded over the whole sequence.
ADWIN_DELTA: Final = 0.0005


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something one detector found. value: the rate after it, before: the rate until then."""

    sequence: str
    detector: str
    since_ms: int
    value: float
    before: float


class Sequence:
    """One detector over one sequence of 0 and 1; `rate` is that of the epoch so far."""

    def __init__(self, sequence: str, detector: str) -> None:
        self.sequence, self.detector = sequence, detector
        self.alarm: Alarm | None = None
        self.until_ms = 0
        self.restart()

    def restart(self) -> None:
        """Forget the sequence; an alarm stays for its time."""
        if self.detector == "ddm":
            self._detector = DDM(warm_start=DDM_WARM_UP, drift_threshold=DDM_DEVIATIONS)
        else:
            self._detector = ADWIN(delta=ADWIN_DELTA)
        self._fed = self._ones = 0

    def feed(self, one: bool, at_ms: int, hold_ms: int, least: int) -> Alarm | None:
        """Take the next value; return an alarm where it begins. Nothing is told on fewer than `least` values."""
        before = self._rate()
        self._detector.update(int(one))
        self._fed += 1
        self._ones += one
        if not self._detector.drift_detected:
            return None
        after = self._rate()
        known = self._fed >= least and self._ones >= LEAST_ERRORS
        if self.detector == "ddm":
            self._fed = self._ones = 0  # DDM begins anew by itself
        if not known or (self.sequence != "label_rate" and after <= before):
            return None
        self.until_ms = at_ms + hold_ms
        if self.alarm is not None:
            return None
        self.alarm = Alarm(self.sequence, self.detector, at_ms, after, before)
        return self.alarm

    def _rate(self) -> float:
        if self.detector == "adwin":
            return float(self._detector.estimation)
        return self._ones / self._fed if self._fed else 0.0


class Detectors:
    """The detectors of one model."""

    def __init__(self, epoch_ms: int, hold_ms: int, min_frauds: int) -> None:
        self._epoch_ms, self._hold_ms = epoch_ms, min(hold_ms, epoch_ms)
        self._min_frauds = min_frauds
        self._epoch = -1
        self._sequences = [Sequence(*names) for names in SEQUENCES]

    def feed(self, fraud: bool, approved: bool, at_ms: int) -> Iterator[Alarm]:
        """Take the next labelled decision; at_ms: the stream's clock, which never goes back."""
        epoch = at_ms // self._epoch_ms
        if epoch != self._epoch:
            self._epoch = epoch
            for one in self._sequences:
                one.restart()
        errors = "misses" if fraud else "false_alarms"
        error = approved if fraud else not approved
        for one in self._sequences:
            if one.sequence not in (errors, "label_rate"):
                continue
            value = fraud if one.sequence == "label_rate" else error
            alarm = one.feed(value, at_ms, self._hold_ms, self._min_frauds)
            if alarm is not None:
                yield alarm

    def over(self, at_ms: int) -> Iterator[Alarm]:
        """End the alarms whose time has passed, and return them."""
        for one in self._sequences:
            if one.alarm is not None and one.until_ms <= at_ms:
                alarm, one.alarm = one.alarm, None
                yield alarm

    @property
    def alarms(self) -> list[Alarm]:
        """What is on."""
        return [one.alarm for one in self._sequences if one.alarm is not None]

    @property
    def next_over_ms(self) -> int | None:
        """When the next alarm's time will have passed."""
        return min((one.until_ms for one in self._sequences if one.alarm is not None), default=None)
