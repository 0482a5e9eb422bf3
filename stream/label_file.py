"""Labels out of files and arguments, as records of the `labels` topic."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stream.errors import UsageError
from stream.file_rows import BadLineError, csv_rows, csv_table, json_rows, parquet_rows
from stream.mapping import Mapping as TransactionMapping
from stream.nearest import nearest
from stream.publish import Row
from stream.times import BAD_TIME, TimeReader

__all__ = ["LabelColumns", "as_row", "read_labels"]

_BATCH: Final = 8_192
#: Epoch milliseconds in 1973; as seconds it is the year 5138. A label of such a time would expire, and nobody be told.
SECONDS_BELOW: Final = 100_000_000_000
_PARQUET: Final = (".parquet", ".pq")
_DELIMITED: Final = (".csv", ".tsv")
_LINES: Final = (".jsonl", ".ndjson")

_YES: Final = frozenset({"1", "1.0", "true", "t", "yes", "y", "fraud"})
_NO: Final = frozenset({"0", "0.0", "false", "f", "no", "n", "honest"})


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """The file's own names of a label's fields; without a column `label_time` every row gets the same time."""

    transaction_id: str = "transaction_id"
    user_id: str = "user_id"
    is_fraud: str = "is_fraud"
    label_time: str = "label_time"

    def mapping(self) -> TransactionMapping:
        """Return the same for the readers of files, which read transactions else: ids whole, a time as a number."""
        names = {"transaction_id": self.transaction_id, "user_id": self.user_id, "event_time": self.label_time}
        return TransactionMapping(fields={ours: (theirs,) for ours, theirs in names.items()})


def as_row(transaction_id: str, user_id: str, is_fraud: bool, label_time_ms: int) -> Row:
    """Return the record of one label."""
    value = {"transaction_id": transaction_id, "user_id": user_id, "is_fraud": is_fraud, "label_time": label_time_ms}
    return Row(user_id.encode(), orjson.dumps(value))


def read_labels(
    path: Path, columns: LabelColumns, now_ms: int, refuse: Callable[[int, str, Mapping[str, Any]], object]
) -> Iterator[Row]:
    """Yield a record for each row that is a label.

    refuse(row number from 1, why, the row): told of each that is not. now_ms: the label_time of rows that have none.
    Raises UsageError with one sentence for a file that cannot be read or lacks a column.
    """
    times = TimeReader()
    for number, row in enumerate(_rows(path, columns), 1):
        transaction_id, user_id = row.get(columns.transaction_id), row.get(columns.user_id)
        verdict = str(row.get(columns.is_fraud, "")).strip().lower()
        time = row.get(columns.label_time)
        given = time not in (None, "")
        time_ms = _time_ms(times, time) if given else now_ms
        if not _is_id(transaction_id):
            refuse(number, f"{columns.transaction_id} must be a text or a whole number", row)
        elif not _is_id(user_id):
            refuse(number, f"{columns.user_id} must be a text or a whole number", row)
        elif verdict not in _YES | _NO:
            refuse(number, f"{columns.is_fraud} must be 1 or 0, true or false, fraud or honest", row)
        elif time_ms < 0:
            refuse(number, f"{columns.label_time} must be epoch milliseconds or such as 2026-01-05T10:00:00Z", row)
        elif given and time_ms < SECONDS_BELOW:
            refuse(number, f"{columns.label_time} {time} would be before 1974: give milliseconds, not seconds", row)
        else:
            yield as_row(str(transaction_id), str(user_id), verdict in _YES, time_ms)


def _is_id(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def _time_ms(times: TimeReader, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return BAD_TIME
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    return times.one(value)


def _rows(path: Path, columns: LabelColumns) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    try:
        if suffix in _PARQUET:
            yield from _parquet(path, columns)
        elif suffix in _DELIMITED:
            with path.open(encoding="utf-8-sig", newline="") as text:
                names, reader = csv_table(text)
                _check(path, names, columns)
                yield from (orjson.loads(value) for _, value in csv_rows(names, reader, columns.mapping()))
        elif suffix in _LINES:
            with path.open("rb") as lines:
                yield from (orjson.loads(value) for _, value in json_rows(lines, columns.mapping()))
        else:
            raise UsageError(f"{path} has none of the extensions {', '.join((*_DELIMITED, *_PARQUET, *_LINES))}")
    except BadLineError as error:
        raise UsageError(f"{path} line {error.line} {error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} must be UTF-8 text: convert it, for example with iconv") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise UsageError(f"{path} cannot be read as Parquet: {str(error).partition(chr(10))[0]}") from None


def _parquet(path: Path, columns: LabelColumns) -> Iterator[dict[str, Any]]:
    file = pq.ParquetFile(path)
    _check(path, file.schema_arrow.names, columns)
    for table in file.iter_batches(_BATCH):
        yield from (orjson.loads(value) for _, value in parquet_rows(table, columns.mapping()))


def _check(path: Path, names: list[str], columns: LabelColumns) -> None:
    if not names:
        raise UsageError(f"{path} is empty: its first line must name the columns")
    needed = {"transaction-id": columns.transaction_id, "user-id": columns.user_id, "is-fraud": columns.is_fraud}
    if columns.label_time != LabelColumns().label_time:
        needed["label-time"] = columns.label_time
    for option, name in needed.items():
        if name not in names:
            found = nearest(name, names)
            instead = f"the nearest is {found}" if found else f"it has {', '.join(names)}"
            raise UsageError(f"{path} has no column {name} ({instead}): name the right one with --{option}-column")
