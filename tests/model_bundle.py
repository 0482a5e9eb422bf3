"""A small real bundle, trained once a session on simulated cardholders along the path a user's own data takes."""

from pathlib import Path

import pytest

from stream.training import demo_simulation, train_simulated

EVENTS = 12_000
ROUNDS = 15


@pytest.fixture(scope="session")
def model_bundle(tmp_path_factory) -> Path:
    """The directory of a bundle on the feature set that ships with fraudstream."""
    directory = tmp_path_factory.mktemp("models") / "bundle"
    train_simulated(directory, demo_simulation(EVENTS, seed=7), rounds=ROUNDS)
    return directory
