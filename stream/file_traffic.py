"""A file's transactions as rows to be published."""

from collections.abc import Iterator
from pathlib import Path

from stream.codec import Decoder
from stream.files import read_records, read_rows
from stream.mapping import Limits, Mapping
from stream.publish import Row

__all__ = ["dated_rows", "undated_rows"]


def undated_rows(path: Path, mapping: Mapping) -> Iterator[Row]:
    """Yield the file's rows without reading their event times. Raises UsageError."""
    for rows in read_rows(path, mapping):
        for key, value in rows:
            yield Row(key, value)


def dated_rows(path: Path, mapping: Mapping, limits: Limits, now_ms: int) -> Iterator[Row]:
    """Yield the file's rows with their event times, in epoch ms; a row that is no transaction has the one before it.

    now_ms: what the records will be stamped with, more or less. Raises UsageError.
    """
    decoder, before_ms = Decoder(mapping, limits), 0
    waiting: list[Row] = []
    for records in read_records(path, mapping, now_ms):
        decoded, _ = decoder.decode(0, records)
        times = dict(zip(decoded.events.offset.tolist(), decoded.time_ms.tolist(), strict=True))
        for record in records:
            time_ms = times.get(record.offset(), before_ms)
            row = Row(record.key(), record.value() or b"", time_ms)
            if not time_ms:
                waiting.append(row)  # nothing before it is dated: it goes out with the first row that is
                continue
            before_ms = time_ms
            yield from (early._replace(event_time_ms=time_ms) for early in waiting)
            waiting.clear()
            yield row
    yield from waiting
