"""Which directory holds a model: the one somebody names, the one that decided, the one that workers take now.

A version's bundle lies under the version's name in the registry's directory, or in the copy of it that workers follow.
Which version has a number, the registry knows.
"""

from pathlib import Path

from models.manifest import MANIFEST, VERSION
from stream.errors import FraudstreamError, UsageError
from stream.nearest import did_you_mean
from stream.settings import Settings
from stream.sources import DirectorySource, Pointer, PointerError, Source

__all__ = ["current_bundle", "current_pointer", "named_bundle", "version_places"]


def named_bundle(name: str, settings: Settings) -> Path:
    """Return the directory of a model named on the command line: a bundle's own, or that of a version.

    A path that exists comes before a version's name, and a name before a version's number, which alone asks the
    registry. Raises UsageError or RegistryError.
    """
    given = Path(name)
    if given.is_dir():
        return given
    homes = _homes(settings)
    found = _kept(name, homes)
    if found is None and name.isdecimal():
        version = _numbered(name, settings)
        found = _kept(version, homes)
        if found is None:
            raise UsageError(
                f"The bundle of version {version}, number {name} of {settings.registry.name}, is not in "
                f"{' or '.join(map(str, homes))}: set registry.directory to where it was registered."
            )
    if found is not None:
        return found
    known = sorted({path.parent.name for home in homes for path in home.glob(f"*/{MANIFEST}")})
    raise UsageError(
        f"There is no model {name}, neither as a directory nor as a version in {' or '.join(map(str, homes))}"
        f"{did_you_mean(name, known)}"
    )


def version_places(version: str, settings: Settings) -> list[Path]:
    """Return where the bundle of a version that decided may lie; the last is what workers load without a registry.

    Raises FraudstreamError for what cannot be a version: it comes from a topic, and is not to name any other directory.
    """
    if not VERSION.fullmatch(version):
        raise FraudstreamError(
            f"The decision names the model {version!r}, which is no version: a worker did not write it."
        )
    return [*(home / version for home in _homes(settings)), Path(settings.model.bundle)]


def current_bundle(settings: Settings) -> Path:
    """Return the directory that a worker would load now. Raises SourceError where none is named."""
    if not settings.model.follow:
        return Path(settings.model.bundle)
    source = DirectorySource(Path(settings.model.follow))
    return source.open(current_pointer(source, settings.model.follow))


def current_pointer(source: Source, directory: str) -> Pointer:
    """Return what a source names; directory is its name in the error. Raises SourceError, also where it names none."""
    pointer = source.current()
    if pointer is None:
        raise PointerError(
            f"No version was promoted in {directory} yet: promote one with `fraudstream models promote`."
        )
    return pointer


def _numbered(number: str, settings: Settings) -> str:
    """Return the name of the version that has this number in the registry."""
    from stream.progress import waiting  # noqa: PLC0415 (a worker shows no status line)
    from stream.registry import Registry  # noqa: PLC0415 (a worker needs none)

    with waiting("opening the registry"):
        return Registry(settings.registry).find(number).name


def _kept(version: str, homes: list[Path]) -> Path | None:
    """Return where a version's bundle lies, None where it does not."""
    if not VERSION.fullmatch(version):
        return None
    return next((home / version for home in homes if (home / version / MANIFEST).is_file()), None)


def _homes(settings: Settings) -> list[Path]:
    """Return the directories that hold versions."""
    named = [settings.registry.directory, settings.model.follow]
    return list(dict.fromkeys(Path(directory) for directory in named if directory))
