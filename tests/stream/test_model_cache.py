"""A worker that follows a registry keeps what it runs, and begins with that where the registry is away."""

import shutil

import pytest

from models.errors import ModelError
from stream.errors import StartupError
from stream.model_cache import ModelCache
from stream.scoring import prove
from stream.sources import DirectorySource
from swap_stand import Stand, spoil_byte


def test_without_the_registry_a_worker_begins_with_the_model_it_ran_last(stand, bundles, tmp_path):
    stand.promote("b")
    stand.look()
    stand.look()  # kept once it runs
    shutil.rmtree(stand.registry)
    again = Stand(tmp_path, bundles)
    first = again.begin()
    assert again.version == bundles["b"].version
    assert first.failure.startswith("There is no registry directory")
    again.promote("c")
    again.look()
    assert again.version == bundles["c"].version


def test_a_champion_that_cannot_be_used_at_a_start_leaves_the_cached_model(stand, bundles, tmp_path):
    spoil_byte(stand.registry, stand.promote("b").version)
    again = Stand(tmp_path, bundles)
    first = again.begin()
    assert again.version == bundles["a"].version
    assert "does not match its checksum" in first.failure
    again.look()
    assert again.told.events[-1][:3] == ("refused", bundles["b"].version, bundles["a"].version)


def test_with_neither_registry_nor_cache_there_is_one_sentence(tmp_path, bundles):
    stand = Stand(tmp_path, bundles)
    with pytest.raises(StartupError, match=r"There is no registry directory .* Nor is there a model in .*cache"):
        stand.begin()


def test_a_registry_without_any_promotion_says_so(tmp_path, bundles):
    stand = Stand(tmp_path, bundles)
    stand.registry.mkdir()
    with pytest.raises(StartupError, match=r"No version was promoted in .*registry yet"):
        stand.begin()


def test_the_registry_is_never_a_cache(tmp_path, bundles):
    stand = Stand(tmp_path, bundles, **{"model.cache": str(tmp_path / "registry" / "." / "..") + "/registry"})
    stand.promote("a")
    with pytest.raises(StartupError, match="give the worker a directory of its own"):
        stand.begin()


def test_a_cache_keeps_few_versions_and_whole_ones(stand, bundles, tmp_path):
    for name in "bcabc":
        stand.promote(name)
        stand.look()
        stand.look()
    stand.promote("other")
    stand.look()
    stand.look()
    kept = {path.name for path in stand.cache.iterdir() if path.is_dir()}
    assert len(kept) == 3
    assert {bundles["other"].version, bundles["c"].version} <= kept
    source = DirectorySource(stand.cache)
    assert source.current().version == bundles["other"].version
    prove(stand.settings, source.open(source.current()))


def test_a_copy_that_is_not_whole_is_not_named(stand, bundles):
    pointer = stand.promote("b")
    spoil_byte(stand.registry, pointer.version)
    cache = ModelCache(stand.cache)
    with pytest.raises(ModelError, match="does not match its checksum"):
        cache.keep(pointer, stand.registry / pointer.version)
    assert DirectorySource(stand.cache).current().version == bundles["a"].version
    assert [path for path in stand.cache.iterdir() if path.name.startswith(".")] == []


def test_a_cache_that_cannot_be_written_is_one_warning_and_no_more(stand, bundles, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ModelCache, "keep", refuse)
    stand.promote("b")
    for _ in range(3):
        stand.look()
    assert stand.version == bundles["b"].version
    assert caplog.text.count("cannot be kept for a start without the registry") == 1
