"""One comparison of a model's traffic with its reference: figures of every subject, and what they say of each cause.

Traffic has rhythms. The hour before dawn differs from a reference of weeks, and differs every night; an alarm about it
teaches operators to switch the watch off. So there are three comparisons, and an alarm asks for

    the window is unlike the reference   AND   unlike the same time one rhythm ago      seen within minutes
    OR the last whole rhythm is unlike the reference, by `drift.day_psi`                no rhythm in it: slow drift too

What has drifted and stays so looks like one rhythm ago from the second day on; by then the whole rhythm is unlike the
reference and holds the alarm.

A day ago was a Friday, and Saturdays are no drift. Where `drift.longer_rhythm` is set and that far back is known, the
nearer of the two pasts counts. Where it is not, yesterday is the weaker witness: the window must be unlike it by the
wider bound, `unlearned_psi`, and so it must be unlike the reference where nothing at all is known of its past. A
reference is days of all kinds, so a whole Sunday is unlike it too: `day_psi` is wider than `psi`.

Each of them needs effect (a bound) and evidence (Benjamini and Hochberg over all tests of the comparison), and what
follows of it persistence (`stream.watch_alerts`).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from models.drift_statistics import (
    ChiSquared,
    KolmogorovSmirnov,
    MissingShift,
    chi_squared,
    jensen_shannon,
    kolmogorov_smirnov,
    kullback_leibler,
    missing_shift,
    psi,
    psi_by_chance,
    significant,
    superiority,
)
from stream.watch_panes import Layout
from stream.watch_sections import DriftSettings

__all__ = ["Compared", "Figures", "State", "Vectors", "compare", "judge", "whole"]

State = Literal["wrong", "well", "between", "unknown"]
Vector = npt.NDArray[Any]

# Less than this share of a rhythm's events in its oldest quarter: it is not whole.
WHOLE_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Compared:
    """Two histograms of a subject, and how far apart they are.

    events, known: of the second, all and not missing. effect: psi less what two samples of one distribution of so few
    events differ by. enough, enough_known: whether both have enough to be judged by.
    """

    events: int
    known: int
    psi: float
    effect: float
    chi_squared: ChiSquared
    superiority: float
    missing: MissingShift
    enough_known: bool
    enough: bool

    @property
    def shift(self) -> float:
        """How far the chance of a higher value is from one half."""
        return abs(self.superiority - 0.5)

    @property
    def missing_effect(self) -> float:
        """How far the share of missing values moved, either way."""
        return abs(self.missing.difference)


@dataclass(frozen=True, slots=True)
class Figures:
    """A subject over the window, against one rhythm ago, and over the last rhythm; states of its three causes.

    past, longer: the same time one rhythm ago, one longer rhythm ago as reference. long: None where the last rhythm is
    not whole; longer where no longer one is set.
    """

    window: Compared
    past: Compared
    longer: Compared | None
    long: Compared | None
    jensen_shannon: float
    kullback_leibler: float
    ks: KolmogorovSmirnov
    drift: State = "unknown"
    missing: State = "unknown"
    shift: State = "unknown"


@dataclass(frozen=True, slots=True)
class Vectors:
    """Counts of the window, of the same time one rhythm ago, of the last rhythm where it is whole.

    longer: those of the same time one longer rhythm ago, where there is one.
    """

    window: Vector
    past: Vector
    long: Vector | None
    longer: Vector | None = None


class Bounds(NamedTuple):
    """What one kind of distance is judged by.

    wide: where the past is not known, or a weaker witness. day: of a whole rhythm. clear: the share that ends an alarm.
    """

    usual: float
    wide: float
    day: float
    clear: float


@dataclass(frozen=True, slots=True)
class Effects:
    """One kind of distance: of the window from the reference and from its pasts, of the last rhythm from the reference.

    None: too few events to say. sure, long_sure: whether the distances from the reference are significant.
    """

    window: float | None
    past: float | None
    longer: float | None
    long: float | None = None
    sure: bool = True
    long_sure: bool = True

    def beyond(self, bound: float, wide: float, yesterday: float, share: float = 1.0) -> bool:
        """Say whether the window is beyond this share of what an alarm asks.

        wide: the bound where no past is known. yesterday: that from the past where the longer one is not.
        """
        if self.window is None or not self.sure:
            return False
        pasts = [past for past in (self.past, self.longer) if past is not None]
        first = bound if pasts else wide
        nearest = bound if self.longer is not None else yesterday
        return self.window >= share * first and (not pasts or min(pasts) >= share * nearest)

    def long_beyond(self, bound: float) -> bool:
        """Say whether the last whole rhythm is beyond the bound."""
        return self.long is not None and self.long_sure and self.long >= bound


def compare(layout: Layout, vectors: Vectors, drift: DriftSettings, detected: set[int]) -> list[Figures]:
    """Return the figures of every subject. detected: subjects of which a detector found a change lately."""
    found = [_figures(layout, vectors, subject, drift.min_events) for subject in range(len(layout.names))]
    return judge(found, drift, detected)


def judge(found: list[Figures], drift: DriftSettings, detected: set[int]) -> list[Figures]:
    """Return the figures with what they say; the tests of all of them are one family."""
    tests = []
    for one in found:
        for compared in (one.window, one.long):
            tests += [compared.chi_squared.p_value, compared.missing.p_value] if compared else [1.0, 1.0]
    sure = significant(np.array(tests, np.float64), drift.false_alarms).reshape(-1, 2, 2)
    return [_judged(one, drift, sure[at], subject_detected=at in detected) for at, one in enumerate(found)]


def whole(oldest_quarter: int, events: int) -> bool:
    """Say whether a rhythm's events were counted from its beginning on."""
    return oldest_quarter >= max(1, WHOLE_SHARE * events)


