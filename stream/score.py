"""Offline scoring: file → decoder → windows → engine → thresholds, without Kafka, by the very code of the stream.

The file's rows are taken in the file's order, as one partition. An engine gives a row the same score in any batch, so a
score here equals the stream's bit for bit under the same engine, whatever batches the worker happened to form.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.ensemble import Engine
from models.policy import OUTCOMES, Thresholds
from state.features import FeatureSet, StateSpec
from stream.backfill import Backfill, write_rows
from stream.codec import Decoded
from stream.decision import FLAG_NAMES
from stream.mapping import Limits, Mapping

__all__ = ["FLAG_LISTS", "score_file"]

#: The names of the flags that each value of a flags byte stands for, as decisions list them.
FLAG_LISTS: Final = [[name for bit, name in enumerate(FLAG_NAMES) if flags >> bit & 1] for flags in range(256)]


def score_file(
    path: Path,
    target: Path,
    mapping: Mapping,
    limits: Limits,
    spec: StateSpec,
    feature_set: FeatureSet,
    engine: Engine,
    thresholds: Thresholds,
    model: str,
    *,
    now_ms: int,
    progress: Callable[[int], object] = lambda _: None,
) -> Backfill:
    """Write one row for each transaction of a file: ids, event time, score (float32), decision, model, engine, flags.

    model: the version that stands in every row. Refused rows, progress and errors as in `stream.backfill.backfill`.
    """

    def table(decoded: Decoded, features: npt.NDArray[np.float32], flags: npt.NDArray[np.uint8]) -> pa.Table:
        scores = engine.score(features)
        outcomes = thresholds.decide(scores)
        return _table(decoded, scores, outcomes, flags, model, engine.name)

    return write_rows(path, target, mapping, limits, spec, feature_set, table, now_ms=now_ms, progress=progress)


def _table(
    decoded: Decoded,
    scores: npt.NDArray[np.float32],
    outcomes: npt.NDArray[np.uint8],
    flags: npt.NDArray[np.uint8],
    model: str,
    engine: str,
) -> pa.Table:
    n = len(scores)
    columns: dict[str, Any] = {
        "transaction_id": pa.array(decoded.transaction_ids, pa.string()),
        "user_id": pa.array(decoded.user_ids, pa.string()),
        "event_time": pa.array(decoded.events.time_ms).view(pa.timestamp("ms", tz="UTC")),
        "score": pa.array(scores, pa.float32()),
        "decision": pa.array([OUTCOMES[outcome] for outcome in outcomes.tolist()], pa.string()),
        "model": pa.array([model] * n, pa.string()),
        "engine": pa.array([engine] * n, pa.string()),
        "flags": pa.array([FLAG_LISTS[bits] for bits in flags.tolist()], pa.list_(pa.string())),
    }
    return pa.table(columns)
