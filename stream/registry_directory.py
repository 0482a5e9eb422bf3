"""The registry's directory: every version's bundle, never changed once it is there, and what workers follow.

    champion.json               the pointer that workers poll; replaced in one step
    audit.jsonl                 who did what when, one JSON line each; only ever appended to
    holdouts/VERSION.parquet    the last days that the version's gates are judged on; readable by its owner alone
    VERSION/                    the bundle

Several machines may share it as a volume. Changes are made under a lock, one at a time.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from models.bundle import Bundle, open_bundle
from models.gate import Gate
from models.manifest import MANIFEST
from stream.errors import RegistryError
from stream.sources import CHAMPION, DirectorySource, Pointer, SourceError, write_pointer

__all__ = ["Entry", "Versions", "manifest_sha256"]

AUDIT: Final = "audit.jsonl"
HOLDOUTS: Final = "holdouts"
LOCK: Final = ".lock"
RESERVED: Final = frozenset({CHAMPION, AUDIT, HOLDOUTS})

READ_ONLY: Final = 0o444
OWNER_ONLY: Final = 0o600


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the audit file; `replaced` was in office before; `unjudged_accepted`: somebody answers for gates."""

    at: int
    action: str
    version: str
    by: str = ""
    replaced: str = ""
    parent: str = ""
    holdout_sha256: str = ""
    unjudged_accepted: bool = False
    gates: list[Gate] = msgspec.field(default_factory=list)


class Versions:
    """The directory; it is made when something is first written to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, version: str) -> Path:
        """Return where the bundle of a version lies."""
        return self.directory / version

    def holdout_path(self, version: str) -> Path:
        """Return where the holdout of a version lies, if it has one."""
        return self.directory / HOLDOUTS / f"{version}.parquet"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else change the directory meanwhile; waits for whoever does. Raises RegistryError."""
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def add(self, version: str, files: Mapping[str, bytes]) -> None:
        """Put a bundle in place, whole or not at all; one that is there must be the same. Raises RegistryError."""
        if version in RESERVED:
            raise RegistryError(f"No version can be named {version}, as a file of the registry is: train it again.")
        target = self.path(version)
        if target.exists():
            if manifest_sha256(target) != _sha256(files[MANIFEST]):
                raise RegistryError(f"{target} holds another bundle of this name: train under another version's name.")
            return
        with (
            self._writing(),
            tempfile.TemporaryDirectory(prefix=f".{version}.", dir=self.directory) as scratch,
        ):
            fresh = Path(scratch, "new")
            fresh.mkdir()
            for name, content in files.items():
                _write(fresh / name, content, READ_ONLY)
            fresh.rename(target)
            _sync(self.directory)

    def add_holdout(self, version: str, source: Path) -> None:
        """Keep a copy of a version's holdout. Raises RegistryError."""
        target = self.holdout_path(version)
        with self._writing():
            target.parent.mkdir(exist_ok=True)
            handle, scratch = tempfile.mkstemp(prefix=f".{version}.", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as file, source.open("rb") as given:
                    shutil.copyfileobj(given, file)
                    file.flush()
                    os.fchmod(file.fileno(), OWNER_ONLY)
                    os.fsync(file.fileno())
                Path(scratch).replace(target)
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise

    def open(self, version: str, sha256: str) -> Bundle:
        """Open a version's bundle and compare it with what was registered. Raises BundleError or RegistryError."""
        bundle = open_bundle(self.path(version))
        if manifest_sha256(bundle.directory) != sha256:
            raise RegistryError(
                f"{bundle.directory} is not the bundle that was registered as {version}: put the registered one back."
            )
        return bundle

    def pointer(self) -> Pointer | None:
        """Return what workers follow now, None where nothing was promoted. Raises RegistryError."""
        if not self.directory.is_dir():
            return None
        try:
            return DirectorySource(self.directory).current()
        except SourceError as error:
            raise RegistryError(str(error)) from error

    def write_pointer(self, pointer: Pointer) -> None:
        """Name the version to score with: a reader sees the former pointer or this one. Raises RegistryError."""
        with self._writing():
            write_pointer(self.directory, pointer)
            _sync(self.directory)

    def record(self, entry: Entry) -> None:
        """Append a line to the audit file, on disk when this returns. Raises RegistryError."""
        with self._writing(), (self.directory / AUDIT).open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RegistryError(
                f"The registry directory {self.directory} cannot be written ({error.strerror}): correct "
                f"registry.directory or its access rights."
            ) from error


def manifest_sha256(bundle: Path) -> str:
    """Return the SHA-256 in hex of a bundle's manifest, by which the pointer names it. Raises RegistryError."""
    try:
        return _sha256((bundle / MANIFEST).read_bytes())
    except OSError as error:
        raise RegistryError(f"{bundle} is no bundle ({error.strerror}): put the registered one back.") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes, mode: int) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
