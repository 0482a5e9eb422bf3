"""What stands around the registry fails in one sentence; its bounds are the settings."""

from pathlib import Path

import msgspec
import pytest

from kafka_server import free_port
from models.gate import Bounds
from stream.errors import RegistryError
from stream.promotion import promoter
from stream.registry import Registry, register
from stream.secret import SecretUrl
from stream.settings import load_settings


def test_a_server_that_does_not_answer_is_one_sentence_soon(settings):
    uri = SecretUrl(f"http://user:secret@127.0.0.1:{free_port()}")
    registry = Registry(msgspec.structs.replace(settings, uri=uri))
    with pytest.raises(RegistryError, match=r"correct registry.uri, or start the server") as caught:
        registry.versions()
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_registry_is_one_sentence(settings, tmp_path):
    (tmp_path / "no.db").write_bytes(b"not SQLite at all" * 100)
    registry = Registry(msgspec.structs.replace(settings, uri=SecretUrl(f"sqlite:///{tmp_path / 'no.db'}")))
    with pytest.raises(RegistryError, match=r"correct registry.uri"):
        registry.versions()


def test_a_directory_that_cannot_be_written_is_one_sentence(made, settings, tmp_path):
    (tmp_path / "models").write_text("a file stands in the way")
    with pytest.raises(RegistryError, match=r"cannot be written .*: correct registry.directory"):
        register(made / "a", None, settings)
    assert Registry(settings).versions() == []


def test_a_pointer_that_is_none_is_one_sentence(settings, office):
    Path(settings.directory).mkdir()
    Path(settings.directory, "champion.json").write_text("{}")
    with pytest.raises(RegistryError, match="is no pointer to a version"):
        office.rollback("Ada")


def test_the_gates_bounds_are_the_settings():
    settings = load_settings(None, {})
    assert promoter(settings).bounds == Bounds()
    changed = load_settings(None, {}, {"registry.gates.min_frauds": 7, "registry.gates.max_memory_bytes": "1MiB"})
    assert promoter(changed).bounds == Bounds(min_frauds=7, max_memory_bytes=1 << 20)
