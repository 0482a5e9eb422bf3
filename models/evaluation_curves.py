"""Curves and the histogram of scores, as few points as a plot can show."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Half of them evenly over the ranks, half crowded where the scores are highest, which is what a threshold cuts.
POINTS = 400
HISTOGRAM_BINS = 60


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of the ROC curve (false_positive_rate, recall) and of precision over recall, by falling threshold."""

    false_positive_rate: list[float]
    recall: list[float]
    precision: list[float]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Share of each class's events by log-odds of their scores; edges has one entry more than the others."""

    edges: list[float]
    honest: list[float]
    fraud: list[float]


def curve(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.int8]) -> Curve:
    """Return the curve of scores [n] and labels int8[n], which must hold both classes."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    caught = np.cumsum(labels[order], dtype=np.int64)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    n = len(ends)
    crowded = np.geomspace(1, n, POINTS // 2) - 1
    shown = ends[np.unique(np.concatenate([crowded, np.linspace(0, n - 1, POINTS // 2)]).astype(np.int64))]
    frauds = int(caught[-1])
    seen, found = shown + 1, caught[shown]
    return Curve(
        [0.0, *((seen - found) / (len(scores) - frauds)).tolist()],
        [0.0, *(found / frauds).tolist()],
        [float(found[0] / seen[0]), *(found / seen).tolist()],
    )


def histogram(log_odds: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> Histogram:
    """Return the histogram of log-odds [n] by class; labels int8[n] must hold both."""
    edges = np.histogram_bin_edges(log_odds, HISTOGRAM_BINS)
    shares = [np.histogram(log_odds[labels == label], edges)[0] / (labels == label).sum() for label in (0, 1)]
    return Histogram(edges.tolist(), shares[0].tolist(), shares[1].tolist())
