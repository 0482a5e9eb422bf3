"""Every part of the first benchmark, as one table of ratios. Each part also runs alone.

PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/all.py [PART ...]   with the parts named below
"""

import sys

from rich.console import Console
from rich.table import Table

import engines
import explain
import gpu
import joiner
import latency
import memory
import monitor
import reasons
import recovery
import swap
import telemetry
import throughput
import windows

PARTS = {
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


def main(wanted: list[str]) -> int:
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        print(f"There is no part {unknown[0]}: choose from {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    table = Table("figure", "median (least to most)", "bound", title="ratios are of runs side by side")
    for name in wanted or PARTS:
        for row in PARTS[name]():
            table.add_row(*row)
        table.add_section()
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
