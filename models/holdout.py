"""The holdout beside a bundle: the last days of its history, for evaluation and gates alone.

Parquet, one row a payment in order of time. Columns: transaction_id, user_id (string), event_time (timestamp[ms, UTC]),
label (int8, 1: fraud), amount_minor (int64, minor units), country, channel (string, "" where not known), features
(fixed-size list of float32). The schema's metadata holds the feature set's hash and, as JSON, the features' names.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import ModelError

SUFFIX = ".holdout.parquet"


@dataclass(frozen=True, slots=True)
class Holdout:
    """n payments in order of time; every array and list has a row for each.

    features: float32[n, k], NaN: not known; labels: int8[n]; times_ms: int64[n], epoch ms; amount_minor: int64[n].
    """

    feature_set: str
    feature_names: tuple[str, ...]
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    times_ms: npt.NDArray[np.int64]
    amount_minor: npt.NDArray[np.int64]
    transaction_ids: Sequence[str]
    user_ids: Sequence[str]
    countries: Sequence[str]
    channels: Sequence[str]


def holdout_path(bundle: Path) -> Path:
    """Return where the holdout of a bundle lies: beside it, under its name."""
    return bundle.with_name(bundle.name + SUFFIX)


def write_holdout(path: Path, holdout: Holdout) -> None:
    """Write it whole or not at all, in place of what is there; equal input gives equal bytes. Raises OSError."""
    width = len(holdout.feature_names)
    flat = pa.array(np.ascontiguousarray(holdout.features, np.float32).reshape(-1))
    columns = {
        "transaction_id": pa.array(holdout.transaction_ids, pa.string()),
        "user_id": pa.array(holdout.user_ids, pa.string()),
        "event_time": pa.array(holdout.times_ms, pa.int64()).view(pa.timestamp("ms", tz="UTC")),
        "label": pa.array(holdout.labels, pa.int8()),
        "amount_minor": pa.array(holdout.amount_minor, pa.int64()),
        "country": pa.array(holdout.countries, pa.string()),
        "channel": pa.array(holdout.channels, pa.string()),
        "features": pa.FixedSizeListArray.from_arrays(flat, width),
    }
    metadata = {"feature_set": holdout.feature_set, "features": json.dumps(list(holdout.feature_names))}
    table = pa.table(columns).replace_schema_metadata(metadata)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        pq.write_table(table, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def payments_sha256(holdout: Holdout) -> str:
    """Return the SHA-256 of which payments, when and with what label, in whatever order and with whatever features."""
    digest = hashlib.sha256()
    for row in sorted(
        zip(holdout.times_ms.tolist(), holdout.transaction_ids, holdout.labels.tolist(), strict=True),
    ):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def read_holdout(path: Path) -> Holdout:
    """Read it back. Raises ModelError where it is missing or something else."""
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        names = tuple(json.loads(metadata[b"features"]))
        features = table.column("features").combine_chunks()
        _check(table, names)
        return Holdout(
            feature_set=metadata[b"feature_set"].decode(),
            feature_names=names,
            features=features.flatten().to_numpy().reshape(-1, len(names)),
            labels=table.column("label").cast(pa.int8()).to_numpy(),
            times_ms=table.column("event_time").cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy(),
            amount_minor=table.column("amount_minor").cast(pa.int64()).to_numpy(),
            transaction_ids=table.column("transaction_id").cast(pa.string()).to_pylist(),
            user_ids=table.column("user_id").cast(pa.string()).to_pylist(),
            countries=table.column("country").cast(pa.string()).to_pylist(),
            channels=table.column("channel").cast(pa.string()).to_pylist(),
        )
    except FileNotFoundError as error:
        raise ModelError(f"There is no holdout at {path}; `fraudstream train` writes it beside the bundle.") from error
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise ModelError(f"{path} is no holdout that `fraudstream train` wrote; give that file.") from error


def _check(table: pa.Table, names: Sequence[str]) -> None:
    if table.column("features").type != pa.list_(pa.float32(), len(names)):
        raise ValueError("features")
    if any(column.null_count for column in table.columns):
        raise ValueError("nulls")
