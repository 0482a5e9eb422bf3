"""The Handbook's comparison on a file: the file's features, then models trained and judged week by week."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bootstrap import group_codes
from models.evaluation_handbook import Comparison, History, compare
from stream.evaluation import Progress, described, read_file
from stream.feature_sets import chosen_feature_set
from stream.settings import Settings

__all__ = ["Compared", "compare_file"]


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison and what it is about, in the order it is to be shown."""

    comparison: Comparison
    about: dict[str, Any]


def compare_file(
    settings: Settings,
    data: Path,
    label: str,
    starts: Sequence[str],
    *,
    now_ms: int,
    rows: int | None,
    progress: Progress,
    **how: Any,
) -> Compared:
    """Compare models on a file, its features being those the settings name; how: as `compare` takes it.

    Raises UsageError, StateError or ModelError with one sentence.
    """
    feature_set = chosen_feature_set(settings)
    with progress(f"computing {len(feature_set.names)} features", rows) as tell:
        found = read_file(settings, data, label, feature_set, now_ms=now_ms, progress=tell)
    users = group_codes(found.user_ids)
    history = History(found.features, found.labels, found.times_ms, users, feature_set.names)
    with progress("training and judging", len(starts)) as tell:
        comparison = compare(history, starts, progress=tell, **how)
    features = f"{len(feature_set.names)} of {feature_set.name} ({feature_set.hash}), windows of the user"
    return Compared(comparison, {"features": features, **described(found, data, label)})
