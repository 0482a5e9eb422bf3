"""Small bundles trained in a moment, and their promotion: what a worker that follows a registry is tested with."""

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np

from models.bundle import Bundle, write_bundle
from models.train import train
from state.features import FeatureSet, default_feature_set, parse_feature_set
from stream.sources import Pointer, write_pointer
from stream.training import sentences_of

ROWS = 2_000
ROUNDS = 8

#: Other features over the same kept fields, with windows that the default set has and others that it has not.
OTHER_FEATURES = b"""
name = "other"

[[feature]]
name = "amount"
aggregate = "value"
text = "this payment is {value:,.0f}"

[[feature]]
name = "count_2h"
aggregate = "count"
window = "2h"
text = "{value:.0f} payments in 2 hours"

[[feature]]
name = "std_7d"
aggregate = "std"
window = "7d"
text = "amounts spread by {value:,.0f}"

[[feature]]
name = "max_24h"
aggregate = "max"
window = "24h"
text = "up to {value:,.0f} in 24 hours"

[[feature]]
name = "merchants_3d"
aggregate = "distinct"
field = "merchant_id"
window = "3d"
text = "{value:.0f} merchants in 3 days"

[[feature]]
name = "new_device_30d"
aggregate = "first_seen"
field = "device_id"
window = "30d"
text = "a device not seen in 30 days"
"""

#: The same, and one that needs a field which the state does not keep.
FOREIGN_FEATURES = (
    OTHER_FEATURES
    + b"""
[[feature]]
name = "terminals_1d"
aggregate = "distinct"
field = "terminal_id"
window = "1d"
text = "{value:.0f} terminals in a day"
"""
)


def other_features() -> FeatureSet:
    return parse_feature_set(OTHER_FEATURES)


def small_model(
    directory: Path, seed: int, features: FeatureSet | None = None, rounds: int = ROUNDS, rows: int = ROWS
) -> Bundle:
    """Train on noise that depends on the amount, so that another seed is another model of the same features."""
    features = features or default_feature_set()
    rng = np.random.default_rng(seed)
    x = rng.lognormal(3, 1.5, (rows, len(features.names))).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    risk = np.log(np.nan_to_num(x[:, 0]) + 1) + 0.3 * np.log(np.nan_to_num(x[:, -1]) + 1) + rng.normal(size=rows)
    labels = (risk > np.quantile(risk, 0.9)).astype(np.int8)
    # One thread: on a busy machine two wait for each other far longer than one takes for all of it.
    times_ms = np.arange(rows, dtype=np.int64)
    trained = train(x, labels, times_ms, feature_names=features.names, seed=seed, rounds=rounds, threads=1)
    return write_bundle(
        directory,
        trained,
        feature_set=features.source,
        feature_set_hash=features.hash,
        sentences=sentences_of(features),
        lineage={"seed": seed},
    )


def promote(registry: Path, bundle: Bundle, approved_by: str = "ada") -> Pointer:
    """Do what a promotion leaves behind: the bundle in its place, then the pointer."""
    registry.mkdir(parents=True, exist_ok=True)
    target = registry / bundle.version
    if not target.exists():
        shutil.copytree(bundle.directory, target)
    sha256 = hashlib.sha256((target / "manifest.json").read_bytes()).hexdigest()
    pointer = Pointer(bundle.version, sha256, approved_by, time.time_ns() // 1_000_000)
    write_pointer(registry, pointer)
    return pointer
