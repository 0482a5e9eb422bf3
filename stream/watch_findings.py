"""What a comparison found, in the words of an alert."""

from collections.abc import Iterator

from stream.alert_record import Signal
from stream.watch_alerts import Finding
from stream.watch_comparison import Figures, State
from stream.watch_coverage import Gap
from stream.watch_panes import SCORE
from stream.watch_sections import DriftSettings
from stream.watch_snapshot import AdversarialState

__all__ = ["adversarial_finding", "coverage_finding", "mix_finding", "subject_findings", "unknown_model_finding"]


def subject_findings(name: str, figures: Figures, drift: DriftSettings) -> Iterator[tuple[Signal, Finding]]:
    """Yield, for a feature or the score, each signal with what the comparison says of it."""
    window, long = figures.window, figures.long
    value, bound, span = window.psi, drift.psi, drift.window
    if long is not None and long.psi / drift.day_psi > window.psi / drift.psi:
        value, bound, span = long.psi, drift.day_psi, drift.rhythm
    subject = "The score" if name is SCORE else f"The feature {name}"
    yield (
        "score_drift" if name is SCORE else "feature_drift",
        Finding(
            figures.drift,
            "psi",
            value,
            bound,
            f"{subject} is distributed {_unlike(figures.drift)} in training: a stability index of {value:.2f} over "
            f"{span}, bound {bound:g}.",
        ),
    )
    missing = window.missing
    if long is not None and abs(long.missing.difference) > abs(missing.difference):
        missing = long.missing
    yield (
        "feature_missing",
        Finding(
            figures.missing,
            "missing_share",
            missing.current,
            drift.missing,
            f"{subject} is missing in {missing.current:.1%} of the events, in training in {missing.reference:.1%}.",
        ),
    )
    above = window.superiority
    yield (
        "detector_drift",
        Finding(
            figures.shift,
            "superiority",
            above,
            0.5 + drift.shift if above >= 0.5 else 0.5 - drift.shift,
            f"{subject} {'is back' if figures.shift == 'well' else 'moved'}: a value of the last {drift.window} lies "
            f"above one of training with a chance of {above:.0%}, 50 % where nothing moved.",
        ),
    )


def adversarial_finding(state: AdversarialState, clear: float) -> Finding:
    """Return what the classifier's AUC says."""
    if state.auc >= state.bound:
        says = "wrong"
    else:
        says = "well" if state.auc - 0.5 < clear * (state.bound - 0.5) else "between"
    by = ", ".join(name for name, gain in state.features[:3] if gain > 0)
    text = f"A classifier tells the traffic from that of one rhythm ago with an AUC of {state.auc:.2f}"
    return Finding(says, "auc", state.auc, state.bound, f"{text}, mostly by {by}." if by else f"{text}.")  # type: ignore[arg-type]


def coverage_finding(partition: int, gaps: list[Gap]) -> Finding:
    """Return what a partition's uncovered offsets say."""
    uncovered = sum(gap.next - gap.first for gap in gaps)
    text = f"Partition {partition}: {uncovered} committed offsets of the last while are in no telemetry."
    return Finding("wrong" if uncovered else "well", "uncovered_offsets", float(uncovered), 0.0, text)


def unknown_model_finding(model: str) -> Finding:
    """Return the finding that a model scores whose reference cannot be found."""
    return Finding(
        "wrong",
        "unknown_model",
        None,
        None,
        f"Model {model} scores, but its bundle is not where the monitor looks, so its drift cannot be watched.",
    )


def mix_finding(segment: str, distance: float, bound: float, clear: float, *, judged: bool, sure: bool) -> Finding:
    """Return what a segment's mix of decisions says."""
    if not judged:
        state: State = "unknown"
    elif sure and distance >= bound:
        state = "wrong"
    else:
        state = "well" if not sure or distance < clear * bound else "between"
    of = f"of segment {segment} " if segment else ""
    text = (
        f"The mix of decisions {of}is {_unlike(state)} those before: an index of {distance:.3f} against the nearest of "
        f"them, one rhythm ago or all of the last, bound {bound:g}."
    )
    return Finding(state, "psi", distance, bound, text)


def _unlike(state: str) -> str:
    return "like" if state == "well" else "unlike"
