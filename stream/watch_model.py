"""One model's traffic under watch: its panes, its detectors, its rows, and what comparisons say of them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.drift_adversarial import auc_bound, tell_apart
from models.drift_detectors import DetectorPlan, Detectors
from models.histograms import Histograms
from stream.alert_record import Alert
from stream.telemetry_record import Telemetry
from stream.watch_alerts import AlertBook, Cause
from stream.watch_comparison import Figures, Vectors, compare, whole
from stream.watch_findings import adversarial_finding, subject_findings
from stream.watch_memory import ADVERSARIAL_PERSISTENCE
from stream.watch_panes import SCORE, Layout, Panes, Times
from stream.watch_rows import KeptRows, Ranks, draw_row
from stream.watch_sections import DriftSettings
from stream.watch_snapshot import AdversarialState, Aside, ModelState, SubjectState

__all__ = ["WatchedModel"]


class WatchedModel:
    """version: of the model; reference: its histograms; times: how long things are.

    detect_from_ms: epochs that end before are not detected in; reading back is quicker for it.
    """

    def __init__(
        self, version: str, reference: Histograms, drift: DriftSettings, times: Times, detect_from_ms: int
    ) -> None:
        self.version, self.layout = version, Layout(reference)
        self._drift, self._times = drift, times
        self._first_epoch = detect_from_ms // drift.epoch
        self._panes = Panes(self.layout.size, times.kept)
        slots = max(1, times.pane_ms * 14 // drift.detector_every)  # 14 panes are the past of a window
        self._row_stride = max(1, slots // drift.adversarial_rows)
        self._kept_rows = KeptRows(-(-drift.adversarial_rows // 12), times.forgotten)
        self._plan = DetectorPlan(
            subjects=len(self.layout.names),
            rows=max(1, drift.epoch // drift.detector_every),
            false_alarms=drift.detector_false_alarms,
            kswin_every=drift.kswin_every,
        )
        self._detectors = Detectors(self._plan)
        self._epoch = -1
        self._learned = False
        self._ranks: tuple[int, Ranks] | None = None
        self._slot = -1
        self._detected: dict[int, int] = {}
        self.detections: Counter[tuple[str, str]] = Counter()
        self._figures: list[Figures] = []
        self._adversarial: AdversarialState | None = None
        self._features: dict[int, int] = {}

    @property
    def newest_pane(self) -> int:
        """The newest pane with a record of this model."""
        return self._panes.newest

    def add(self, records: Sequence[Telemetry], end_ms: int, set_aside: Counter[Aside]) -> list[tuple[str, str]]:
        """Take the model's records of the interval that ends then; return (detector, subject) of what was found."""
        pane = self._times.pane(end_ms)
        for record in records:
            self._panes.add(pane, self.layout.vector(record, set_aside))
        slot = end_ms // self._drift.detector_every
        if slot == self._slot:
            return []
        drawn = draw_row(records, self.layout, slot)
        if drawn is None:
            return []
        self._slot = slot
        row, fits = drawn
        if not fits:
            set_aside["sample"] += 1
            return []
        if slot % self._row_stride == 0:
            self._kept_rows.add(pane, row)
        return self._detect(row, pane, end_ms)

    def compare(self, at_ms: int, book: AlertBook) -> list[Alert]:
        """Compare with the reference and judge every cause of this model."""
        pane, times = self._times.pane(at_ms), self._times
        long = self._panes.sum(times.long(pane))
        first = times.long(pane)[0]
        quarter = self._panes.sum((first, first + times.rhythm // 4 - 1))
        score = len(self.layout.names) - 1
        is_whole = whole(self._events(quarter, score), self._events(long, score))
        vectors = Vectors(
            self._panes.sum(times.window(pane)),
            self._panes.sum(times.past(pane)),
            long if is_whole else None,
            self._panes.sum(times.longer_past(pane)) if times.longer else None,
        )
        lately = {subject for subject, found in self._detected.items() if found > at_ms - self._drift.window}
        self._figures = compare(self.layout, vectors, self._drift, lately)
        alerts = []
        for name, figures in zip(self.layout.names, self._figures, strict=True):
            for signal, finding in subject_findings(name, figures, self._drift):
                subject = "" if name is SCORE and signal == "score_drift" else name
                alerts += book.judge(Cause(signal, subject, "", self.version), finding, at_ms)
        return alerts

    def tell_apart(self, at_ms: int, book: AlertBook) -> list[Alert]:
        """Ask a classifier to tell the window's rows from those of one rhythm ago."""
        pane, most = self._times.pane(at_ms), self._drift.adversarial_rows
        past = self._kept_rows.between(self._times.past(pane), most)
        now = self._kept_rows.between(self._times.window(pane), most)
        found = tell_apart(past, now)
        if found is None:
            self._adversarial = None
            return []
        bound = auc_bound(len(past), len(now), self._drift.adversarial_auc, self._chance)
        most_used = np.argsort(-found.gain, kind="stable")[:5]
        features = tuple((self.layout.names[at], float(found.gain[at])) for at in most_used.tolist())
        self._adversarial = AdversarialState(at_ms, found.auc, bound, found.rows, features)
        finding = adversarial_finding(self._adversarial, self._drift.clear)
        return book.judge(Cause("adversarial_drift", "", "", self.version), finding, at_ms, ADVERSARIAL_PERSISTENCE)

    def state(self, open_causes: Sequence[Cause] | set[Cause]) -> ModelState:
        """Return what the last comparison said."""
        subjects = {
            name: self._subject(name, figures, open_causes)
            for name, figures in zip(self.layout.names, self._figures, strict=False)
        }
        score = subjects.pop(SCORE, SubjectState(0))
        adversarial = self._adversarial
        if adversarial is not None and Cause("adversarial_drift", "", "", self.version) in open_causes:
            adversarial = AdversarialState(
                adversarial.at_ms,
                adversarial.auc,
                adversarial.bound,
                adversarial.rows,
                adversarial.features,
                alarm=True,
            )
        return ModelState(self.version, score.events, subjects, score, dict(self.detections), adversarial)

    @property
    def _chance(self) -> float:
        runs = max(1, self._drift.epoch // max(1, self._drift.adversarial_every))
        return self._drift.false_alarms / runs

    def _events(self, vector: np.ndarray, subject: int) -> int:
        return int(self.layout.known(vector, subject).sum()) + self.layout.missing(vector, subject)

    def _detect(self, row: Sequence[float], pane: int, end_ms: int) -> list[tuple[str, str]]:
        epoch = (end_ms - 1) // self._drift.epoch
        if epoch < self._first_epoch:
            return []
        if epoch != self._epoch:
            self._begin(epoch)
        if self._ranks is None or self._ranks[0] != pane:
            self._ranks = (pane, Ranks(self.layout, self._expected(pane)))
        found = []
        for detection in self._detectors.update(self._ranks[1].of(row)):
            self._detected[detection.subject] = end_ms
            found.append((detection.detector, self.layout.names[detection.subject]))
        self.detections.update(found)
        return found

    def _begin(self, epoch: int) -> None:
        """Begin an epoch; whether it ranks by the traffic of one rhythm ago holds for all of it."""
        self._epoch, self._detectors, self._ranks = epoch, Detectors(self._plan), None
        self.detections = Counter()
        start = self._times.pane(epoch * self._drift.epoch + 1)
        past = self._panes.sum(self._times.past(start))
        self._learned = self._events(past, len(self.layout.names) - 1) >= self._drift.min_events

    def _expected(self, pane: int) -> np.ndarray:
        """Return the counts that a row's ranks are taken in.

        Those of the same time one rhythm ago, with min_events of the reference mixed in, which a quiet hour leans on.
        """
        if not self._learned:
            return self.layout.reference
        past = self._panes.sum(self._times.around(pane))
        reference = self.layout.reference
        return past + reference * (self._drift.min_events / max(1, self._events(reference, len(self.layout.names) - 1)))

    def _subject(self, name: str, figures: Figures, open_causes: Sequence[Cause] | set[Cause]) -> SubjectState:
        window, past, long = figures.window, figures.past, figures.long

        def is_open(signal: str) -> bool:
            subject = "" if signal == "score_drift" else name
            return Cause(signal, subject, "", self.version) in open_causes  # type: ignore[arg-type]

        known = window.known > 0
        missing = window.missing
        events = window.events
        return SubjectState(
            events=events,
            psi=window.psi if known else None,
            jensen_shannon=figures.jensen_shannon if known else None,
            kullback_leibler=figures.kullback_leibler if known else None,
            chi_squared_p=window.chi_squared.p_value if known else None,
            ks=figures.ks.statistic if known else None,
            ks_p=figures.ks.p_value if known else None,
            superiority=window.superiority if known else None,
            psi_past=past.psi if past.enough_known else None,
            psi_long=long.psi if long is not None and long.enough_known else None,
            missing=missing.current if events else None,
            reference_missing=missing.reference,
            alarm=is_open("score_drift" if name is SCORE else "feature_drift"),
            missing_alarm=is_open("feature_missing"),
            detector_alarm=is_open("detector_drift"),
        )
