"""A model is named by its version's number too, as `fraudstream models list` shows it."""

import shutil
from pathlib import Path

import pytest

from command import run_here
from stream.errors import UsageError
from stream.registry import register
from stream.settings import load_settings
from stream.versions import named_bundle


@pytest.fixture
def everything(settings):
    keys = {"registry.uri": settings.uri.reveal(), "registry.directory": settings.directory}
    return load_settings(None, {}, keys)


def test_a_number_names_the_bundle_of_that_version(made, settings, everything):
    first, second = (register(made / name, None, settings) for name in ("a", "b"))
    assert named_bundle("1", everything) == Path(settings.directory, first)
    assert named_bundle("2", everything) == Path(settings.directory, second)


def test_a_version_of_that_name_comes_before_the_number(made, settings, everything):
    register(made / "a", None, settings)
    shutil.copytree(made / "b", Path(settings.directory, "1"))
    assert named_bundle("1", everything) == Path(settings.directory, "1")


def test_a_number_without_its_bundle_says_where_it_was_looked_for(made, settings, everything):
    name = register(made / "a", None, settings)
    Path(settings.directory, name).rename(Path(settings.directory).parent / "moved")
    with pytest.raises(UsageError, match=rf"version {name}, number 1 of fraudstream, .*: set registry.directory"):
        named_bundle("1", everything)


def test_a_number_that_no_version_has_is_one_sentence_and_exit_code_2(
    made, settings, everything, tmp_path, monkeypatch, capsys
):
    register(made / "a", None, settings)
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__URI", settings.uri.reveal())
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__DIRECTORY", settings.directory)
    payments = tmp_path / "payments.csv"
    payments.write_text("transaction_id\n")
    for args in (("score", payments, "-o", tmp_path / "s.parquet", "--model", "7"), ("evaluate", "7", payments)):
        done = run_here(monkeypatch, capsys, *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert "there is no version 7" in done.stderr
