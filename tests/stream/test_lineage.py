"""What a model was made from: the code's commit, the libraries, the file."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np

import stream
from stream import lineage

ROOT = Path(stream.__file__).resolve().parents[1]


def test_the_commit_is_the_source_trees_own():
    found = lineage.code_version()
    assert found["version"].startswith("0.")
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert found["commit"].removesuffix("-dirty") == head.stdout.strip()


def test_an_installation_inside_another_repository_does_not_tell_that_ones_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    package = tmp_path / ".venv" / "lib" / "stream" / "__init__.py"
    package.parent.mkdir(parents=True)
    monkeypatch.setattr(lineage.stream, "__file__", str(package))
    assert set(lineage.code_version()) == {"version"}


def test_without_git_the_version_is_all_there_is(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert set(lineage.code_version()) == {"version"}


def test_libraries_and_files_are_named_exactly(tmp_path):
    assert lineage.library_versions()["numpy"] == np.__version__
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 100_000)
    assert lineage.file_hash(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
