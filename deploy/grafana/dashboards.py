"""Writes the dashboards as the JSON that Grafana reads: `python deploy/grafana/dashboards.py`."""

import json
from pathlib import Path
from typing import Final

import fit
import line
import memory
import overview

FOLDER: Final = Path(__file__).with_name("dashboards")

DASHBOARDS: Final = {
    "overview": overview.DASHBOARD,
    "stream": line.DASHBOARD,
    "state": memory.DASHBOARD,
    "drift": fit.DASHBOARD,
}


def rendered(name: str) -> str:
    """Return a dashboard as the file holds it."""
    return json.dumps(DASHBOARDS[name], indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(rendered(name))
