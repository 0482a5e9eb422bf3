"""Which versions there are: MLflow's model registry, in a SQLite file or on a server.

MLflow holds names, lineage and aliases; the bundles lie in a directory of ours (see `stream.registry_directory`),
because a server takes no local path for a model's source, and a worker must start without MLflow. Aliases:

    champion      scores
    previous      the champion before, which `rollback` puts back
    challenger    passed the gates and waits

Everything of MLflow is imported and called here alone, and late: it takes seconds, and only offline verbs need it.
"""

# MLflow is imported when it is first needed.
# ruff: noqa: PLC0415

import hashlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from models.bundle import Bundle, open_bundle
from models.holdout import holdout_path, payments_sha256, read_holdout
from models.manifest import MANIFEST, OUT_OF_FOLD
from stream.errors import RegistryError, UsageError
from stream.holdout_proof import check_not_learned
from stream.nearest import did_you_mean
from stream.registry_directory import Entry, Versions
from stream.sections import RegistrySettings

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "HOLDOUT_FILE",
    "HOLDOUT_PAYMENTS",
    "PREVIOUS",
    "Registry",
    "Version",
    "register",
    "register_files",
]

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
PREVIOUS: Final = "previous"

VERSION_TAG: Final = "bundle_version"
#: The holdout's file, which must not change.
HOLDOUT_FILE: Final = "holdout_sha256"
#: Which payments the gates judge a version on, however their file is written; see `models.holdout.payments_sha256`.
HOLDOUT_PAYMENTS: Final = "holdout_payments"
#: Longer ones, such as a search of 1,000 trials, stand in the manifest; not every database of MLflow's takes them.
LONGEST_TAG: Final = 4_000
SQLITE: Final = "sqlite:///"

#: MLflow's own are 7 tries and 120 s each: a server that is down would be waited for for minutes.
PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
#: A registry of fraud models tells nobody outside that it is used.
QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@dataclass(frozen=True)
class Version:
    """A registered version: MLflow's own number, the bundle's version, which names it, and what stands beside it."""

    number: int
    name: str
    created_ms: int
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()


