"""The model card: what a model was made from, how good it is, for whom, and where its limits are, in plain words.

After Mitchell et al. 2019, "Model cards for model reporting". Every figure of quality is out of fold: whoever chooses
among models reads cards, and what one chooses by proves nothing any more. The holdout is for the gates alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from models.folds import DAY_MS
from models.gate import NORMAL_95
from models.manifest import CARD, OUT_OF_FOLD
from models.metrics import at_threshold
from models.sentences import in_major_units
from models.train import Trained

# Segments with fewer events or frauds than this are shown together: their figures would be noise.
MIN_SEGMENT_EVENTS = 100
MOST_SEGMENTS = 8
AMOUNT_BANDS = 4
RELIABILITY_BINS = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """What the card judges by, n events out of fold: labels int8[n], scores float32[n], amounts int64[n] (minor)."""

    labels: npt.NDArray[np.int8]
    scores: npt.NDArray[np.float32]
    amount_minor: npt.NDArray[np.int64]
    countries: Sequence[str]
    channels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Segment:
    """How a part of them fares at the review threshold; recall and precision are 0 where nothing could be."""

    kind: str
    name: str
    events: int
    frauds: int
    reviewed: float
    false_positives: float
    recall: float


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of the reliability curve: its events, their mean score, and how many of them were frauds."""

    events: int
    score: float
    frauds: float


def segments(judged: Judged, threshold: float) -> list[Segment]:
    """Return the segments by country, channel and amount; countries and channels only where any is known."""
    quantiles = np.quantile(judged.amount_minor, [at / AMOUNT_BANDS for at in range(1, AMOUNT_BANDS)])
    band = np.searchsorted(np.unique(quantiles), judged.amount_minor, side="right")
    found = [*_by("country", np.array(judged.countries), judged, threshold)]
    found += _by("channel", np.array(judged.channels), judged, threshold)
    for at in np.unique(band).tolist():
        rows = band == at
        low, high = (in_major_units(end(judged.amount_minor[rows]).item()) for end in (np.min, np.max))
        found.append(_segment("amount", f"{low} to {high}", rows, judged, threshold))
    return found


def reliability(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int8]) -> list[Bin]:
    """Return bins of about equally many events, lowest scores first."""
    order = np.argsort(scores, kind="stable")
    return [
        Bin(len(rows), float(scores[rows].mean(dtype=np.float64)), float(labels[rows].mean()))
        for rows in np.array_split(order, RELIABILITY_BINS)
        if len(rows)
    ]


def card_text(trained: Trained, judged: Judged, lineage: Mapping[str, Any], plots: Sequence[str]) -> bytes:
    """Return the card as Markdown that shows these plots; equal input gives equal bytes."""
    parts = [_heading(), _data(trained, lineage), _quality(trained), _calibration(trained, judged)]
    parts += [_segments(trained, judged), _method(trained), _limits(trained, judged)]
    shown = {"data": 1, "quality": 2, "calibration": 3, "segments": 4}
    for name, at in shown.items():
        if f"card_{name}.svg" in plots:
            parts[at] = [*parts[at], "", f"![{name}](card_{name}.svg)"]
    return ("\n\n".join("\n".join(lines) for lines in parts) + "\n").encode()


