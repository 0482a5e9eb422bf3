"""A model on a file of labelled transactions: the file's features, the model's scores, the figures, the report.

Step 1  open the bundle and check that the state's settings allow its features
Step 2  read the file, features by the stream's own code
Step 3  score with the engine a worker would use
Step 4  figures and their intervals
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from models.bootstrap import group_codes
from models.bundle import Bundle
from models.ensemble import load_engine
from models.evaluation import Evaluation, Plan, Sample, evaluate
from models.evaluation_segments import amount_bands
from models.folds import DAY_MS
from state.features import FeatureSet
from stream.errors import UsageError
from stream.holdout_proof import learned_until_ms
from stream.labelled import ALWAYS, Labelled, Period, read_labelled
from stream.money import major_units
from stream.scoring import open_model
from stream.settings import Settings

__all__ = ["Evaluated", "Progress", "described", "evaluate_file", "read_file"]

#: In the order of an engine's margins.
BASE_MODELS: Final = ("xgboost", "lightgbm")
AMOUNT_BANDS: Final = (10.0, 50.0, 100.0, 500.0)
_BATCH: Final = 1 << 15

#: progress(what is being done, of how many) returns what to tell how many are done.
Progress = Callable[[str, int | None], Any]


@runtime_checkable
class _Margins(Protocol):
    """An engine that also says what each base model thinks."""

    name: str

    def score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]: ...


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation and what it is about, in the order it is to be shown."""

    evaluation: Evaluation
    about: dict[str, Any]


def read_file(
    settings: Settings,
    data: Path,
    label: str,
    feature_set: FeatureSet,
    *,
    now_ms: int,
    progress: Callable[[int], object],
    period: Period = ALWAYS,
) -> Labelled:
    """Read labelled transactions by the settings' mapping. Raises UsageError, FeatureSetError."""
    spec = settings.state_spec()
    spec.check(feature_set)
    mapping, limits = settings.mapping(), settings.limits()
    return read_labelled(
        data,
        label,
        mapping,
        limits,
        spec,
        feature_set,
        now_ms=now_ms,
        period=period,
        allow_repeats=True,
        progress=progress,
    )


def evaluate_file(
    settings: Settings,
    directory: Path,
    data: Path,
    label: str,
    plan: Callable[[Bundle], Plan],
    *,
    now_ms: int,
    rows: int | None,
    progress: Progress,
    engine: str = "auto",
    period: Period = ALWAYS,
    bands: Sequence[float] = AMOUNT_BANDS,
) -> Evaluated:
    """Evaluate the bundle in a directory on a file; plan is asked once the bundle's thresholds are known.

    Raises UsageError, StateError or ModelError with one sentence.
    """
    # Step 1
    bundle, feature_set = open_model(directory)
    chosen = plan(bundle)
    # Step 2
    with progress(f"computing {len(feature_set.names)} features", rows) as tell:
        found = read_file(settings, data, label, feature_set, now_ms=now_ms, progress=tell, period=period)
    # Step 3
    scorer = load_engine(bundle, engine)
    if not isinstance(scorer, _Margins):
        raise UsageError(
            f"The engine {scorer.name} does not say what each base model thinks: choose forest, onnx or gpu."
        )
    with progress("scoring", len(found.labels)) as tell:
        scores, margins = _score(scorer, found.features, tell)
    # Step 4
    sample = _sample(found, scores, margins, bundle, bands)
    with progress("drawing users again", chosen.resamples) as tell:
        figures = evaluate(sample, _with_bands(chosen, bands), progress=tell)
    model = {"model": bundle.version, "bundle": str(directory), "engine": scorer.name, "feature set": feature_set.hash}
    return Evaluated(figures, {**model, **described(found, data, label), **_learned_from(bundle, found)})


def described(found: Labelled, data: Path, label: str) -> dict[str, Any]:
    """Return what a report says of the data."""
    currencies = major_units(found.amount_minor, found.currency)[1]
    about: dict[str, Any] = {"data": str(data), "label": label, "currency": ", ".join(currencies)}
    if len(currencies) > 1:
        about["note"] = "amounts of several currencies are added as they stand; set codec.base_currency to convert them"
    if found.outside:
        about["rows that only fill windows"] = found.outside
    about["repeated rows left out"] = found.repeated
    about["rows refused"] = found.refused.total()
    for reason, number in found.refused.most_common():
        about[f"refused: {reason}"] = f"{number:,}, the first in row {found.first_refused[reason]}, counted from 0"
    return about


def _learned_from(bundle: Bundle, found: Labelled) -> dict[str, str]:
    """Return what to say where rows are judged that are no younger than those the model learned from."""
    until_ms = learned_until_ms(bundle)
    if until_ms is None:
        return {}
    flattering = int(np.count_nonzero(found.times_ms < until_ms))
    if not flattering:
        return {}
    first_day = datetime.fromtimestamp(-(-until_ms // DAY_MS) * DAY_MS / 1000, UTC)
    return {"rows the model may know": f"{flattering:,}, which flatter it: judge from {first_day:%Y-%m-%d} on (--from)"}


def _score(
    engine: _Margins, features: npt.NDArray[np.float32], tell: Callable[[int], object]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return the scores float32[n] and the base models' log-odds float64[n, 2]."""
    scores = np.empty(len(features), np.float32)
    margins = np.empty((len(features), len(BASE_MODELS)), np.float64)
    for start in range(0, len(features), _BATCH):
        batch = np.ascontiguousarray(features[start : start + _BATCH])
        scores[start : start + _BATCH] = engine.score(batch)
        margins[start : start + _BATCH] = engine.margins(batch)
        tell(min(start + _BATCH, len(features)))
    return scores, margins


def _sample(
    found: Labelled,
    scores: npt.NDArray[np.float32],
    margins: npt.NDArray[np.float64],
    bundle: Bundle,
    bands: Sequence[float],
) -> Sample:
    amounts, _ = major_units(found.amount_minor, found.currency)
    dimensions: dict[str, Sequence[str]] = {
        "country": found.countries,
        "channel": found.channels,
        "amount": amount_bands(amounts, bands),
    }
    return Sample(
        scores=scores,
        log_odds=bundle.meta.log_odds(margins),
        labels=found.labels,
        times_ms=found.times_ms,
        users=group_codes(found.user_ids),
        amounts=amounts,
        dimensions=dimensions,
        base={name: margins[:, column] for column, name in enumerate(BASE_MODELS)},
    )


def _with_bands(plan: Plan, bands: Sequence[float]) -> Plan:
    """Show bands from the lowest amounts on, not by how many payments they hold."""
    order: Mapping[str, Sequence[str]] = {"amount": amount_bands(np.array([bands[0] - 1.0, *bands]), bands)}
    return replace(plan, segment_order={**plan.segment_order, **order})
