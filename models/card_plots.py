"""The model card's plots."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.card import Judged, Segment, reliability, segments
from models.folds import DAY_MS
from models.policy import Thresholds
from models.svg import svg

SIZE_INCHES = (7.0, 3.6)
POINTS = 400


def card_plots(judged: Judged, thresholds: Thresholds, days: Sequence[tuple[int, int, int]]) -> dict[str, bytes]:
    """Return the plots by file name; `days` as from `models.card.days`. Raises ModelError without matplotlib."""
    figures: dict[str, Callable[[Any], None]] = {
        "card_data.svg": lambda figure: _data(figure, days),
        "card_quality.svg": lambda figure: _quality(figure, judged, thresholds),
        "card_calibration.svg": lambda figure: _calibration(figure, judged),
        "card_segments.svg": lambda figure: _segments(figure, segments(judged, thresholds.review)),
    }
    return {name: svg(draw, SIZE_INCHES, name, {"axes.grid": True}).encode() for name, draw in figures.items()}


def _data(figure: Any, days: Sequence[tuple[int, int, int]]) -> None:
    start = days[0][0]
    x = [(at - start) / DAY_MS for at, _, _ in days]
    volume, share = figure.subplots(2, 1, sharex=True)
    volume.step(x, [events for _, events, _ in days], where="mid")
    volume.set_ylabel("events a day")
    share.step(x, [100 * frauds / events for _, events, frauds in days], where="mid", color="tab:red")
    share.set(ylabel="fraud, %", xlabel="days since the first payment")


def _quality(figure: Any, judged: Judged, thresholds: Thresholds) -> None:
    precision, recall = _curve(judged.scores, judged.labels)
    axes = figure.subplots()
    axes.plot(recall, precision)
    for name, threshold in (("review", thresholds.review), ("decline", thresholds.decline)):
        seen = judged.scores >= np.float32(threshold)
        if seen.any():
            at = judged.labels[seen].sum() / judged.labels.sum(), judged.labels[seen].mean()
            axes.plot(*at, "o", label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _curve(
    scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return precision and recall at some hundred thresholds, spread evenly over recall."""
    order = np.argsort(-scores, kind="stable")
    caught = np.cumsum(labels[order])
    frauds = int(caught[-1])
    wanted = np.unique(np.linspace(1, frauds, min(POINTS, frauds)).astype(np.int64))
    at = np.searchsorted(caught, wanted)
    return caught[at] / (at + 1), caught[at] / frauds


def _calibration(figure: Any, judged: Judged) -> None:
    bins = [one for one in reliability(judged.scores, judged.labels) if one.score > 0]
    axes = figure.subplots()
    least = min(one.score for one in bins) if bins else 1e-6
    axes.plot([least, 1], [least, 1], ":", color="grey", label="perfect")
    # A bin without a fraud has no place on a logarithmic axis; the card's table shows it.
    shown = [one for one in bins if one.frauds > 0]
    axes.plot([one.score for one in shown], [one.frauds for one in shown], "o-", label="holdout")
    axes.set(xlabel="mean score", ylabel="share of frauds", xscale="log", yscale="log")
    axes.legend()


def _segments(figure: Any, found: Sequence[Segment]) -> None:
    axes = figure.subplots()
    names = [f"{one.kind}: {one.name}" for one in found]
    axes.barh(names[::-1], [100 * one.false_positives for one in found][::-1])
    axes.set_xlabel("honest payments reviewed or declined, %")
