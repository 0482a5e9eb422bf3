"""A model named on the command line: a bundle's directory, or a version under the registry's directory."""

from pathlib import Path

from models.manifest import MANIFEST, VERSION
from stream.errors import UsageError
from stream.nearest import did_you_mean

__all__ = ["bundle_directory"]


def bundle_directory(name: str, directory: Path) -> Path:
    """Return the bundle's directory; a path that exists comes before a version. Raises UsageError."""
    given = Path(name)
    if given.is_dir():
        return given
    if VERSION.fullmatch(name) and (directory / name / MANIFEST).is_file():
        return directory / name
    known = sorted(path.parent.name for path in directory.glob(f"*/{MANIFEST}"))
    raise UsageError(
        f"There is no model {name}, neither as a directory nor as a version in {directory}{did_you_mean(name, known)}"
    )
