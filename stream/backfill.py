"""History through the very code of the stream: file → decoder → windows → feature vectors, without Kafka.

The file's rows are taken in the file's order, as one partition. A user's windows depend on that user's events alone, so
they equal the stream's bit for bit, however many partitions it has, as long as each user's rows are in the same order.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from state.features import FeatureSet, StateSpec
from state.history import observe
from state.windows import Flag, Windows
from stream.codec import DeadLetter, Decoded, Decoder
from stream.errors import FraudstreamError, UsageError
from stream.files import FileRecord, read_records
from stream.kept_columns import KeptColumns
from stream.mapping import Limits, Mapping

__all__ = ["Backfill", "backfill", "feature_rows", "none_is_a_transaction", "refuse", "write_rows"]

FLAGS: Final = (Flag.LATE, Flag.DUPLICATE, Flag.CONFLICT, Flag.TRUNCATED)
PARQUET: Final = (".parquet", ".pq")
OWN_COLUMNS: Final = ("transaction_id", "user_id", "event_time", "flags")

Rows = tuple[Decoded, npt.NDArray[np.float32], npt.NDArray[np.uint8], list[DeadLetter]]


@dataclass
class Backfill:
    """What became of a file: rows written, refused rows by error class and where they are, flags by name."""

    refused_path: Path
    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)


def feature_rows(
    chunks: Iterator[list[FileRecord]], mapping: Mapping, limits: Limits, spec: StateSpec, feature_set: FeatureSet
) -> Iterator[Rows]:
    """Yield (transactions, features float32[n, k], flags uint8[n], refused records) chunk by chunk."""
    decoder, windows = Decoder(mapping, limits), Windows(spec, feature_set)
    for records in chunks:
        decoded, refused = decoder.decode(0, records)
        features, flags = observe(windows, decoded.users, decoded.events)
        yield decoded, features, flags, refused


def backfill(
    path: Path,
    target: Path,
    mapping: Mapping,
    limits: Limits,
    spec: StateSpec,
    feature_set: FeatureSet,
    *,
    now_ms: int,
    keep: Sequence[str] = (),
    progress: Callable[[int], object] = lambda _: None,
) -> Backfill:
    """Write one row for each transaction: ids, event time, flags, the features by name, and the columns to keep.

    Refused rows go, with their reason, to a JSON-lines file beside the target; nothing vanishes. now_ms stands for the
    record timestamp, as `publish` would set it. progress: called with the rows read so far. The target is there whole
    or not at all. Raises UsageError, and FraudstreamError where no row is a transaction.
    """
    kept = KeptColumns(path, mapping, keep, (*OWN_COLUMNS, *feature_set.names))

    def table(decoded: Decoded, features: npt.NDArray[np.float32], flags: npt.NDArray[np.uint8]) -> pa.Table:
        return _table(decoded, features, flags, feature_set, kept)

    return write_rows(path, target, mapping, limits, spec, feature_set, table, now_ms=now_ms, progress=progress)


def write_rows(
    path: Path,
    target: Path,
    mapping: Mapping,
    limits: Limits,
    spec: StateSpec,
    feature_set: FeatureSet,
    table_of: Callable[[Decoded, npt.NDArray[np.float32], npt.NDArray[np.uint8]], pa.Table],
    *,
    now_ms: int,
    progress: Callable[[int], object] = lambda _: None,
) -> Backfill:
    """Write what `table_of` makes of each chunk's transactions, features and flags; all else as in `backfill`."""
    done = Backfill(target.with_suffix(".refused.jsonl"))
    _prepare(path, target, done.refused_path)
    unfinished = target.with_name(f".{target.name}.unfinished")
    writer: pq.ParquetWriter | None = None
    try:
        chunks = read_records(path, mapping, now_ms)
        for decoded, features, flags, refused in feature_rows(chunks, mapping, limits, spec, feature_set):
            table = table_of(decoded, features, flags)
            if writer is None:
                writer = pq.ParquetWriter(unfinished, table.schema)
            writer.write_table(table)
            refuse(done.refused_path, refused)
            _count(done, flags, refused)
            progress(done.rows + done.refused.total())
        if writer is None:
            raise UsageError(f"{path} holds no rows: give a file with transactions.")
        writer.close()
        if not done.rows:
            raise FraudstreamError(none_is_a_transaction(path, done.refused, done.refused_path))
        unfinished.replace(target)
    finally:
        if writer is not None:
            writer.close()
        unfinished.unlink(missing_ok=True)
    return done


def none_is_a_transaction(path: Path, refused: Counter[str], refused_path: Path | None) -> str:
    """Return the sentence for a file of which every row was refused; refused_path: where they are written down."""
    why = ", ".join(f"{number:,} {reason}" for reason, number in refused.most_common())
    written = "`fraudstream backfill` writes down what is wrong with each row"
    if refused_path:
        written = f"what is wrong with each row stands in {refused_path}"
    return f"No row of {path} is a transaction ({why}): name your columns under codec.fields; {written}."


def _prepare(path: Path, target: Path, refused_path: Path) -> None:
    if target.suffix.lower() not in PARQUET:
        raise UsageError(
            f"{target} would be Parquet under another name: give a path that ends with {PARQUET[0]} to -o."
        )
    if path.resolve() in (target.resolve(), refused_path.resolve()):
        raise UsageError(f"{path} would be overwritten by what is made of it: give another path after -o.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        refused_path.unlink(missing_ok=True)
        target.touch()
    except OSError as error:
        raise UsageError(f"{target} cannot be written ({error.strerror}): give another path.") from error
    if not target.stat().st_size:
        target.unlink()


def _table(
    decoded: Decoded,
    features: npt.NDArray[np.float32],
    flags: npt.NDArray[np.uint8],
    feature_set: FeatureSet,
    kept: KeptColumns,
) -> pa.Table:
    columns: dict[str, Any] = {
        "transaction_id": pa.array(decoded.transaction_ids, pa.string()),
        "user_id": pa.array(decoded.user_ids, pa.string()),
        "event_time": pa.array(decoded.events.time_ms).view(pa.timestamp("ms", tz="UTC")),
        "flags": pa.array(flags),
    }
    for column, name in enumerate(feature_set.names):
        columns[name] = pa.array(np.ascontiguousarray(features[:, column]))
    table = pa.table({**columns, **kept.arrays(decoded.messages)})
    return table.replace_schema_metadata({"feature_set": feature_set.hash})


def refuse(path: Path, refused: Sequence[DeadLetter]) -> None:
    """Append refused rows, with their reasons, to a JSON-lines file."""
    if not refused:
        return
    with path.open("ab") as file:
        for letter in refused:
            headers = {name: value.decode() for name, value in letter.headers()}
            value = (letter.message.value() or b"").decode(errors="backslashreplace")
            file.write(orjson.dumps({**headers, "row": letter.message.offset(), "value": value}) + b"\n")


def _count(done: Backfill, flags: npt.NDArray[np.uint8], refused: list[DeadLetter]) -> None:
    done.rows += len(flags)
    done.refused.update(letter.error for letter in refused)
    for flag in FLAGS:
        done.flags[str(flag.name).lower()] += int(np.count_nonzero(flags & flag))
