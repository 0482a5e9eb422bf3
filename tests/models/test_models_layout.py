"""models/ is a leaf, and says which modules it has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import models

FOLDER = Path(models.__file__).parent
THIRD_PARTY = {
    "lightgbm",
    "llvmlite",
    "matplotlib",
    "msgspec",
    "numba",
    "numpy",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "river",
    "scipy",
    "xgboost",
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_models_imports_neither_stream_nor_state_nor_kafka():
    found = {name for path in FOLDER.glob("*.py") for name in imported(path)}
    assert found - set(sys.stdlib_module_names) - {"models"} == THIRD_PARTY


def test_nothing_is_pickled():
    found = {name for path in FOLDER.glob("*.py") for name in imported(path)}
    assert not found & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def test_all_lists_the_modules_there_are():
    assert sorted(models.__all__) == sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


LOADED_BY = {
    "this package": "import models.train",
    "the tests": "import sys; sys.path.insert(0, 'tests'); import conftest, lightgbm, xgboost, sklearn.metrics",
    "the command": "import stream.cli, stream.training, stream.monitor_app",
}


@pytest.mark.parametrize("who", LOADED_BY)
def test_openmp_threads_sleep_while_they_wait(who):
    """Each OpenMP runtime says, while it is loaded, how often a waiting thread looks again before it sleeps."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY[who]],
        cwd=FOLDER.parent,
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line.split("=")[1].strip() for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    assert told
    assert set(told) == {"'0'"}
