"""Columns of a user's own file that are copied beside the features: a label, say."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from stream.codec import MessageLike
from stream.errors import UsageError
from stream.files import read_rows
from stream.mapping import Mapping as Names
from stream.nearest import did_you_mean

__all__ = ["KeptColumns"]

# A text with a leading zero is an id, not a number.
_WHOLE: Final = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_FRACTION: Final = re.compile(r"-?((0|[1-9]\d*)(\.\d+)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class KeptColumns:
    """Reads the file once to learn each column's type, so that a column has one type from first row to last.

    Texts that are all numbers become numbers, since CSV knows nothing else; lists and objects become JSON texts.
    Raises UsageError where no row has the column, or the output has one of that name already.
    """

    def __init__(self, path: Path, names: Names, keep: Sequence[str], taken: Iterable[str]) -> None:
        self._types: dict[str, Any] = {}
        if not keep:
            return
        for name in keep:
            if name in taken:
                raise UsageError(f"The output has a column {name} already: rename that column of {path} to keep it.")
        kinds: dict[str, set[str]] = {name: set() for name in keep}
        seen: set[str] = set()
        for rows in read_rows(path, names):
            for _, value in rows:
                row = orjson.loads(value)
                seen.update(row)
                for name, found in kinds.items():
                    if name in row:
                        found.add(_kind(row[name]))
        for name, found in kinds.items():
            if name not in seen:
                raise UsageError(f"{path} has no column {name} to keep{did_you_mean(name, seen)}")
            self._types[name] = _type(found)

    def arrays(self, messages: Sequence[MessageLike]) -> Mapping[str, Any]:
        """Return the columns of these rows by name."""
        if not self._types:
            return {}
        rows = [orjson.loads(message.value() or b"{}") for message in messages]
        return {
            name: pa.array([_read(row.get(name), kind) for row in rows], kind) for name, kind in self._types.items()
        }


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "whole text" if _WHOLE.fullmatch(value) else "number text" if _FRACTION.fullmatch(value) else "text"
    if value is None:
        return "none"
    return {bool: "truth", int: "whole", float: "number"}.get(type(value), "text")


def _type(kinds: set[str]) -> Any:
    """Return the narrowest type that holds all of the kinds met."""
    met = kinds - {"none"}
    if met == {"truth"}:
        return pa.bool_()
    if met and met <= {"whole", "whole text"}:
        return pa.int64()
    if met and met <= {"whole", "number", "whole text", "number text"}:
        return pa.float64()
    return pa.string()


def _read(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if kind == pa.int64():
        return int(value)
    if kind == pa.float64():
        return float(value)
    if kind == pa.string() and not isinstance(value, str):
        return orjson.dumps(value).decode()
    return value
