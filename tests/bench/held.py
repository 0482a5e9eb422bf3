"""Bundles that hold a stated share of the benchmark's payments.

A model trained on noise holds most of what it sees: a benchmark that scores with it would measure reasons.
"""

import time
from pathlib import Path

import numpy as np

from models.bundle import Bundle, open_bundle
from models.ensemble import load_engine
from models.manifest import MANIFEST
from models.policy import Thresholds
from models.threshold_change import with_thresholds
from state.features import parse_feature_set
from state.history import compute
from stream.codec import Decoder
from stream.settings import load_settings
from traffic import payments

EVENTS = 20_000
SHARE = 0.02


class _Message:
    def __init__(self, offset: int, key: bytes, value: bytes) -> None:
        self._offset, self._key, self._value = offset, key, value

    def value(self):
        return self._value

    def key(self):
        return self._key

    def offset(self):
        return self._offset

    def partition(self):
        return 0

    def timestamp(self):
        return 1, time.time_ns() // 1_000_000


def holding(bundle: Bundle, directory: Path, share: float = SHARE) -> Bundle:
    """Write the bundle again with thresholds that review this share of the benchmarks' payments and decline none."""
    settings = load_settings(None, {}, {})
    rows = [_Message(number, *row) for number, row in enumerate(payments(EVENTS))]
    found, _ = Decoder(settings.mapping(), settings.limits()).decode(0, rows)
    features, _ = compute(settings.state_spec(), parse_feature_set(bundle.feature_set), found.users, found.events)
    scores = load_engine(bundle, "forest").score(features)
    return changed(bundle, directory, float(np.quantile(scores, 1 - share)))


def changed(bundle: Bundle, directory: Path, review: float) -> Bundle:
    """Write the bundle with another threshold for review, and none declined that is not certain."""
    _, files = with_thresholds(bundle, (bundle.directory / MANIFEST).read_bytes(), Thresholds(review, 1.0))
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return open_bundle(directory)