def _figures(layout: Layout, vectors: Vectors, subject: int, least: int) -> Figures:
    reference, window = layout.known(layout.reference, subject), layout.known(vectors.window, subject)

    def against(before: Vector, now: Vector) -> Compared:
        return _compared(layout, before, now, subject, least)

    return Figures(
        against(layout.reference, vectors.window),
        against(vectors.past, vectors.window),
        None if vectors.longer is None else against(vectors.longer, vectors.window),
        None if vectors.long is None else against(layout.reference, vectors.long),
        jensen_shannon(reference, window),
        kullback_leibler(reference, window),
        kolmogorov_smirnov(reference, window),
    )


def _compared(layout: Layout, before: Vector, now: Vector, subject: int, least: int) -> Compared:
    p, q = layout.known(before, subject), layout.known(now, subject)
    p_known, q_known = int(p.sum()), int(q.sum())
    p_missing, q_missing = layout.missing(before, subject), layout.missing(now, subject)
    index = psi(p, q)
    return Compared(
        q_known + q_missing,
        q_known,
        index,
        max(0.0, index - psi_by_chance(p, q)),
        chi_squared(p, q),
        superiority(p, q),
        missing_shift(p_missing, p_known + p_missing, q_missing, q_known + q_missing),
        enough_known=min(p_known, q_known) >= least,
        enough=min(p_known + p_missing, q_known + q_missing) >= least,
    )


def _judged(one: Figures, drift: DriftSettings, sure: npt.NDArray[np.bool_], *, subject_detected: bool) -> Figures:
    def effects(name: str, test: int, *, known: bool) -> Effects:
        def of(compared: Compared | None) -> float | None:
            if compared is None or not (compared.enough_known if known else compared.enough):
                return None
            return float(getattr(compared, name))

        each = (of(one.window), of(one.past), of(one.longer), of(one.long))
        return Effects(*each, bool(sure[0, test]), bool(sure[1, test]))

    wider = drift.unlearned_psi / drift.psi
    psi_bounds = Bounds(drift.psi, drift.unlearned_psi, drift.day_psi, drift.clear)
    by_psi = _state(effects("effect", 0, known=True), psi_bounds)
    missing_bounds = Bounds(drift.missing, drift.missing * wider, drift.missing, drift.clear)
    by_missing = _state(effects("missing_effect", 1, known=False), missing_bounds)
    shift = replace(effects("shift", 0, known=True), sure=True)
    return replace(one, drift=by_psi, missing=by_missing, shift=_shifted(shift, drift, detected=subject_detected))


def _state(effects: Effects, bounds: Bounds) -> State:
    if effects.window is None and effects.long is None:
        return "unknown"
    usual, wide, day, clear = bounds
    if effects.beyond(usual, wide, wide) or effects.long_beyond(day):
        return "wrong"
    # The past may have drifted already: without a whole rhythm it says little of how well it is now.
    learned = effects.past is not None or effects.longer is not None
    if effects.long is None and learned and effects.window is not None and effects.sure:
        return "well" if effects.window < clear * usual else "between"
    within = not effects.beyond(usual, wide, wide, clear) and not effects.long_beyond(clear * day)
    return "well" if within else "between"


def _shifted(effects: Effects, drift: DriftSettings, *, detected: bool) -> State:
    if effects.window is None:
        return "unknown"
    # A wider bound than 1/2 is none; unlearned, at least 9 in 10 must lie on one side.
    wide = min(0.4, drift.shift * drift.unlearned_psi / drift.psi)
    # A detector ranks by what yesterday expects and has found a change in that already: no wider bound.
    bounds = drift.shift, wide, drift.shift
    if detected and effects.beyond(*bounds):
        return "wrong"
    return "between" if detected or effects.beyond(*bounds, drift.clear) else "well"
