"""Bundles made once a session, a registry of each test's own, its office and its verbs."""

import shutil
from pathlib import Path

import pytest
from registry_cases import OTHER, WIDE

from command import run_here
from models.bundle import open_bundle
from models.gate_cost import Cost
from models.manifest import MANIFEST
from models.policy import Thresholds
from models.threshold_change import with_thresholds
from simulated_holdout import write_simulated_holdout
from state.features import StateSpec, default_feature_set, parse_feature_set
from stream.promotion import Office
from stream.registry import Registry
from stream.registry_directory import Versions
from stream.secret import SecretUrl
from stream.sections import RegistrySettings
from stream.training import demo_simulation, train_simulated


@pytest.fixture(scope="session")
def made(tmp_path_factory, model_bundle):
    """A folder with bundles "a", "b" (other thresholds) and "other" (another feature set), each beside its holdout."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(model_bundle, folder / "a")
    (folder / "b").mkdir()
    for name, content in with_thresholds(
        open_bundle(folder / "a"), (folder / "a" / MANIFEST).read_bytes(), Thresholds(0.123, 0.876)
    )[1].items():
        (folder / "b" / name).write_bytes(content)
    train_simulated(folder / "other", demo_simulation(6_000, seed=8), rounds=3, feature_set=parse_feature_set(OTHER))
    sets = {"a": default_feature_set(), "b": default_feature_set(), "other": parse_feature_set(OTHER)}
    for name, feature_set in sets.items():
        write_simulated_holdout(folder / f"{name}.holdout.parquet", feature_set, StateSpec(), events=8_000, seed=9)
    return folder


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A registry file with its tables, which take a second to make, and no version."""
    folder = tmp_path_factory.mktemp("registry")
    path = folder / "mlflow.db"
    assert Registry(RegistrySettings(uri=SecretUrl(f"sqlite:///{path}"))).versions() == []
    return path


@pytest.fixture
def settings(tmp_path, empty):
    """Settings of a registry of this test's own."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    return RegistrySettings(uri=SecretUrl(f"sqlite:///{tmp_path / 'mlflow.db'}"), directory=str(tmp_path / "models"))


def cheapen(monkeypatch):
    """Few resamples, no process that measures time and memory: the gates have tests of their own."""
    monkeypatch.setattr("models.gates.measure", lambda *_: Cost("forest", 0.5, 0.002, 30 << 20, 512))
    monkeypatch.setattr("models.gate_quality.RESAMPLES", 20)


@pytest.fixture
def office(settings, monkeypatch):
    """Promotes by wide bounds at a clock that counts."""
    cheapen(monkeypatch)
    ticks = iter(range(1_000, 10_000))
    return Office(Registry(settings), Versions(Path(settings.directory)), StateSpec(), WIDE, now_ms=lambda: next(ticks))


@pytest.fixture
def run(settings, monkeypatch, capsys):
    """run("promote", …) runs `fraudstream models …` here and returns its exit code and what it printed."""
    cheapen(monkeypatch)
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__URI", settings.uri.reveal())
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__DIRECTORY", settings.directory)
    for name in (
        *("max_brier_ratio", "max_precision_loss", "max_recall_loss"),
        *("max_slope", "max_false_positive_ratio", "max_score_ratio"),
    ):
        monkeypatch.setenv(f"FRAUDSTREAM_REGISTRY__GATES__{name.upper()}", "100")
    for name in ("max_decline_rate", "max_honest_held_gain", "max_honest_declined_gain"):
        monkeypatch.setenv(f"FRAUDSTREAM_REGISTRY__GATES__{name.upper()}", "1")
    for name in ("min_missing_share", "min_noise_share", "min_decline_precision"):
        monkeypatch.setenv(f"FRAUDSTREAM_REGISTRY__GATES__{name.upper()}", "0")
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__GATES__MIN_SLOPE", "0.01")

    def run(*args):
        done = run_here(monkeypatch, capsys, "models", *args)
        return done.returncode, done.stdout, done.stderr

    return run
