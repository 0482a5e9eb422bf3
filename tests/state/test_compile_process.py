"""The kernel of a promoted feature set is compiled beside the worker, or it is said why not."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict

import pytest

from small_models import FOREIGN_FEATURES, other_features
from state import compile_process, windows
from state.compile_process import LOCK, compile_beside
from state.features import StateSpec, parse_feature_set

SPEC = StateSpec()


def test_what_was_compiled_beside_is_found_on_disk_and_nothing_is_compiled_here(monkeypatch):
    monkeypatch.setattr(windows, "_observers", {})
    assert compile_beside(SPEC, other_features()) == ""
    assert windows.load(SPEC, other_features())
    assert windows.is_warm(SPEC, other_features())


def test_what_was_never_compiled_is_not_found_and_not_compiled_either():
    seldom = StateSpec(max_events=3_331)
    assert not windows.load(seldom, other_features())
    assert not windows.is_warm(seldom, other_features())


def test_a_set_that_the_state_does_not_serve_is_said_in_its_own_sentence():
    failure = compile_beside(SPEC, parse_feature_set(FOREIGN_FEATURES))
    assert "reads the field 'terminal_id', but the state keeps" in failure


def test_a_compiler_that_takes_too_long_is_ended():
    assert compile_beside(SPEC, other_features(), patience_secs=0.01) == "the compiler was not done within 0.01 s"


def test_without_another_process_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert compile_beside(SPEC, other_features()).startswith("no process could be started (")


def test_without_a_folder_for_what_it_says_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert compile_beside(SPEC, other_features()).startswith("no process could be started (")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("cannot cache function: no locator available")]
)
def test_a_cache_that_cannot_be_written_is_the_reason_told(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(windows, "warm", fail)
    assert compile_process._compile(SPEC, other_features()) == f"it cannot be compiled or kept on disk ({error})"


def test_a_kernel_that_is_not_on_disk_afterwards_is_the_reason_told(monkeypatch):
    monkeypatch.setattr(windows, "warm", lambda *_: None)
    monkeypatch.setattr(windows, "load", lambda *_: False)
    assert compile_process._compile(SPEC, other_features()) == "what was compiled is not found on disk again"


def is_taken(path) -> bool:
    other = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(other)
    return False


def test_one_at_a_time_compiles_on_a_machine(tmp_path):
    with compile_process._turn(tmp_path):
        assert is_taken(tmp_path / LOCK)
    assert not is_taken(tmp_path / LOCK)


def test_where_no_lock_can_be_had_it_compiles_all_the_same(tmp_path):
    entered = []
    with compile_process._turn(tmp_path / "missing"):
        entered.append("no folder")
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with compile_process._turn(tmp_path):
        entered.append("a link")
    assert entered == ["no folder", "a link"]
    assert not (tmp_path / "elsewhere").exists()


def test_the_compiler_ends_when_its_worker_does(tmp_path):
    """It waits for its turn, which never comes, until the pipe from the worker is closed."""
    task = json.dumps({"spec": asdict(SPEC), "feature_set": other_features().source.decode()})
    with compile_process._turn(tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "state.compile_process"],
            input=task + "\n",
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 1
