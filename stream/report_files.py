"""Where a report goes: a page, JSON, or a folder with both."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stream.errors import UsageError

__all__ = ["ReportFiles"]

PAGE: Final = "report.html"
JSON: Final = "report.json"


class ReportFiles:
    """Checked before the work begins, so that minutes of it are not lost to a wrong path. Raises UsageError.

    output: an .html file, or a folder for page and JSON; json_file: the JSON alone; data is never overwritten.
    """

    def __init__(self, output: Path | None, json_file: Path | None, data: Path) -> None:
        self.page: Path | None = None
        self.json: list[Path] = [json_file] if json_file else []
        if output is not None and output.suffix.lower() in (".html", ".htm"):
            self.page = output
        elif output is not None:
            if output.is_file():
                raise UsageError(f"{output} is a file: give -o a folder, or a page that ends with .html.")
            self.page = output / PAGE
            self.json.append(output / JSON)
        for path in (*self.json, *([self.page] if self.page else [])):
            if path.resolve() == data.resolve():
                raise UsageError(f"{path} would be overwritten by its own report: give another path.")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(path, error) from error
            if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                raise UsageError(f"{path} cannot be written: give another path.")
        if self.page:
            from models.svg import check_matplotlib  # noqa: PLC0415 - not needed without a page

            check_matplotlib(", or leave the page out (--json alone)")

    def write(self, page: Callable[[], str], json: Callable[[], bytes], tell: Callable[[Path], object]) -> None:
        """Write what was asked for, each file whole or not at all, and tell the paths."""
        if self.page:
            _replace(self.page, page().encode())
            tell(self.page)
        for path in self.json:
            _replace(path, json())
            tell(path)


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written ({error.strerror}): give another path.")
