"""Files of transactions as Kafka records: each row becomes the JSON a user would publish, under the user's own names.

CSV values stay the texts they are (an id of 007 stays 007), except that an epoch number is written as a number. Parquet
timestamps become RFC 3339 text and decimals become text, so that neither loses a digit. Empty values and NaN are left
out. JSON lines are passed on byte for byte.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from stream.errors import UsageError
from stream.file_rows import BadLineError, Row, csv_rows, csv_table, json_rows, parquet_rows
from stream.mapping import REQUIRED, Mapping
from stream.nearest import nearest

__all__ = ["FileRecord", "Row", "count_rows", "read_records", "read_rows"]

_BATCH: Final = 8_192
_PARQUET: Final = (".parquet", ".pq")
_DELIMITED: Final = (".csv", ".tsv")
_LINES: Final = (".jsonl", ".ndjson")


@dataclass(slots=True)
class FileRecord:
    """A row of a file with the methods of a Kafka message, for the decoder; its offset is the row's number from 0."""

    _key: bytes | None
    _value: bytes | None
    _offset: int
    _timestamp_ms: int
    _topic: str = ""
    _partition: int = 0

    def topic(self) -> str:
        """Return the topic's name."""
        return self._topic

    def partition(self) -> int:
        """Return the partition's number."""
        return self._partition

    def offset(self) -> int:
        """Return the row's number, from 0."""
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of timestamp (1: set by the producer) and epoch milliseconds."""
        return 1, self._timestamp_ms

    def key(self) -> bytes | None:
        """Return the user id's bytes; None where the row has none."""
        return self._key

    def value(self) -> bytes | None:
        """Return the JSON transaction."""
        return self._value


def count_rows(path: Path) -> int | None:
    """Return how many rows the file has where that is known without reading it (Parquet), else None."""
    _reader(path)
    return int(_parquet(path).metadata.num_rows) if path.suffix.lower() in _PARQUET else None


def read_rows(path: Path, mapping: Mapping, batch: int = _BATCH) -> Iterator[list[Row]]:
    """Yield rows as (key, JSON bytes), up to ``batch`` at a time; the key is the user id as UTF-8, None without one.

    Raises UsageError with one sentence: unknown extension, unreadable file or line, a mapped column that is missing.
    """
    return _reader(path)(path, mapping, batch)


def read_records(path: Path, mapping: Mapping, timestamp_ms: int, batch: int = _BATCH) -> Iterator[list[FileRecord]]:
    """Yield the same rows as records of one partition, all stamped ``timestamp_ms``, as publishing would stamp them."""
    offset = 0
    for rows in read_rows(path, mapping, batch):
        yield [FileRecord(key, value, offset + at, timestamp_ms) for at, (key, value) in enumerate(rows)]
        offset += len(rows)


def _reader(path: Path) -> Callable[[Path, Mapping, int], Iterator[list[Row]]]:
    suffix = path.suffix.lower()
    if suffix in _PARQUET:
        return _read_parquet
    if suffix in _DELIMITED:
        return _read_csv
    if suffix in _LINES:
        return _read_json
    raise UsageError(f"{path} has none of the extensions {', '.join((*_DELIMITED, *_PARQUET, *_LINES))}")


def _read_parquet(path: Path, mapping: Mapping, batch: int) -> Iterator[list[Row]]:
    file = _parquet(path)
    _check_columns(path, file.schema_arrow.names, mapping)
    try:
        for table in file.iter_batches(batch):
            yield parquet_rows(table, mapping)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} is damaged: {_first_line(error)}") from None


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {_first_line(error)}") from None


def _read_csv(path: Path, mapping: Mapping, batch: int) -> Iterator[list[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names, reader = csv_table(file)
            _check_header(path, names)
            _check_columns(path, names, mapping)
            yield from _batches(path, csv_rows(names, reader, mapping), batch)
    except UnicodeDecodeError:
        raise UsageError(f"{path} must be UTF-8 text: convert it, for example with iconv") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _read_json(path: Path, mapping: Mapping, batch: int) -> Iterator[list[Row]]:
    try:
        with path.open("rb") as file:
            yield from _batches(path, json_rows(file, mapping), batch)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _batches(path: Path, rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rows = iter(rows)
    try:
        while batch := list(islice(rows, size)):
            yield batch
    except BadLineError as error:
        raise UsageError(f"{path} line {error.line} {error}") from None


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Refuse a file without a header, or with one that does not say which of two columns is meant."""
    if not names:
        raise UsageError(f"{path} is empty: its first line must name the columns")
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise UsageError(f"{path} has the column {twice[0]} twice: rename one of them, or leave it out")


def _check_columns(path: Path, names: Sequence[str], mapping: Mapping) -> None:
    """Refuse a file without a column that transactions need, or that the settings name."""
    for ours in mapping.read:
        theirs = mapping.names(ours)
        needed = (ours in REQUIRED and ours not in mapping.defaults) or ours in mapping.fields
        if needed and not any(name in names for name in theirs):
            found = nearest(theirs[0], names)
            instead = f" (the nearest is {found})" if found else f" (it has {', '.join(names)})"
            raise UsageError(
                f"{path} has no column {' or '.join(theirs)}{instead}: "
                f"name the one that is our {ours} under codec.fields in the settings"
            )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
