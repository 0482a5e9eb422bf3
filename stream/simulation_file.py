"""A simulated history as a file, labels included, or its labels alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stream.errors import UsageError
from stream.file_rows import parquet_rows
from stream.mapping import Mapping

__all__ = ["write_simulation"]

ROWS: Final = 20_000
EXTENSIONS: Final = (".jsonl", ".csv", ".parquet")


def write_simulation(table: Any, path: Path, progress: Callable[[int], object] = lambda _: None) -> None:
    """Write payments or labels as the extension says: .jsonl, .csv or .parquet. Raises UsageError.

    progress: called with the rows written so far.
    """
    writers = {".jsonl": _write_json, ".csv": _write_csv, ".parquet": _write_parquet}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path} has none of the extensions {', '.join(EXTENSIONS)}")
    try:
        write(table, path, progress)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): give another path.") from error


def _write_json(table: Any, path: Path, progress: Callable[[int], object]) -> None:
    written = 0
    with path.open("wb") as file:
        for batch in table.to_batches(ROWS):
            file.writelines(value + b"\n" for _, value in parquet_rows(batch, Mapping()))
            written += batch.num_rows
            progress(written)


def _write_csv(table: Any, path: Path, progress: Callable[[int], object]) -> None:
    if "event_time" in table.column_names:
        # RFC 3339, as a transaction has it; a CSV writer's own form of a time has a space in it.
        times = pc.strftime(table.column("event_time"), format="%Y-%m-%dT%H:%M:%SZ")
        table = table.set_column(table.column_names.index("event_time"), "event_time", times)
    written = 0
    with path.open("wb") as file, pa.csv.CSVWriter(file, table.schema) as writer:
        for batch in table.to_batches(ROWS):
            writer.write_batch(batch)
            written += batch.num_rows
            progress(written)


def _write_parquet(table: Any, path: Path, progress: Callable[[int], object]) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file)
    progress(table.num_rows)
