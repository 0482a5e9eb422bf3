"""The manifest of a bundle: what it says, how it is written, and when it is not to be believed."""

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec

from models.errors import BundleError, ModelError
from models.policy import Thresholds
from models.sentences import Sentence, check_sentence

FORMAT = 2
MANIFEST = "manifest.json"
ONNX = "model.onnx"
XGBOOST = "xgboost.json"
LIGHTGBM = "lightgbm.txt"
META = "meta.json"
FEATURES = "features.toml"
HISTOGRAMS = "histograms.json"
FILES = (ONNX, XGBOOST, LIGHTGBM, META, FEATURES, HISTOGRAMS)
# The model card and its plots: there where the manifest names them. Nothing that scores reads them.
CARD = "card.md"
PLOTS = ("card_quality.svg", "card_calibration.svg", "card_segments.svg", "card_data.svg")
OPTIONAL_FILES = (CARD, *PLOTS)

# What begins so among the metrics was found on the training's own folds, out of which nothing was learned that it is
# about; the others are of the holdout. Only those of the folds are shown to whoever chooses a model: the holdout is for
# the gates, and for the watch to compare the days to come with.
OUT_OF_FOLD = "out_of_fold_"

# A search of 1,000 trials on 50 folds takes about 2 MiB.
MAX_MANIFEST_BYTES = 8 << 20
# About a hundred times what 600 trees need. A limit, so that a wrong path cannot fill the memory.
MAX_FILE_BYTES = 256 << 20

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION_DIGITS = 12


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and SHA-256 in hex of one file."""

    size: int
    sha256: str


class ThresholdsEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The policy's thresholds."""

    review: float
    decline: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What manifest.json holds. The checksum is the SHA-256 of the manifest with an empty one."""

    format: int
    version: str
    feature_set_hash: str
    features: list[str]
    sentences: dict[str, Sentence]
    thresholds: ThresholdsEntry
    metrics: dict[str, float]
    parameters: dict[str, Any]
    lineage: dict[str, Any]
    files: dict[str, FileEntry]
    checksum: str


def entry(content: bytes) -> FileEntry:
    """Return the entry of a file with this content."""
    return FileEntry(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def seal(manifest: Manifest) -> Manifest:
    """Return the manifest with its version, where it has none, and its checksum filled in."""
    unnamed = msgspec.structs.replace(manifest, checksum="")
    version = manifest.version or _digest(unnamed)[:VERSION_DIGITS]
    named = msgspec.structs.replace(unnamed, version=version)
    return msgspec.structs.replace(named, checksum=_digest(named))


def render(manifest: Manifest) -> bytes:
    """Return the one way a manifest is written: indented JSON, maps sorted by key."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(render(manifest)).hexdigest()


def read_manifest(raw: bytes, directory: Path) -> Manifest:
    """Return the manifest these bytes hold. Raises BundleError unless it is whole, unaltered and consistent."""
    try:
        found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(found.get("format", b"null"), type=int)
        if version != FORMAT:
            raise BundleError(
                f"The bundle {directory} has format {version}, but this fraudstream reads format {FORMAT}; "
                "train it with this version.",
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            f"The bundle {directory} is damaged: {MANIFEST} is not readable ({error}); train or copy it again.",
        ) from error
    # Any byte altered either changes a value, and so the checksum, or is a spelling that we never write.
    if raw != render(seal(manifest)):
        raise altered(directory, MANIFEST)
    check_manifest(manifest, directory)
    return manifest


def check_manifest(manifest: Manifest, directory: Path) -> Thresholds:
    """Return the thresholds. Raises BundleError unless the manifest's parts fit each other."""
    if not VERSION.fullmatch(manifest.version):
        raise BundleError(
            f"The model version {manifest.version!r} must be 1 to 64 letters, digits, dots, dashes or underscores.",
        )
    strange = sorted(set(manifest.files) - {*FILES, *OPTIONAL_FILES})
    if strange:
        raise BundleError(f"The bundle {directory} names a file that no bundle has, {strange[0]!r}; train it again.")
    lacking = [name for name in FILES if name not in manifest.files]
    if lacking:
        raise BundleError(f"The bundle {directory} does not name its {lacking[0]}; train it again.")
    if not manifest.features or len(set(manifest.features)) != len(manifest.features):
        raise BundleError(f"The bundle {directory} must name each feature once; train it again.")
    if set(manifest.sentences) != set(manifest.features):
        raise BundleError(f"The bundle {directory} must hold one sentence for each feature; train it again.")
    for feature, sentence in manifest.sentences.items():
        check_sentence(feature, sentence)
    try:
        return Thresholds(manifest.thresholds.review, manifest.thresholds.decline)
    except ModelError as error:
        raise BundleError(f"The bundle {directory} cannot be used: {error}") from error


def altered(directory: Path, name: str) -> BundleError:
    """Return the error for a file whose content is not what was written."""
    return BundleError(
        f"The bundle {directory} is altered: {name} does not match its checksum; train or copy it again.",
    )
