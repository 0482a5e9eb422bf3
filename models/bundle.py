"""A bundle: one directory holding everything that one version of a model is.

    model.onnx      the whole ensemble as one graph
    xgboost.json    the base models as their libraries write them
    lightgbm.txt
    meta.json       the meta-model's three numbers, calibrated; beside them what they were before
    features.toml   the feature set, as its author wrote it
    histograms.json how features and scores were distributed, for drift (see `models.histograms`)
    card.md         the model card with its plots, card_….svg; optional
    manifest.json   names, thresholds, metrics, lineage; size and SHA-256 of every other file, and its own checksum

Checksums guard against accidents and mix-ups, not against someone who rewrites the manifest too. Nothing in a bundle is
ever executed or unpickled.
"""

import dataclasses
import math
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from models.errors import BundleError
from models.forest import parse_lightgbm, parse_xgboost
from models.histograms import Histograms, read_histograms, render_histograms
from models.manifest import (
    FEATURES,
    FILES,
    FORMAT,
    HISTOGRAMS,
    LIGHTGBM,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    META,
    ONNX,
    OPTIONAL_FILES,
    XGBOOST,
    Manifest,
    ThresholdsEntry,
    altered,
    check_manifest,
    entry,
    read_manifest,
    render,
    seal,
)
from models.meta import MetaModel
from models.onnx_graph import ensemble_graph
from models.policy import Thresholds
from models.sentences import Sentence

if TYPE_CHECKING:  # it imports both libraries and scikit-learn, which a worker never needs
    from models.train import Trained


class _MetaFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What meta.json holds: the numbers that score, and the meta-model and calibration they were folded from."""

    bias: float
    xgboost: float
    lightgbm: float
    uncalibrated: MetaModel
    slope: float
    intercept: float


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as it was verified; its files are held in memory, so they cannot change under a reader."""

    directory: Path
    version: str
    feature_names: tuple[str, ...]
    feature_set_hash: str
    sentences: dict[str, Sentence]
    thresholds: Thresholds
    meta: MetaModel
    histograms: Histograms
    metrics: dict[str, float]
    parameters: dict[str, Any]
    lineage: dict[str, Any]
    files: dict[str, bytes]

    @property
    def onnx(self) -> bytes:
        """The serialised ONNX model."""
        return self.files[ONNX]

    @property
    def xgboost(self) -> bytes:
        """The XGBoost model, JSON."""
        return self.files[XGBOOST]

    @property
    def lightgbm(self) -> str:
        """The LightGBM model, text."""
        return self.files[LIGHTGBM].decode()

    @property
    def feature_set(self) -> bytes:
        """The feature set, TOML."""
        return self.files[FEATURES]


def write_bundle(
    directory: Path,
    trained: "Trained",
    *,
    feature_set: bytes,
    feature_set_hash: str,
    sentences: Mapping[str, Sentence],
    lineage: Mapping[str, Any],
    card: Mapping[str, bytes] = MappingProxyType({}),
    version: str = "",
    replace: bool = False,
) -> Bundle:
    """Write a bundle so that the directory is there whole or not at all, and return it as read back.

    `feature_set` is kept as it is, `sentences` gives one for each feature (see `models.sentences`), `lineage` is
    anything JSON, `card` the model card and its plots by file name. Without a version the bundle is named by a short
    hash of its content, so equal input gives equal bytes. An existing directory is an error unless `replace` is given.
    Raises BundleError.
    """
    files = {**_contents(trained, feature_set), **card}
    manifest = seal(
        Manifest(
            format=FORMAT,
            version=version,
            feature_set_hash=feature_set_hash,
            features=list(trained.feature_names),
            sentences=dict(sentences),
            thresholds=ThresholdsEntry(trained.thresholds.review, trained.thresholds.decline),
            metrics=trained.metrics,
            parameters=trained.parameters,
            lineage=dict(lineage),
            files={name: entry(content) for name, content in files.items()},
            checksum="",
        ),
    )
    check_manifest(manifest, directory)
    if directory.exists() and not replace:
        raise BundleError(f"There is already something at {directory}; choose another directory or remove it first.")
    try:
        _place(directory, {**files, MANIFEST: render(manifest)})
    except OSError as error:
        raise BundleError(
            f"The bundle {directory} cannot be written ({error.strerror}); give a directory you may write to.",
        ) from error
    return open_bundle(directory)


