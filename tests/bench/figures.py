"""A run's figures as JSON with the machine and versions they belong to, beside an earlier run's, and as plots."""

import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka
import psutil

from kafka_server import POM
from models.svg import svg
from redis_server import RedisMissingError, executable
from spread import first_number

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
LIBRARIES = ("confluent-kafka", "lightgbm", "numba", "numpy", "onnxruntime", "orjson", "redis", "xgboost-cpu")
BUSY = 0.5  # of the cores were at work before a part began: its figures are those of a busy machine
LOOK_SECS = 2.0
LINE_INCHES, WIDTH_INCHES = 0.32, 9.0


class Row(NamedTuple):
    """A figure; values: of each round, in `unit`, for JSON and plots. Parts may return the first three alone."""

    figure: str
    measured: str
    bound: str
    values: Sequence[float] = ()
    unit: str = ""


class Part(NamedTuple):
    """What a part found; load: of the cores, 0 to 1, just before it began; seed: of what it drew."""

    rows: Sequence[Row]
    load: float
    seed: int | None = None


def load() -> float:
    """Return how much of the cores others use now, 0 to 1: not what the part before this one has used."""
    return psutil.cpu_percent(LOOK_SECS) / 100


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the input."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    kafka = re.search("<kafka.version>(.+)</kafka.version>", POM.read_text())
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _said("git", "describe", "--always", "--dirty", "--exclude", "*"),
        "libraries": {name: _version(name) for name in LIBRARIES} | {"librdkafka": confluent_kafka.libversion()[0]},
        "servers": {
            "kafka": kafka[1] if kafka else "",
            "redis": _redis(),
            "java": next((line for line in _said("java", "-version").splitlines() if "version" in line), ""),
        },
        "peers": pinned(PEERS),
    }


def pinned(peers: Path) -> dict[str, str]:
    """Return the versions that each peer asks for by name, and a hash of all it is pinned to."""
    found: dict[str, str] = {}
    for wanted in sorted(peers.glob("requirements/*.in")):
        lock = wanted.with_suffix(".txt").read_text()
        names = re.findall(r"^[a-z][\w-]*", wanted.read_text(), re.MULTILINE)
        versions = dict(re.findall(r"^([\w-]+)==(\S+)", lock, re.MULTILINE))
        told = ", ".join(f"{name} {versions[name]}" for name in names)
        found[wanted.stem] = f"{told} ({hashlib.sha256(lock.encode()).hexdigest()[:12]})"
    for pom in sorted(peers.glob("*/pom.xml")):
        needs = re.findall(r"<dependency>.*?<artifactId>(.+?)<.*?<version>(.+?)<", pom.read_text(), re.DOTALL)
        found[pom.parent.name] = ", ".join(f"{name} {number}" for name, number in needs)
    return found


def record(parts: Mapping[str, Part], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run as plain values."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": dict(machine),
        "load": {name: round(part.load, 2) for name, part in parts.items()},
        "busy": busy(parts),
        "seeds": {name: part.seed for name, part in parts.items() if part.seed is not None},
        "parts": {name: [row._asdict() for row in part.rows] for name, part in parts.items()},
    }


def busy(parts: Mapping[str, Part]) -> list[str]:
    """Return the parts that began on a busy machine."""
    return [name for name, part in parts.items() if part.load > BUSY]


def changes(former: Mapping[str, Any], parts: Mapping[str, Part]) -> dict[tuple[str, int], str]:
    """Return by part and place of a figure how its first number compares with the earlier run's.

    Where the rounds of the two runs overlap, the change may be chance, and says so.
    """
    found: dict[tuple[str, int], str] = {}
    for part, (rows, *_) in parts.items():
        before = dict(_named(former["parts"].get(part, [])))
        for place, (name, row) in enumerate(_named([row._asdict() for row in rows])):
            if (then := before.get(name)) is None:
                continue
            old, new = first_number(then["measured"]), first_number(row["measured"])
            if not old or new is None:
                continue
            change = f"{new / old - 1:+.0%}"
            found[part, place] = f"{change}, inside the spread" if _overlap(then["values"], row["values"]) else change
    return found


def differences(former: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Return what else differs from the earlier run: machine, versions, which parts began on a busy machine."""
    then, now = dict(_flat(former["machine"])), dict(_flat(run["machine"]))
    names = [*then, *(name for name in now if name not in then)]
    told = [f"{n}: {then.get(n, '-')} → {now.get(n, '-')}" for n in names if then.get(n) != now.get(n)]
    both = [part for part in run["parts"] if part in former["parts"]]
    was, is_now = ([part for part in both if one.get("load", {}).get(part, 0) > BUSY] for one in (former, run))
    if was != is_now:
        told.append(f"began on a busy machine: {', '.join(was) or '-'} → {', '.join(is_now) or '-'}")
    return told


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


def _named(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row by its figure's name; an indented one belongs to the last that was not, a repeated one counts."""
    owner, seen = "", Counter[str]()
    for row in rows:
        own = row["figure"]
        owner = owner if own.startswith(" ") else own
        name = owner + own if own.startswith(" ") else own
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}, {seen[name]}"), row


def _overlap(then: Sequence[float], now: Sequence[float]) -> bool:
    return bool(then) and bool(now) and min(then) <= max(now) and min(now) <= max(then)


def _flat(values: Mapping[str, Any], owner: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{owner}{name} ")
        else:
            yield owner + name, value


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _said(*command: str) -> str:
    """Return what a command prints; nothing where it is missing."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip()


def _redis() -> str:
    try:
        return _said(executable(), "--version")
    except RedisMissingError:
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