def day(time_ms: float) -> str:
    """Return the UTC date of a moment in epoch ms."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")


def _heading() -> list[str]:
    what = (
        "A score is the estimated probability that a card transaction is fraud, from what is known of its user's "
        "payments up to that moment. Two gradient-boosted forests (XGBoost and LightGBM) are weighed by a logistic "
        f"regression over their log-odds and calibrated. `manifest.json` beside this `{CARD}` names the version."
    )
    return ["# Model card", "", what]


def _data(trained: Trained, lineage: Mapping[str, Any]) -> list[str]:
    data = lineage.get("data", {})
    rows = [("training events", f"{trained.parameters['training_events']:,}")]
    rows += [("training frauds", f"{trained.parameters['training_frauds']:,}")]
    rows += [("holdout events", f"{trained.metrics['events']:,.0f}")]
    rows += [("holdout frauds", f"{trained.metrics['frauds']:,.0f}")]
    for key, what in (("first_ms", "first payment"), ("last_ms", "last payment")):
        if key in data:
            rows.append((what, day(data[key])))
    rows += [(what, f"`{data[key]}`") for key, what in (("sha256", "SHA-256 of the file"),) if key in data]
    rows += [("rows refused or left out", f"{data['left_out']:,}")] if "left_out" in data else []
    return ["## Data", "", *_table(("", ""), rows)]


def _quality(trained: Trained) -> list[str]:
    found = {name.removeprefix(OUT_OF_FOLD): value for name, value in trained.metrics.items() if OUT_OF_FOLD in name}
    models = (("ensemble", ""), ("XGBoost alone", "xgboost_"), ("LightGBM alone", "lightgbm_"))
    ranking = [
        (name, f"{found[f'{key}auc_roc']:.4f}", f"{found[f'{key}average_precision']:.4f}") for name, key in models
    ]
    thresholds = [
        (
            name,
            f"{getattr(trained.thresholds, name):.4f}",
            *(f"{found[f'{name}_{figure}']:.2%}" for figure in ("rate", "precision", "recall")),
        )
        for name in ("review", "decline")
    ]
    basis = (
        f"Of {found['events']:,.0f} payments with {found['frauds']:,.0f} frauds, each judged by models that had "
        "learned from earlier ones alone. The holdout is not read here: it is for the gates."
    )
    return [
        "## Quality out of fold",
        "",
        basis,
        "",
        *_table(("", "AUC ROC", "average precision"), ranking),
        "",
        *_table(("from this score on", "threshold", "of all events", "precision", "recall"), thresholds),
    ]


def _calibration(trained: Trained, judged: Judged) -> list[str]:
    bins = [(f"{b.events:,}", f"{b.score:.4%}", f"{b.frauds:.4%}") for b in reliability(judged.scores, judged.labels)]
    slope, intercept = trained.calibration.slope, trained.calibration.intercept
    return [
        "## Calibration out of fold",
        "",
        f"Log-odds are multiplied by {slope:.3f} and moved by {intercept:+.3f}, found on out-of-fold scores.",
        "",
        *_table(("events", "mean score", "were fraud"), bins),
    ]


def _segments(trained: Trained, judged: Judged) -> list[str]:
    rows = [
        (
            one.kind,
            one.name,
            f"{one.events:,}",
            f"{one.frauds:,}",
            f"{one.reviewed:.2%}",
            f"{one.false_positives:.2%}",
            f"{one.recall:.1%}" if one.frauds else "",
        )
        for one in segments(judged, trained.thresholds.review)
    ]
    head = ("by", "", "events", "frauds", "reviewed or declined", "of the honest ones", "of the frauds")
    return ["## Segments out of fold", "", *_table(head, rows)]


def _method(trained: Trained) -> list[str]:
    made = trained.parameters
    how = (
        f"Split by time: the last {made['holdout_days']:g} days are the holdout, {made['label_delay_days']:g} days "
        "before it (the label delay) are left out, and so are as many before each fold's validation part. "
        f"{len(made['folds'])} folds run forward in time. Seed {made['seed']}, {made['trials']} random trials, "
        f"{made['xgboost']['rounds']} XGBoost and {made['lightgbm']['rounds']} LightGBM trees. All parameters stand in "
        "`manifest.json`."
    )
    return ["## How it was trained", "", how]


def _limits(trained: Trained, judged: Judged) -> list[str]:
    frauds = int(judged.labels.sum())
    # Of a binomial share near one half, the widest case.
    points = 100 * NORMAL_95 * 0.5 / np.sqrt(max(frauds, 1))
    known = f"Of {frauds:,} frauds, a share that is caught is known to ± {points:.0f} percentage points."
    history = (
        "A user's first payments have little history: their windows are short, and so are all windows in the first "
        "days of the history."
    )
    purpose = f"Made for deciding on payments by these {len(trained.feature_names)} features, not for judging people."
    limits = [
        known,
        "It learned from past fraud as it was labelled. Fraud that nobody reported counts as honest here.",
        "Fraud changes. The figures hold for days like those of the folds; watch drift against `histograms.json`.",
        history,
        "It knows a user's own payments alone, not those of other users at the same merchant or terminal.",
        purpose,
    ]
    return ["## Limits", "", *(f"- {limit}" for limit in limits)]


def _by(kind: str, names: npt.NDArray[np.str_], judged: Judged, threshold: float) -> Iterator[Segment]:
    distinct, counts = np.unique(names, return_counts=True)
    if distinct.tolist() in ([], [""]):
        return
    ranked = sorted(zip(counts.tolist(), distinct.tolist(), strict=True), key=lambda one: (-one[0], one[1]))
    large = [name for count, name in ranked[:MOST_SEGMENTS] if count >= MIN_SEGMENT_EVENTS]
    for name in large:
        yield _segment(kind, name or "not known", names == name, judged, threshold)
    others = ~np.isin(names, large)
    if others.any():
        yield _segment(kind, "all others", others, judged, threshold)


def _segment(kind: str, name: str, rows: npt.NDArray[np.bool_], judged: Judged, threshold: float) -> Segment:
    labels, scores = judged.labels[rows], judged.scores[rows]
    honest = labels == 0
    frauds = int(labels.sum())
    seen = scores >= np.float32(threshold)
    return Segment(
        kind=kind,
        name=name,
        events=len(labels),
        frauds=frauds,
        reviewed=float(seen.mean()),
        false_positives=float(seen[honest].mean()) if honest.any() else 0.0,
        recall=at_threshold(scores, labels, threshold)["recall"] if frauds else 0.0,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    plain = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *plain)]


def days(times_ms: npt.NDArray[np.int64], labels: npt.NDArray[np.int8]) -> list[tuple[int, int, int]]:
    """Return (start in epoch ms, events, frauds) of each UTC day with events."""
    number, place = np.unique(times_ms // DAY_MS, return_inverse=True)
    events = np.bincount(place, minlength=len(number))
    frauds = np.bincount(place, weights=labels, minlength=len(number)).astype(np.int64)
    return list(zip((number * DAY_MS).tolist(), events.tolist(), frauds.tolist(), strict=True))
