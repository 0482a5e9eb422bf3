"""Where workers hear which model to score with: a directory that holds versions and names one of them.

    champion.json   {"version": "7", "manifest_sha256": "…", "approved_by": "…", "at": epoch ms}
    7/              the bundle of version 7, never changed once it is there
    6/

Whoever promotes puts the bundle in place first and then replaces champion.json by a rename, so a reader sees the
former pointer or the new one. The directory may be a volume shared by many machines, or a copy kept by a side process.
"""

import hashlib
import os
import re
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from models.manifest import MANIFEST, MAX_MANIFEST_BYTES
from models.manifest import VERSION as VERSION_PATTERN
from stream.errors import FraudstreamError

__all__ = ["CHAMPION", "DirectorySource", "Pointer", "PointerError", "Source", "SourceError", "write_pointer"]

CHAMPION: Final = "champion.json"
MAX_POINTER_BYTES: Final = 1 << 16
SHA256: Final = re.compile(r"[0-9a-f]{64}")

#: A file changed within this long before it was looked at may change once more without its times telling: file
#: systems stamp in steps, of up to two seconds.
SETTLED_SECS: Final = 3.0


class SourceError(FraudstreamError):
    """The directory cannot be read now; what it will say is unknown."""


class PointerError(SourceError):
    """The directory can be read, but names no model that can be used."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The version to score with, the SHA-256 of its manifest in hex, who approved it, and when (epoch ms)."""

    version: str
    manifest_sha256: str
    approved_by: str
    at_ms: int


class Source(Protocol):
    """Where a pointer comes from."""

    def current(self) -> Pointer | None:
        """Return the version to score with, None where none was named yet. Raises SourceError."""

    def open(self, pointer: Pointer) -> Path:
        """Return the directory of its bundle. Raises SourceError."""


class DirectorySource:
    """Reads a registry directory; see the module's drawing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: tuple[int, ...] | None = None
        self._last: Pointer | PointerError | None = None

    def current(self) -> Pointer | None:
        """Return the version to score with, None where none was named yet.

        Costs one look at the file's times while it does not change. Raises SourceError where the directory cannot be
        read, PointerError where champion.json is no pointer.
        """
        path = self._directory / CHAMPION
        try:
            if self._seen is None or _stamp(path.stat()) != self._seen:
                self._read(path)
        except FileNotFoundError:
            self._seen = self._last = None
            if not self._directory.is_dir():
                raise SourceError(f"There is no registry directory {self._directory}: correct model.follow.") from None
        except OSError as error:
            self._seen = None
            raise SourceError(f"{path} cannot be read ({error.strerror}): correct its access rights.") from error
        if isinstance(self._last, PointerError):
            raise self._last
        return self._last

    def open(self, pointer: Pointer) -> Path:
        """Return the directory of its bundle, the manifest's checksum compared. Raises PointerError."""
        if not VERSION_PATTERN.fullmatch(pointer.version):
            raise PointerError(f"{self._directory / CHAMPION} names {pointer.version!r}, which is no version's name.")
        bundle = self._directory / pointer.version
        manifest = bundle / MANIFEST
        try:
            # A link could lead anywhere; nothing that promotes writes one.
            if not stat.S_ISDIR(bundle.lstat().st_mode):
                raise PointerError(f"{bundle} is no directory: promote version {pointer.version} again.")
            found = manifest.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_MANIFEST_BYTES:
                raise PointerError(f"{manifest} is no bundle's manifest: promote version {pointer.version} again.")
            sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
        except FileNotFoundError as error:
            raise PointerError(
                f"{self._directory / CHAMPION} names version {pointer.version}, but {error.filename} is missing: "
                f"promote it again, or wait until it is copied."
            ) from error
        except OSError as error:
            raise PointerError(f"{bundle} cannot be read ({error.strerror}): correct its access rights.") from error
        if sha256 != pointer.manifest_sha256:
            raise PointerError(
                f"{manifest} is not the one that was promoted (its SHA-256 is {sha256[:12]}…, not "
                f"{pointer.manifest_sha256[:12]}…): promote version {pointer.version} again."
            )
        return bundle

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            before = _stamp(os.fstat(file.fileno()))
            raw = file.read(MAX_POINTER_BYTES + 1)
        try:
            self._last = _parse(raw, path)
        except PointerError as error:
            self._last = error
        # A file written in place may have been half there: what changed meanwhile, or only just, is read again.
        settled = time.time_ns() - before[0] > SETTLED_SECS * 1e9 and _stamp(path.stat()) == before
        self._seen = before if settled else None


class _File(msgspec.Struct):
    """The pointer as it is written; keys it does not know are left alone."""

    version: str
    manifest_sha256: str
    approved_by: str
    at: int


def write_pointer(directory: Path, pointer: Pointer) -> None:
    """Name the version to score with, in one step: a reader sees the former pointer or this one."""
    content = _File(pointer.version, pointer.manifest_sha256, pointer.approved_by, pointer.at_ms)
    handle, scratch = tempfile.mkstemp(prefix=f".{CHAMPION}.", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # workers may run as other users
            os.fsync(file.fileno())
        Path(scratch).replace(directory / CHAMPION)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _parse(raw: bytes, path: Path) -> Pointer:
    if len(raw) > MAX_POINTER_BYTES:
        raise PointerError(f"{path} is larger than a pointer can be: promote a version again.")
    try:
        found = msgspec.json.decode(raw, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PointerError(f"{path} is no pointer to a version ({error}): promote one again.") from error
    if not VERSION_PATTERN.fullmatch(found.version):
        raise PointerError(f"{path} names {found.version!r}, which is no version's name: promote one again.")
    if not SHA256.fullmatch(found.manifest_sha256):
        raise PointerError(f"{path} holds no SHA-256 of a manifest: promote version {found.version} again.")
    return Pointer(found.version, found.manifest_sha256, found.approved_by, found.at)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_ino, found.st_size, found.st_dev
