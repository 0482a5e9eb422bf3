"""What may import what, and what a module says it offers."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("stream", "models", "state")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "misc"}

# A leaf imports no other package of ours; only stream touches Kafka.
FORBIDDEN = {
    "state": {"stream", "models", "confluent_kafka"},
    "models": {"stream", "state", "confluent_kafka"},
    "stream": set(),
}


def relative(path):
    return str(path.relative_to(ROOT))


def imported(tree):
    """Yield the top-level package of every import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_package_imports_only_what_it_may(path):
    package = path.relative_to(ROOT).parts[0]
    assert not FORBIDDEN[package] & set(imported(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__main__"], ids=relative)
def test_every_name_a_module_offers_exists(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", [])
    assert sorted(offered) == sorted(set(offered))
    if path.stem == "__init__":  # a package offers modules, which nothing may have imported yet
        offered = [each for each in offered if importlib.util.find_spec(f"{name}.{each}") is None]
    assert [each for each in offered if not hasattr(module, each)] == []


def test_no_module_is_named_for_nothing_in_particular():
    everywhere = [*MODULES, *(ROOT / "tests").rglob("*.py")]
    assert [relative(path) for path in everywhere if path.stem in NAMELESS] == []


def test_the_rules_see_a_wrong_import():
    tree = ast.parse("def late():\n    import stream.topics\n    from confluent_kafka.admin import AdminClient\n")
    assert FORBIDDEN["state"] & set(imported(tree)) == {"stream", "confluent_kafka"}


def test_a_worker_imports_nothing_that_only_offline_work_needs():
    code = "import sys, stream.app, stream.worker; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "numba" in imported
    assert imported & {"mlflow", "sqlalchemy", "alembic", "matplotlib", "xgboost", "lightgbm", "sklearn"} == set()
