"""The bundle a worker runs, kept where it can begin without the registry: a registry directory of its own."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

from models.bundle import open_bundle
from models.manifest import MANIFEST, VERSION
from stream.sources import DirectorySource, Pointer, SourceError, write_pointer

__all__ = ["ModelCache"]

KEPT: Final = 3  # versions: the one that runs, the one before, and one that another worker here may be reading


class ModelCache:
    """Keeps the newest few versions in a directory, which workers of one machine may share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._source = DirectorySource(directory)

    def keep(self, pointer: Pointer, bundle: Path) -> None:
        """Copy a bundle, verify the copy, and name it as what to begin with.

        Raises OSError, SourceError or BundleError; what was named before then still is.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self._holds(pointer):
            self._copy(pointer, bundle)
        write_pointer(self._directory, pointer)
        self._prune(pointer.version)

    def _holds(self, pointer: Pointer) -> bool:
        try:
            self._source.open(pointer)
        except SourceError:
            return False
        return True

    def _copy(self, pointer: Pointer, bundle: Path) -> None:
        target = self._directory / pointer.version
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._directory) as scratch:
            fresh = Path(scratch, "new")
            shutil.copytree(bundle, fresh, symlinks=True)
            open_bundle(fresh)
            if target.exists():
                target.rename(Path(scratch, "old"))
            try:
                fresh.rename(target)
            except OSError:
                if not self._holds(pointer):  # else a worker beside this one was quicker
                    raise
        self._source.open(pointer)

    def _prune(self, named: str) -> None:
        others = [
            path
            for path in self._directory.iterdir()
            if VERSION.fullmatch(path.name) and path.name != named and (path / MANIFEST).is_file()
        ]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in others[KEPT - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
