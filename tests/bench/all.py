"""Every part of the benchmark, as one table and one JSON file; each part also runs alone.

PYTHONPATH=.:tests:tests/bench:tests/bench/peers .venv/bin/python tests/bench/all.py [--quick] [PART ...]

`make bench PART="peers latency"`, `make bench COMPARE=var/bench/results/….json` and `make bench-quick` run it.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import engines
import explain
import figures
import gpu
import joiner
import memory
import monitor
import open_loop
import peers
import reasons
import recovery
import scaling
import scene
import stages
import swap
import telemetry
import windows
from figures import Part, Row
from spread import FAILED, failure

RESULTS = scene.KEPT / "results"

PARTS: dict[str, Callable[[], Iterable[tuple[Any, ...]]]] = {
    "peers": peers.table,
    "stages": stages.table,
    "latency": open_loop.table,
    "scaling": scaling.table,
    "engines": engines.table,
    "gpu": gpu.table,
    "explain": explain.table,
    "windows": windows.table,
    "recovery": recovery.table,
    "reasons": reasons.table,
    "swap": swap.table,
    "telemetry": telemetry.table,
    "joiner": joiner.table,
    "memory": memory.table,
    "monitor": monitor.table,
}
QUICK: dict[str, Callable[[], Iterable[tuple[Any, ...]]]] = {"peers": peers.quick_table}
# Of the parts that draw their input at random.
SEEDS = {
    **dict.fromkeys(("peers", "stages", "latency", "scaling"), scene.SEED),
    **dict.fromkeys(("engines", "gpu"), engines.SEED),
    "windows": 7,
    "reasons": reasons.SEED,
    "swap": swap.SEED,
    "telemetry": telemetry.SEED,
}


def main(arguments: list[str]) -> int:
    asked = parse(arguments)
    parts = QUICK if asked.quick else PARTS
    unknown = [name for name in asked.parts if name not in parts]
    if unknown:
        print(f"There is no part {unknown[0]}: choose from {', '.join(parts)}.", file=sys.stderr)
        return 2
    former = figures.read(asked.compare) if asked.compare else None
    target = asked.json or RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    machine = figures.machine()
    found: dict[str, Part] = {}
    for name in asked.parts or parts:
        found[name] = measure(name, parts[name])
        # What follows may take hours, and fail.
        keep(figures.record(found, machine), name, found[name], target)
    show(found, former, figures.record(found, machine))
    print(f"\nfigures and plots: {target.parent}, {target.name}")
    return int(any(row.measured.startswith(FAILED) for part in found.values() for row in part.rows))


def measure(name: str, table: Callable[[], Iterable[tuple[Any, ...]]]) -> Part:
    """Run one part; one that fails is a figure of its own beside those it had already."""
    load = figures.load()
    print(f"── {name}; {load:.0%} of the cores are busy before it", file=sys.stderr, flush=True)
    rows: list[Row] = []
    try:
        rows.extend(Row(*row) for row in table())
    except Exception as error:  # noqa: BLE001 (whatever it is, the other parts' figures are not lost)
        traceback.print_exc()
        rows.append(Row(name, failure(error), ""))
    return Part(rows, load, SEEDS.get(name))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the benchmark, or some of its parts.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="the race without slow peers, in under three minutes")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="show each figure's change since this run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go; plots go beside it")
    return parser.parse_args(arguments)


def keep(run: Mapping[str, Any], name: str, part: Part, target: Path) -> None:
    """Write all figures so far, and a plot of this part where it has some to plot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".part")
    fresh.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    fresh.replace(target)
    if figures.plottable(part.rows):
        target.with_name(f"{target.stem}-{name}.svg").write_text(figures.plot(name, part.rows))


def show(parts: Mapping[str, Part], former: Mapping[str, Any] | None, run: Mapping[str, Any]) -> None:
    """Print one table, and above it what it must be read with."""
    console = Console(width=160)
    if run["busy"]:
        console.print(f"Of a busy machine, which it was when they began: {', '.join(run['busy'])}")
    if former:
        console.print(f"Beside the run of {former['at']}; what else is different:", highlight=False)
        for line in figures.differences(former, run) or ["nothing"]:
            console.print(f"  {line}", highlight=False, markup=False)
    changed = figures.changes(former, parts) if former else {}
    headers = ["figure", "median (least to most)", "bound", *(["since then"] if former else [])]
    table = Table(*headers, title="ratios are of runs side by side")
    for name, part in parts.items():
        for place, row in enumerate(part.rows):
            since = [changed.get((name, place), "")] if former else []
            table.add_row(escape(row.figure), escape(row.measured), row.bound, *since)
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
