"""The files of the deployment, read as the programs they are for read them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))

#: The Debian package of each program that the tests run.
PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
}


def program(name: str) -> str:
    """Return the path of a program that a test runs; skip, or fail where CI=true, without it."""
    found = shutil.which(name)
    if found is None:
        absent(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return found


def absent(reason: str) -> NoReturn:
    """Skip, or fail where CI=true, because a real part is missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def rules() -> Iterator[dict[str, Any]]:
    """Yield every rule, recording and alerting, as written."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alert_rules() -> list[dict[str, Any]]:
    """Return the alerting rules."""
    return [rule for rule in rules() if "alert" in rule]
