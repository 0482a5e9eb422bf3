"""Where a model comes from: the code, the libraries, the data. Nothing here knows the time of day."""

import hashlib
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import stream

__all__ = ["code_version", "file_hash", "library_versions"]

LIBRARIES: Final = ("lightgbm", "numba", "numpy", "onnx", "pyarrow", "xxhash")
GIT_SECS: Final = 10.0


def code_version() -> dict[str, Any]:
    """Return the installed version and, for a source tree under git, its commit ("-dirty" where it was changed)."""
    found = {"version": version("fraudstream")}
    root = Path(stream.__file__).resolve().parents[1]
    git = shutil.which("git")
    # Only our own tree: an environment inside another project's repository would tell that one's commit.
    if git and (root / ".git").exists():
        asked = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=GIT_SECS, check=False)  # noqa: S603 (no shell)
        except (OSError, subprocess.TimeoutExpired):
            return found
        if done.returncode == 0:
            found["commit"] = done.stdout.strip()
    return found


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a model's bytes depend on, besides the base models' own."""
    return {name: version(name) for name in LIBRARIES}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
