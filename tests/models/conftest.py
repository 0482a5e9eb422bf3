"""One small history, the ensemble trained on it, and its bundle, shared by the tests of models/."""

from dataclasses import dataclass

import numpy as np
import pytest

from models.bundle import write_bundle
from models.sentences import Sentence
from models.train import train

FEATURES = ("amount", "count_1h", "count_24h", "distance", "seconds_since_last", "ratio")


@dataclass(frozen=True)
class Sample:
    features: np.ndarray
    labels: np.ndarray
    times_ms: np.ndarray


def sample(n, seed):
    """Payments whose fraud depends on three features; one feature is missing now and then."""
    rng = np.random.default_rng(seed)
    x = np.column_stack(
        [rng.lognormal(3, 1, n), rng.poisson(3, n), rng.poisson(10, n), rng.normal(size=(n, 3))],
    ).astype(np.float32)
    risk = np.log(x[:, 0]) - 3 + x[:, 3] * x[:, 4] + 0.3 * x[:, 1] + rng.normal(size=n)
    x[rng.random(n) < 0.1, 4] = np.nan
    return Sample(x, (risk > 3.2).astype(np.int8), np.arange(n, dtype=np.int64) * 1000)


@pytest.fixture(scope="session")
def history():
    return sample(8_000, seed=1)


@pytest.fixture(scope="session")
def feature_names():
    return FEATURES


@pytest.fixture(scope="session")
def trained(history):
    return train(history.features, history.labels, history.times_ms, feature_names=FEATURES, seed=7, rounds=100)


@pytest.fixture(scope="session")
def parts():
    """What write_bundle takes beside the trained ensemble."""
    return {
        "feature_set": b'name = "test"\n',
        "feature_set_hash": "0123abcd",
        "sentences": {name: Sentence(f"{name.replace('_', ' ')} is {{value:,.1f}}") for name in FEATURES},
        "lineage": {"data": "a seeded sample", "code": "test"},
    }


@pytest.fixture(scope="session")
def bundle(trained, parts, tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("models") / "bundle", trained, **parts)
