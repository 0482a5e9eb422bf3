"""Rows of CSV, Parquet and JSON lines as (key, JSON bytes); what each kind of file can say is turned into JSON here."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final, TextIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stream.mapping import REQUIRED, Mapping

__all__ = ["BadLineError", "Row", "csv_rows", "csv_table", "json_rows", "parquet_rows"]

#: The record key (the user id as UTF-8, None where the row has none) and the record value.
Row = tuple[bytes | None, bytes]

_NUMBER: Final = re.compile(r"-?\d{1,18}(\.\d{1,9})?", re.ASCII)
_DELIMITERS: Final = ",;\t|"


class BadLineError(ValueError):
    """A line that cannot be read; ``line`` counts from 1 and the message completes "line N ..."."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def csv_table(file: TextIO) -> tuple[list[str], Any]:
    """Return the header's names and the reader behind it. The delimiter is the one the header has most of."""
    header = file.readline()
    delimiter = max(_DELIMITERS, key=header.count)
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    return next(reader, []), reader


def csv_rows(names: Sequence[str], reader: Any, mapping: Mapping) -> Iterator[Row]:
    """Yield the rows behind a header; raises BadLineError. Values stay texts, epoch times become numbers."""
    users = [names.index(theirs) for theirs in mapping.names("user_id") if theirs in names]
    times = [names.index(theirs) for theirs in mapping.names("event_time") if theirs in names]
    width = len(names)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadLineError(reader.line_num, f"is no CSV: {error}") from None
        if not row:
            continue
        if len(row) != width:
            raise BadLineError(reader.line_num, f"has {len(row)} columns where the header has {width}")
        values = {name: text for name, text in zip(names, row, strict=True) if text}
        for at in times:
            if _NUMBER.fullmatch(row[at]):
                values[names[at]] = float(row[at]) if "." in row[at] else int(row[at])
        yield _key(row[at] for at in users), orjson.dumps(values)


def json_rows(file: BinaryIO, mapping: Mapping) -> Iterator[Row]:
    """Yield each line that is not blank as it stands; raises BadLineError."""
    users = mapping.names("user_id")
    for line, text in enumerate(file, 1):
        value = text.strip()
        if not value:
            continue
        try:
            row = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise BadLineError(line, f"is no JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise BadLineError(line, "is no JSON object")
        yield _key(row.get(theirs) for theirs in users), value


def parquet_rows(table: pa.RecordBatch, mapping: Mapping) -> list[Row]:
    """Return the rows of one batch."""
    names = table.schema.names
    ids = {theirs for ours in mapping.read if ours not in REQUIRED[2:] for theirs in mapping.names(ours)}
    columns = [_values(table.column(at), whole=name in ids) for at, name in enumerate(names)]
    users = [columns[names.index(theirs)] for theirs in mapping.names("user_id") if theirs in names]
    keys = map(_key, zip(*users, strict=True))
    rows: Iterable[dict[str, Any]] = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    if any(None in column for column in columns):
        rows = ({name: value for name, value in row.items() if value is not None} for row in rows)
    # float32 values are handed over as such, so that 57.16 is not written as 57.15999984741211.
    return [(key, orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for key, row in zip(keys, rows, strict=True)]


def _key(candidates: Iterable[Any]) -> bytes | None:
    for candidate in candidates:
        if candidate is not None and candidate != "":
            return str(candidate).encode()
    return None


def _values(column: Any, *, whole: bool) -> list[Any]:
    """Return a column's values as JSON can hold them, None where there is none.

    ``whole``: an id; a table of numbers with gaps keeps integer ids as doubles, which are written as integers again.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode(), whole=whole)
    if pa.types.is_timestamp(kind):
        return _times(column)
    if pa.types.is_floating(kind):
        return _floats(column, whole=whole)
    if pa.types.is_decimal(kind) or pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind):
        return _values(column.cast(pa.string()), whole=whole)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if value is None else value.decode(errors="replace") for value in column.to_pylist()]
    if pa.types.is_nested(kind) or (column.null_count and not pa.types.is_string(kind)):
        return list(column.to_pylist())
    return list(column.to_numpy(zero_copy_only=False).tolist())  # several times faster than to_pylist


def _times(column: Any) -> list[Any]:
    """Write RFC 3339: in UTC where the file knows the zone, without an offset where it does not."""
    unit, zone = column.type.unit, column.type.tz
    utc = column.cast(pa.timestamp(unit, "UTC")) if zone else column
    return _values(pc.replace_substring(utc.cast(pa.string()), " ", "T"), whole=False)


def _floats(column: Any, *, whole: bool) -> list[Any]:
    finite = pc.fill_null(pc.is_finite(column), fill_value=False)
    numbers = column.fill_null(0).to_numpy(zero_copy_only=False)
    good = finite.to_numpy(zero_copy_only=False)
    safe = np.where(good, numbers, 0).astype(numbers.dtype)
    if whole and (safe == np.floor(safe)).all() and (np.abs(safe) < 2**53).all():
        values: list[Any] = safe.astype(np.int64).tolist()
    else:
        values = safe.tolist() if safe.dtype == np.float64 else list(safe)
    return values if good.all() else [value if ok else None for value, ok in zip(values, good.tolist(), strict=True)]