def _contents(trained: "Trained", feature_set: bytes) -> dict[str, bytes]:
    """Return the files but the manifest, having checked that the models fit each other."""
    if not all(map(math.isfinite, (*dataclasses.astuple(trained.meta), *trained.metrics.values()))):
        raise BundleError("The meta-model or a metric is not a finite number; train the ensemble again.")
    xgboost, lightgbm = parse_xgboost(trained.xgboost), parse_lightgbm(trained.lightgbm)
    for name, forest in (("XGBoost", xgboost), ("LightGBM", lightgbm)):
        if forest.n_features != len(trained.feature_names):
            raise BundleError(
                f"The {name} model takes {forest.n_features} features, but {len(trained.feature_names)} are named; "
                "train it on the features named.",
            )
    return {
        ONNX: ensemble_graph(xgboost, lightgbm, trained.meta),
        XGBOOST: trained.xgboost,
        LIGHTGBM: trained.lightgbm.encode(),
        META: _render_meta(trained),
        FEATURES: feature_set,
        HISTOGRAMS: render_histograms(trained.histograms),
    }


def _render_meta(trained: "Trained") -> bytes:
    meta, calibration = trained.meta, trained.calibration
    content = _MetaFile(
        bias=meta.bias,
        xgboost=meta.xgboost,
        lightgbm=meta.lightgbm,
        uncalibrated=trained.uncalibrated,
        slope=calibration.slope,
        intercept=calibration.intercept,
    )
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _place(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write beside the target, then rename: a crash leaves the old bundle or none, never half of one."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        fresh, old = Path(scratch, "new"), Path(scratch, "old")
        fresh.mkdir()
        for name, content in files.items():
            with Path(fresh, name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if directory.is_dir() and not directory.is_symlink():
            directory.rename(old)
        else:
            directory.unlink(missing_ok=True)
        try:
            fresh.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise
    parent = os.open(directory.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def open_bundle(directory: Path) -> Bundle:
    """Read and verify a bundle. Raises BundleError with what is wrong and what to do."""
    if not directory.is_dir():
        raise BundleError(f"There is no bundle at {directory}; correct the path, or run `fraudstream demo` for one.")
    manifest = read_manifest(_read(directory, MANIFEST, MAX_MANIFEST_BYTES), directory)
    extra = sorted(path.name for path in directory.iterdir() if path.name not in {*manifest.files, MANIFEST})
    if extra:
        raise BundleError(f"The bundle {directory} is altered: {extra[0]!r} does not belong to it; remove that file.")
    files: dict[str, bytes] = {}
    for name in (*FILES, *(name for name in OPTIONAL_FILES if name in manifest.files)):
        files[name] = _read(directory, name, MAX_FILE_BYTES)
        if entry(files[name]) != manifest.files[name]:
            raise altered(directory, name)
    return Bundle(
        directory=directory,
        version=manifest.version,
        feature_names=tuple(manifest.features),
        feature_set_hash=manifest.feature_set_hash,
        sentences=manifest.sentences,
        thresholds=check_manifest(manifest, directory),
        meta=_read_meta(files[META], directory),
        histograms=read_histograms(files[HISTOGRAMS], manifest.features),
        metrics=manifest.metrics,
        parameters=manifest.parameters,
        lineage=manifest.lineage,
        files=files,
    )


def _read_meta(content: bytes, directory: Path) -> MetaModel:
    try:
        found = msgspec.json.decode(content, type=_MetaFile)
    except msgspec.MsgspecError as error:
        raise BundleError(
            f"The bundle {directory} is damaged: {META} is not readable ({error}); train or copy it again.",
        ) from error
    return MetaModel(found.bias, found.xgboost, found.lightgbm)


def _read(directory: Path, name: str, limit: int) -> bytes:
    """Return a file's content, if it is a plain file in the directory itself and within the limit."""
    path = directory / name
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"The bundle {directory} is altered: {name} is no plain file; train or copy it again.")
        if found.st_size > limit:
            raise BundleError(
                f"The bundle {directory} is altered: {name} has {found.st_size} bytes, more than the {limit} allowed; "
                "train or copy it again.",
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"The bundle {directory} lacks {name}; train or copy it again.") from error
    except OSError as error:
        raise BundleError(
            f"The bundle {directory} cannot be read: {name} ({error.strerror}); correct its access rights.",
        ) from error
