"""The plots of a report, as SVG to stand inside a page. The same evaluation gives the same bytes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from models.evaluation import ENSEMBLE, Evaluation
from models.evaluation_segments import UNKNOWN
from models.svg import svg

SIZE_INCHES = (5.6, 3.9)
COLOURS = ("#1f5fa8", "#d0722c", "#3f8f54", "#8a5fb0", "#777777")
HONEST, FRAUD = COLOURS[0], "#c0392b"


def plots(evaluation: Evaluation) -> dict[str, str]:
    """Return each plot's SVG by its title. Raises ModelError where matplotlib is missing."""
    drawn: dict[str, Callable[[Any], None]] = {
        "ROC curve": partial(_roc, evaluation=evaluation),
        "Precision and recall": partial(_precision_recall, evaluation=evaluation),
        "Reliability": partial(_reliability, evaluation=evaluation),
        "Scores by class": partial(_histogram, evaluation=evaluation),
        f"CP@{evaluation.plan.cards_a_day} by day": partial(_days, evaluation=evaluation),
    }
    for name, found in evaluation.segments.items():
        if any(one.recall is not None and one.name != UNKNOWN for one in found):
            drawn[f"Recall and false positives by {name}"] = partial(_segments, evaluation=evaluation, name=name)
    return {title: draw_svg(draw, title) for title, draw in drawn.items()}


def draw_svg(draw: Callable[[Any], None], name: str) -> str:
    """Return the SVG element of one pair of axes. Raises ModelError where matplotlib is missing."""
    style = {"font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}
    text = svg(lambda figure: draw(figure.add_subplot()), SIZE_INCHES, name, style)
    return text[text.index("<svg") :].strip()


def _roc(axes: Any, evaluation: Evaluation) -> None:
    for (name, curve), colour in zip(evaluation.curves.items(), COLOURS, strict=False):
        found = evaluation.models[name].auc_roc.value
        axes.plot(curve.false_positive_rate, curve.recall, color=colour, label=f"{name} {found:.3f}", lw=_width(name))
    axes.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.8, ls="--")
    axes.set(xlabel="false positive rate", ylabel="recall", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False, loc="lower right")


def _precision_recall(axes: Any, evaluation: Evaluation) -> None:
    for (name, curve), colour in zip(evaluation.curves.items(), COLOURS, strict=False):
        found = evaluation.models[name].average_precision.value
        axes.plot(curve.recall, curve.precision, color=colour, label=f"{name} {found:.3f}", lw=_width(name))
    for at, mark in ((evaluation.review, "review"), (evaluation.decline, "decline")):
        if np.isfinite([at.recall.value, at.precision.value]).all():
            axes.plot([at.recall.value], [at.precision.value], "o", color="#1c2630", ms=4)
            axes.annotate(mark, (at.recall.value, at.precision.value), (5, 4), textcoords="offset points")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False, loc="upper right")


def _width(name: str) -> float:
    return 1.8 if name == ENSEMBLE else 0.9


def _reliability(axes: Any, evaluation: Evaluation) -> None:
    """Both axes logarithmic: frauds are rare, and a chance of 1 in 1,000 matters as much as one of 1 in 10."""
    found = evaluation.calibration
    seen = [(one, share) for one, share in zip(found.bins, found.fraud_shares, strict=True) if one.mean_score > 0]
    lowest = min((min(one.mean_score, one.fraud_share or 1.0) for one, _ in seen), default=1e-3)
    axes.plot([lowest, 1], [lowest, 1], color="#bbbbbb", lw=0.8, ls="--")
    for one, share in seen:
        if one.fraud_share > 0:
            low, high = max(share.low, lowest), share.high
            axes.plot([one.mean_score] * 2, [low, high], color=COLOURS[0], lw=1)
            axes.plot([one.mean_score], [one.fraud_share], "o", color=COLOURS[0], ms=4)
    axes.set(xscale="log", yscale="log", xlabel="mean score of the bin", ylabel="share of frauds")
    for axis in (axes.xaxis, axes.yaxis):
        # The usual labels, 10⁻³, are mathematical text, which is switched off for the sake of segments' names.
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda _value, _: "")


def _histogram(axes: Any, evaluation: Evaluation) -> None:
    found = evaluation.histogram
    edges = np.array(found.edges)
    for shares, name, colour in ((found.honest, "honest", HONEST), (found.fraud, "fraud", FRAUD)):
        axes.stairs(shares, edges, color=colour, label=name, fill=True, alpha=0.35)
        axes.stairs(shares, edges, color=colour, lw=1)
    for threshold in (evaluation.review.threshold, evaluation.decline.threshold):
        if threshold < 1.0:
            axes.axvline(np.log(threshold / (1.0 - threshold)), color="#1c2630", lw=0.8, ls=":")
    axes.set(xlabel="log-odds of the score (dotted: thresholds)", ylabel="share of the class")
    axes.legend(frameon=False)


def _days(axes: Any, evaluation: Evaluation) -> None:
    days = np.array([day.day for day in evaluation.days]).astype("datetime64[D]")
    k = evaluation.plan.cards_a_day
    axes.bar(days, [day.card_precision for day in evaluation.days], color=COLOURS[0], width=0.8)
    possible = [min(day.compromised_cards / k, 1.0) for day in evaluation.days]
    axes.plot(days, possible, "_", color="#1c2630", ms=8, label="cards compromised that day")
    axes.set(ylabel=f"share of {k}", ylim=(0, 1.2 * max([*possible, 1 / k])))
    axes.tick_params(axis="x", rotation=45)
    axes.legend(frameon=False, loc="upper right")


def _segments(axes: Any, evaluation: Evaluation, name: str) -> None:
    shown = list(reversed([one for one in evaluation.segments[name] if one.recall is not None]))
    places = np.arange(len(shown))
    columns: Mapping[str, tuple[str, float]] = {"recall": (COLOURS[0], 0.12), "false_positive_rate": (FRAUD, -0.12)}
    for column, (colour, shift) in columns.items():
        found = [getattr(one, column) for one in shown]
        at = [(place + shift, one) for place, one in zip(places, found, strict=True) if one is not None]
        for place, one in at:
            axes.plot([one.low, one.high], [place, place], color=colour, lw=1.2)
        label = column.replace("_", " ")
        axes.plot([one.value for _, one in at], [place for place, _ in at], "o", color=colour, ms=4, label=label)
    axes.set_yticks(places, [one.name for one in shown])
    axes.set(xlabel="share at the review threshold", xlim=(-0.02, 1.02))
    axes.legend(frameon=False)
