"""Every part of the benchmark, as one table and one JSON file; each part also runs alone.

PYTHONPATH=.:tests:tests/bench:tests/bench/peers .venv/bin/python tests/bench/all.py [--quick] [PART ...]

`make bench PART="peers latency"`, `make bench COMPARE=var/bench/results/….json` and `make bench-quick` run it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import engines
import explain
import figures
import gpu
import joiner
import latency
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
import throughput
import windows
from figures import Row

RESULTS = scene.KEPT / "results"

PARTS: dict[str, Callable[[], Iterable[tuple[Any, ...]]]] = {
    "peers": peers.table,
    "stages": stages.table,
    "open_loop": open_loop.table,
    "scaling": scaling.table,
    "engines": engines.table,
    "gpu": gpu.table,
    "explain": explain.table,
    "windows": windows.table,
    "throughput": throughput.table,
    "latency": latency.table,
    "recovery": recovery.table,
    "reasons": reasons.table,
    "swap": swap.table,
    "telemetry": telemetry.table,
    "joiner": joiner.table,
    "memory": memory.table,
    "monitor": monitor.table,
}
QUICK: dict[str, Callable[[], Iterable[tuple[Any, ...]]]] = {"peers": peers.quick_table}


def main(arguments: list[str]) -> int:
    asked = parse(arguments)
    parts = QUICK if asked.quick else PARTS
    unknown = [name for name in asked.parts if name not in parts]
    if unknown:
        print(f"There is no part {unknown[0]}: choose from {', '.join(parts)}.", file=sys.stderr)
        return 2
    former = figures.read(asked.compare) if asked.compare else None
    load = figures.load()
    found: dict[str, list[Row]] = {}
    for name in asked.parts or parts:
        print(f"── {name}", file=sys.stderr, flush=True)
        found[name] = [Row(*row) for row in parts[name]()]
    run = figures.record(found, {"scene": scene.SEED}, load)
    target = asked.json or RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    keep(run, found, target)
    show(found, former, busy=run["busy"])
    print(f"\nfigures and plots: {target.parent}, {target.name}")
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the benchmark, or some of its parts.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="the race without slow peers, in under three minutes")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="show each figure's change since this run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go; plots go beside it")
    return parser.parse_args(arguments)


def keep(run: dict[str, Any], parts: dict[str, list[Row]], target: Path) -> None:
    """Write the figures, and a plot of each part that has some to plot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    for name, rows in parts.items():
        if figures.plottable(rows):
            target.with_name(f"{target.stem}-{name}.svg").write_text(figures.plot(name, rows))


def show(parts: dict[str, list[Row]], former: dict[str, Any] | None, *, busy: bool) -> None:
    """Print one table."""
    note = "; the machine was busy when it began: figures are of a busy machine" if busy else ""
    changed = figures.changes(former, parts) if former else {}
    headers = ["figure", "median (least to most)", "bound", *(["since then"] if former else [])]
    table = Table(*headers, title=f"ratios are of runs side by side{note}")
    for name, rows in parts.items():
        for place, row in enumerate(rows):
            table.add_row(row.figure, row.measured, row.bound, *([changed.get((name, place), "")] if former else []))
        table.add_section()
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