class Registry:
    """The versions of one registered model. Every method raises RegistryError where MLflow cannot do it."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._connected: Any = None

    def versions(self) -> list[Version]:
        """Return all versions, newest first."""
        with self._asked() as client:
            model = self._model(client)
            if model is None:
                return []
            found = client.search_model_versions(f"name='{self._settings.name}'")
            aliases: dict[str, list[str]] = {str(number): [] for number in model.aliases.values()}
            for alias, number in model.aliases.items():
                aliases[str(number)].append(alias)
            versions = [_version(one, aliases.get(str(one.version), [])) for one in found]
        return sorted((one for one in versions if one.name), key=lambda one: -one.number)

    def find(self, name: str) -> Version:
        """Return the version of this name, or of this number in MLflow. Raises UsageError."""
        versions = self.versions()
        for one in versions:
            if one.name == name:
                return one
        for one in versions:
            if str(one.number) == name:
                return one
        if not versions:
            raise UsageError(f"There is no version {name}: none is registered yet; see fraudstream models register")
        raise UsageError(f"there is no version {name}{did_you_mean(name, [one.name for one in versions])}")

    def alias(self, alias: str) -> Version | None:
        """Return the version with this alias, if there is one."""
        return next((one for one in self.versions() if alias in one.aliases), None)

    def add(self, name: str, tags: Mapping[str, str]) -> Version:
        """Register a version under its bundle's version and return it."""
        with self._asked() as client:
            if self._model(client) is None:
                client.create_registered_model(self._settings.name)
            client.create_model_version(
                self._settings.name,
                f"fraudstream:/{name}",
                tags={**tags, VERSION_TAG: name},
                await_creation_for=0,
            )
        return self.find(name)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with self._asked() as client:
            for key, value in tags.items():
                client.set_model_version_tag(self._settings.name, str(version.number), key, value)

    def point(self, alias: str, version: Version | None) -> None:
        """Give a version the alias, which another may have had; None: nobody has it any more."""
        with self._asked() as client:
            if version is None:
                client.delete_registered_model_alias(self._settings.name, alias)
            else:
                client.set_registered_model_alias(self._settings.name, alias, str(version.number))

    def _model(self, client: Any) -> Any:
        """Return the registered model, None where there is none yet."""
        from mlflow.exceptions import MlflowException

        try:
            return client.get_registered_model(self._settings.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """Yield MLflow's client; what it raises becomes one sentence."""
        try:
            with warnings.catch_warnings():
                # MLflow meets deprecations of SQLAlchemy's; nothing for whoever uses either.
                warnings.simplefilter("ignore", DeprecationWarning)
                yield self._client()
        except (RegistryError, UsageError):
            raise
        except Exception as error:
            if not _is_theirs(error):
                raise
            raise RegistryError(
                f"The model registry at {self._settings.uri} cannot be used ({self._reason(error)}): correct "
                f"registry.uri, or start the server."
            ) from error

    def _reason(self, error: Exception) -> str:
        """Return what it says in a line, without the password that MLflow repeats with the address."""
        line = (str(error).splitlines() or [type(error).__name__])[0]
        return line.replace(self._settings.uri.reveal().rstrip("/"), str(self._settings.uri).rstrip("/"))

    def _client(self) -> Any:
        if self._connected is None:
            uri = self._settings.uri.reveal()
            client = _mlflow_client()
            if uri.startswith(SQLITE):
                _make_folder(Path(uri.removeprefix(SQLITE)))
            self._connected = client(tracking_uri=uri, registry_uri=uri)
        return self._connected


def _mlflow_client() -> Any:
    """Import MLflow without its log, its questions home and its patience with a server that is down."""
    for name, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise RegistryError(
            f"The model registry needs MLflow ({error}): install it with pip install fraudstream[train]."
        ) from error
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient


def _make_folder(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryError(
            f"The folder {file.parent} cannot be made ({error.strerror}): correct registry.uri."
        ) from error


def _is_theirs(error: Exception) -> bool:
    """Tell what MLflow and SQLAlchemy raise, without importing what was not needed."""
    kinds = [("mlflow.exceptions", "MlflowException"), ("sqlalchemy.exc", "SQLAlchemyError")]
    kinds.append(("requests.exceptions", "RequestException"))
    return any(isinstance(error, getattr(sys.modules[m], name)) for m, name in kinds if m in sys.modules)


def _version(found: Any, aliases: list[str]) -> Version:
    tags = dict(found.tags)
    name = tags.get(VERSION_TAG, "")
    return Version(int(found.version), name, int(found.creation_timestamp), tags, tuple(sorted(aliases)))


def register(bundle_dir: Path, holdout: Path | None, settings: RegistrySettings) -> str:
    """Keep a copy of a bundle and of its holdout, make it a version, and return the version's name.

    holdout None: the one beside the bundle, where there is one. The same bundle may be registered again. Raises
    UsageError, BundleError or RegistryError.
    """
    bundle = open_bundle(bundle_dir)
    files = {**bundle.files, MANIFEST: (bundle_dir / MANIFEST).read_bytes()}
    beside = holdout_path(bundle_dir)
    given = holdout or (beside if beside.exists() else None)
    registry, versions = Registry(settings), Versions(Path(settings.directory))
    with versions.locked():
        return register_files(registry, versions, bundle, files, given).name


def register_files(
    registry: Registry,
    versions: Versions,
    bundle: Bundle,
    files: Mapping[str, bytes],
    holdout: Path | None,
    *,
    by: str = "",
    parent: str = "",
) -> Version:
    """Make a version of a bundle's files, under the directory's lock, and return it; see `register`."""
    held = _checked(holdout, bundle) if holdout else {}
    known = next((one for one in registry.versions() if one.name == bundle.version), None)
    before = {tag: known.tags[tag] for tag in (HOLDOUT_FILE, HOLDOUT_PAYMENTS) if tag in known.tags} if known else {}
    # Versions from before the payments were noted are known by the file alone.
    if held and any(held[tag] != before[tag] for tag in list(before)[-1:]):
        raise UsageError(
            f"Version {bundle.version} was registered with another holdout than {holdout}: its gates are judged on "
            f"that one; train again for another."
        )
    versions.add(bundle.version, files)
    # The same payments in another file leave the first, whose checksum is on record, as it is.
    if holdout is not None and held[HOLDOUT_FILE] == before.get(HOLDOUT_FILE, held[HOLDOUT_FILE]):
        versions.add_holdout(bundle.version, holdout)
    tags = _lineage(bundle, files[MANIFEST], held, parent)
    if known is None:
        known = registry.add(bundle.version, tags)
        action = "thresholds" if parent else "registered"
        at = time.time_ns() // 1_000_000
        sha256 = held.get(HOLDOUT_FILE, "")
        versions.record(
            Entry(at=at, action=action, version=bundle.version, by=by, parent=parent, holdout_sha256=sha256)
        )
    elif held and not before:
        registry.tag(known, held)
    return registry.find(bundle.version)


def _checked(path: Path, bundle: Bundle) -> dict[str, str]:
    """Return the SHA-256 of a holdout's file and of its payments, by tag.

    Raises UsageError where it proves nothing of this bundle.
    """
    if not path.is_file():
        raise UsageError(f"there is no holdout {path}: give the file that was written beside the bundle")
    found = read_holdout(path)
    if found.feature_set != bundle.feature_set_hash or tuple(found.feature_names) != bundle.feature_names:
        raise UsageError(
            f"The holdout {path} holds feature set {found.feature_set}, but version {bundle.version} was trained on "
            f"{bundle.feature_set_hash}: give the file that was written beside the bundle."
        )
    check_not_learned(path, found, bundle)
    with path.open("rb") as file:
        return {
            HOLDOUT_FILE: hashlib.file_digest(file, "sha256").hexdigest(),
            HOLDOUT_PAYMENTS: payments_sha256(found),
        }


def _lineage(bundle: Bundle, manifest: bytes, held: Mapping[str, str], parent: str) -> dict[str, str]:
    """Return where a version comes from, as tags."""
    parameters = msgspec.json.encode(bundle.parameters, order="deterministic")
    tags = {
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "feature_set": bundle.feature_set_hash,
        "parameters_sha256": hashlib.sha256(parameters).hexdigest(),
        "thresholds": f"{bundle.thresholds.review:.9g} {bundle.thresholds.decline:.9g}",
        **held,
        "parent": parent,
        **{f"lineage.{key}": _text(value) for key, value in bundle.lineage.items()},
        **{f"metric.{key}": repr(value) for key, value in bundle.metrics.items() if key.startswith(OUT_OF_FOLD)},
    }
    return {key: value for key, value in tags.items() if value}


def _text(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()
    if len(text) <= LONGEST_TAG:
        return text
    entries = f"{len(value):,} entries" if isinstance(value, Sized) else f"{len(text):,} characters"
    return f"{entries} in {MANIFEST}, SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"
