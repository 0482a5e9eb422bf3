"""Registering: an unchanged copy with its lineage, and a holdout that proves something."""

import shutil
import stat
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from registry_cases import audit, shifted

from models.bundle import open_bundle
from models.holdout import holdout_path, read_holdout, write_holdout
from models.manifest import MANIFEST, OUT_OF_FOLD, read_manifest, render, seal
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
    precision = bundle.metrics["out_of_fold_average_precision"]
    assert float(version.tags["metric.out_of_fold_average_precision"]) == precision
    # Those of the holdout stand in the gates' table alone.
    assert {key for key in version.tags if key.startswith("metric.")} == {
        f"metric.{name}" for name in bundle.metrics if name.startswith(OUT_OF_FOLD)
    }
    assert {f"lineage.{key}" for key in bundle.lineage} <= set(version.tags)
    assert len(version.tags["parameters_sha256"]) == len(version.tags["holdout_sha256"]) == 64


def test_a_holdout_names_users_so_its_copy_is_its_owner_s_alone(made, settings):
    name = register(made / "a", None, settings)
    copy = Versions(Path(settings.directory)).holdout_path(name)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_registering_the_same_bundle_again_changes_nothing(made, settings):
    assert register(made / "a", None, settings) == register(made / "a", None, settings)
    assert len(Registry(settings).versions()) == 1
    assert [entry.action for entry in audit(settings.directory)] == ["registered"]


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


def rewritten(path, to):
    """Write a holdout's file anew in other bytes, the payments as they are."""
    pq.write_table(pq.read_table(path), to, compression="zstd")
    return to


def test_a_holdout_is_known_by_its_payments_and_not_by_its_file(made, settings, tmp_path):
    name = register(made / "a", None, settings)
    kept = Versions(Path(settings.directory)).holdout_path(name)
    before = kept.read_bytes(), Registry(settings).find(name).tags
    other = rewritten(made / "a.holdout.parquet", tmp_path / "again.parquet")
    assert other.read_bytes() != before[0]
    assert register(made / "a", other, settings) == name
    # The first file's checksum is on record, so that one stays.
    assert (kept.read_bytes(), Registry(settings).find(name).tags) == before


def test_a_search_of_a_thousand_trials_can_be_registered(made, settings, tmp_path):
    """Two libraries' trials on the most folds there may be; the registry's tag says where they stand."""
    shutil.copytree(made / "a", tmp_path / "searched")
    path = tmp_path / "searched" / MANIFEST
    manifest = read_manifest(path.read_bytes(), path.parent)
    chosen = {"max_depth": 6, "eta": 0.05, "subsample": 0.8, "colsample_bytree": 0.5, "reg_lambda": 5.0}
    trial = {"library": "xgboost", "chosen": chosen, "average_precision": 0.123456789012345, "rounds": [100] * 50}
    lineage = {**manifest.lineage, "search": [trial] * 2_002}
    path.write_bytes(render(seal(msgspec.structs.replace(manifest, version="", lineage=lineage))))
    assert path.stat().st_size > 1 << 20
    name = register(tmp_path / "searched", made / "a.holdout.parquet", settings)
    tag = Registry(settings).find(name).tags["lineage.search"]
    assert tag.startswith("2,002 entries in manifest.json, SHA-256 ")
    assert len(open_bundle(Path(settings.directory, name)).lineage["search"]) == 2_002
