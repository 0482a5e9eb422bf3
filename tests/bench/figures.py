"""A run's figures as JSON with the machine and versions they belong to, beside an earlier run's, and as plots."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from models.svg import svg
from spread import first_number

ROOT = Path(__file__).parents[2]
LIBRARIES = ("confluent-kafka", "lightgbm", "numba", "numpy", "onnxruntime", "orjson", "redis", "xgboost-cpu")
BUSY = 0.5  # of the cores were at work before the run began: its figures are those of a busy machine
LINE_INCHES, WIDTH_INCHES = 0.32, 9.0


class Row(NamedTuple):
    """A figure; values: of each round, in `unit`, for JSON and plots. Parts may return the first three alone."""

    figure: str
    measured: str
    bound: str
    values: Sequence[float] = ()
    unit: str = ""


def load() -> float:
    """Return how much of the cores others use now, 0 to 1 and above."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def record(parts: Mapping[str, Sequence[Row]], seeds: Mapping[str, int], load_before: float) -> dict[str, Any]:
    """Return a run as plain values."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "load_before": round(load_before, 2),
        "busy": load_before > BUSY,
        "seeds": dict(seeds),
        "parts": {name: [row._asdict() for row in rows] for name, rows in parts.items()},
    }


def changes(former: Mapping[str, Any], parts: Mapping[str, Sequence[Row]]) -> dict[tuple[str, int], str]:
    """Return by part and place of a figure how its first number compares with the earlier run's."""
    found: dict[tuple[str, int], str] = {}
    for part, rows in parts.items():
        before = {name: row["measured"] for name, row in zip(*_named(former["parts"].get(part, [])), strict=True)}
        names, _ = _named([row._asdict() for row in rows])
        for place, (name, row) in enumerate(zip(names, rows, strict=True)):
            old, new = first_number(before.get(name, "")), first_number(row.measured)
            if old and new is not None:
                found[part, place] = f"{new / old - 1:+.0%}"
    return found


def plot(name: str, rows: Sequence[Row]) -> str:
    """Return an SVG of the rows that have values: medians, least to most as whiskers, one panel a unit."""
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.values and row.unit:
            units[row.unit].append(row)
    sizes = [len(panel) + 1 for panel in units.values()]

    def draw(figure: Any) -> None:
        figure.suptitle(name)
        panels = figure.subplots(len(units), 1, squeeze=False, gridspec_kw={"height_ratios": sizes})[:, 0]
        for axes, (unit, panel) in zip(panels, units.items(), strict=True):
            middle = [statistics.median(row.values) for row in panel]
            below = [m - min(row.values) for m, row in zip(middle, panel, strict=True)]
            above = [max(row.values) - m for m, row in zip(middle, panel, strict=True)]
            axes.errorbar(middle, range(len(panel)), xerr=[below, above], fmt="o", ecolor="#777777", capsize=3)
            axes.grid(axis="x", alpha=0.3)
            axes.set_ylim(-0.5, len(panel) - 0.5)
            axes.set_yticks(range(len(panel)), [row.figure.strip() for row in panel], fontsize=8)
            axes.set_xscale("log")
            axes.set_xlabel(unit)
            axes.invert_yaxis()

    return svg(draw, (WIDTH_INCHES, LINE_INCHES * sum(sizes) + 1.0), name, {})


def plottable(rows: Sequence[Row]) -> bool:
    return any(row.values and row.unit for row in rows)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _named(rows: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Name each row by its figure; an indented one belongs to the last that was not."""
    names, kept, owner = [], [], ""
    for row in rows:
        own = row["figure"]
        owner = owner if own.startswith(" ") else own
        names.append(owner + own if own.startswith(" ") else own)
        kept.append(row)
    return names, kept


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
