"""One comparison of a model's traffic with its reference: figures of every subject, and what they say of each cause.

Traffic has rhythms. The hour before dawn differs from a reference of weeks, and differs every night; an alarm about it
teaches operators to switch the watch off. So there are three comparisons, and an alarm asks for

    the window is unlike the reference   AND   unlike the same time one rhythm ago      seen within minutes
    OR the last whole rhythm is unlike the reference                                    no rhythm in it: slow drift too

A window with nothing one rhythm ago to look at has a wider bound, `unlearned_psi`. What has drifted and stays so looks
like one rhythm ago from the second day on; by then the whole rhythm is unlike the reference and holds the alarm.

Each of them needs effect (a bound) and evidence (Benjamini and Hochberg over all tests of the comparison), and what
follows of it persistence (`stream.watch_alerts`).
"""

from dataclasses import dataclass
from typing import Any, Literal

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
    significant,
    superiority,
)
from stream.sections import DriftSettings
from stream.watch_panes import Layout

__all__ = ["Compared", "Figures", "State", "Vectors", "compare", "judge", "whole"]

State = Literal["wrong", "well", "between", "unknown"]
Vector = npt.NDArray[Any]

# Less than this share of a rhythm's events in its oldest quarter: it is not whole.
WHOLE_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Compared:
    """Two histograms of a subject, and how far apart they are.

    events, known: of the second, all and not missing. enough, enough_known: whether both have enough to be judged by.
    """

    events: int
    known: int
    psi: float
    chi_squared: ChiSquared
    superiority: float
    missing: MissingShift
    enough_known: bool
    enough: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """A subject over the window, against one rhythm ago, and over the last rhythm; states of its three causes.

    past: the same time one rhythm ago as reference. long: None where the last rhythm is not whole.
    """

    window: Compared
    past: Compared
    long: Compared | None
    jensen_shannon: float
    kullback_leibler: float
    ks: KolmogorovSmirnov
    drift: State = "unknown"
    missing: State = "unknown"
    shift: State = "unknown"


@dataclass(frozen=True, slots=True)
class Vectors:
    """Counts of the window, of the same time one rhythm ago, and of the last rhythm where it is whole."""

    window: Vector
    past: Vector
    long: Vector | None


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
        None if vectors.long is None else against(layout.reference, vectors.long),
        jensen_shannon(reference, window),
        kullback_leibler(reference, window),
        kolmogorov_smirnov(reference, window),
    )


def _compared(layout: Layout, before: Vector, now: Vector, subject: int, least: int) -> Compared:
    p, q = layout.known(before, subject), layout.known(now, subject)
    p_known, q_known = int(p.sum()), int(q.sum())
    p_missing, q_missing = layout.missing(before, subject), layout.missing(now, subject)
    return Compared(
        q_known + q_missing,
        q_known,
        psi(p, q),
        chi_squared(p, q),
        superiority(p, q),
        missing_shift(p_missing, p_known + p_missing, q_missing, q_known + q_missing),
        enough_known=min(p_known, q_known) >= least,
        enough=min(p_known + p_missing, q_known + q_missing) >= least,
    )


def _judged(one: Figures, drift: DriftSettings, sure: npt.NDArray[np.bool_], *, subject_detected: bool) -> Figures:
    window, past, long = one.window, one.past, one.long
    by_psi = _state(
        (window.psi, window.enough_known, bool(sure[0, 0])),
        (past.psi, past.enough_known),
        None if long is None else (long.psi, long.enough_known, bool(sure[1, 0])),
        drift.psi,
        drift,
    )
    by_missing = _state(
        (abs(window.missing.difference), window.enough, bool(sure[0, 1])),
        (abs(past.missing.difference), past.enough),
        None if long is None else (abs(long.missing.difference), long.enough, bool(sure[1, 1])),
        drift.missing,
        drift,
    )
    return Figures(
        window,
        past,
        long,
        one.jensen_shannon,
        one.kullback_leibler,
        one.ks,
        drift=by_psi,
        missing=by_missing,
        shift=_shifted(one, drift, detected=subject_detected),
    )


def _state(
    window: tuple[float, bool, bool],
    past: tuple[float, bool],
    long: tuple[float, bool, bool] | None,
    bound: float,
    drift: DriftSettings,
) -> State:
    """Return what distances say: (distance, enough events to judge, significant) of each of the three."""
    distance, judged, sure = window
    past_distance, learned = past
    long_distance, long_judged, long_sure = long or (0.0, False, False)
    if not judged and not long_judged:
        return "unknown"
    first = bound if learned else bound * drift.unlearned_psi / drift.psi
    if judged and sure and distance >= first and (not learned or past_distance >= bound):
        return "wrong"
    if long_judged and long_sure and long_distance >= bound:
        return "wrong"
    rhythmic = learned and long_judged and past_distance < drift.clear * bound
    window_well = not judged or not sure or rhythmic or distance < drift.clear * first
    long_well = not long_judged or not long_sure or long_distance < drift.clear * bound
    return "well" if window_well and long_well else "between"


def _shifted(one: Figures, drift: DriftSettings, *, detected: bool) -> State:
    if not one.window.enough_known:
        return "unknown"
    learned = one.past.enough_known
    effect = abs(one.window.superiority - 0.5)
    past_effect = abs(one.past.superiority - 0.5)
    # A wider bound than 1/2 is none; unlearned, at least 9 in 10 must lie on one side.
    first = drift.shift if learned else min(0.4, drift.shift * drift.unlearned_psi / drift.psi)
    if detected and effect >= first and (not learned or past_effect >= drift.shift):
        return "wrong"
    if not detected and (effect < drift.clear * first or (learned and past_effect < drift.clear * drift.shift)):
        return "well"
    return "between"
