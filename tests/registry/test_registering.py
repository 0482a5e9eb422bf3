"""Registering: an unchanged copy with its lineage, and a holdout that proves something."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from registry_cases import shifted

from models.bundle import open_bundle
from models.holdout import holdout_path, read_holdout, write_holdout
from simulated_holdout import write_simulated_holdout
from state.features import StateSpec, default_feature_set
from stream.errors import UsageError
from stream.holdout_proof import check_not_learned
from stream.registry import Registry, register
from stream.registry_directory import Versions, manifest_sha256


def test_a_registered_version_is_an_unchanged_copy_with_its_lineage_as_tags(made, settings):
    name = register(made / "a", None, settings)
    bundle, copy = open_bundle(made / "a"), Path(settings.directory, name)
    assert name == bundle.version == open_bundle(copy).version
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in (made / "a").iterdir()
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in copy.iterdir()} == {0o444}
    version = Registry(settings).find(name)
    assert version.number == 1
    assert version.tags["manifest_sha256"] == manifest_sha256(made / "a")
    assert version.tags["feature_set"] == bundle.feature_set_hash
    assert float(version.tags["metric.average_precision"]) == bundle.metrics["average_precision"]
    assert {f"lineage.{key}" for key in bundle.lineage} <= set(version.tags)
    assert len(version.tags["parameters_sha256"]) == len(version.tags["holdout_sha256"]) == 64


def test_a_holdout_names_users_so_its_copy_is_its_owner_s_alone(made, settings):
    name = register(made / "a", None, settings)
    copy = Versions(Path(settings.directory)).holdout_path(name)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_registering_the_same_bundle_again_changes_nothing(made, settings):
    assert register(made / "a", None, settings) == register(made / "a", None, settings)
    assert len(Registry(settings).versions()) == 1
    assert [entry.action for entry in Versions(Path(settings.directory)).audit()] == ["registered"]


def test_another_holdout_for_the_same_version_is_refused(made, settings, tmp_path):
    register(made / "a", None, settings)
    other = write_simulated_holdout(tmp_path / "h.parquet", default_feature_set(), StateSpec(), events=3_000, seed=3)
    with pytest.raises(UsageError, match="was registered with another holdout"):
        register(made / "a", other, settings)


def test_a_holdout_of_another_feature_set_is_refused(made, settings):
    with pytest.raises(UsageError, match=r"holds feature set .* was trained on"):
        register(made / "a", made / "other.holdout.parquet", settings)


def test_a_holdout_of_days_that_the_model_learned_from_is_refused(made, settings, tmp_path):
    with pytest.raises(UsageError, match=r"begins on .*, but version .* learned from payments until"):
        register(made / "a", shifted(made / "a.holdout.parquet", tmp_path / "h.parquet", 40), settings)
    assert Registry(settings).versions() == []


def test_within_its_own_history_only_the_bundle_s_own_holdout_is_taken(made, model_bundle, settings, tmp_path):
    own = holdout_path(model_bundle)
    held = read_holdout(own)
    other = replace(held, labels=1 - held.labels)
    write_holdout(tmp_path / "other.parquet", other)
    with pytest.raises(UsageError, match="holds other payments than were held out"):
        register(made / "a", tmp_path / "other.parquet", settings)
    # Begins a day before what was held out, as a training with a longer holdout writes it.
    with pytest.raises(UsageError, match="learned from payments until"):
        register(made / "a", shifted(own, tmp_path / "longer.parquet", 1), settings)
    name = register(made / "a", own, settings)
    assert Registry(settings).find(name).tags["holdout_sha256"]


def test_a_bundle_that_does_not_say_what_it_learned_from_has_no_holdout(made, settings, tmp_path):
    bundle = open_bundle(made / "a")
    held = read_holdout(made / "a.holdout.parquet")
    with pytest.raises(UsageError, match="does not say which days it learned from"):
        check_not_learned(tmp_path, held, replace(bundle, lineage={}))


def test_a_version_s_name_and_its_number_both_find_it_and_the_nearest_name_is_said(made, settings):
    name = register(made / "a", None, settings)
    registry = Registry(settings)
    assert registry.find("1") == registry.find(name)
    with pytest.raises(UsageError, match=f"there is no version {name[:-1]}; did you mean {name}"):
        registry.find(name[:-1])
