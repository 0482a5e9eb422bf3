"""Draw the dashboards' queries as pictures: `python deploy/grafana/render.py http://127.0.0.1:9090 FOLDER`.

For whoever changes a panel without Grafana at hand: the same queries, asked of a real Prometheus, in the same places,
with title, unit and thresholds. It is not Grafana: colours and layout are near, no more. Needs matplotlib.
"""

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

FOLDER: Final = Path(__file__).with_name("dashboards")
SPAN_SECS: Final = 900
POINTS: Final = 300
COLOURS: Final = {"green": "#56a64b", "yellow": "#e0b400", "red": "#e02f44"}
CELL: Final = (0.72, 0.34)  # inches of a column and of a row


def ask(server: str, path: str, **parameters: object) -> list[dict[str, Any]]:
    """Return the series Prometheus answers with."""
    data = urllib.parse.urlencode(parameters).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{server}/api/v1/{path}", data, timeout=30) as answer:
        result: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
    return result


def legend(template: str, labels: dict[str, str]) -> str:
    """Fill a legend in as Grafana does."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), template)


def amount(value: float, unit: str) -> str:
    """Return a value with its unit, short enough for an axis."""
    if not math.isfinite(value):
        return str(value)
    if unit == "percentunit":
        return f"{value:.3g}".rstrip() if value == 0 else f"{100 * value:.3g} %"
    if unit == "s":
        for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return "0"
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}{'B' if unit == 'bytes' else ''}"
    return f"{value:.3g}{'/s' if unit == 'ops' else '/min' if unit == 'cpm' else ''}"


def shade(panel: dict[str, Any], value: float) -> str:
    """Return the colour of the highest threshold the value has met."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    met = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[met[-1]]


def draw(axes: Axes, panel: dict[str, Any], server: str, now: float) -> None:
    """Draw one panel."""
    axes.set_title(panel["title"], fontsize=9, loc="left", fontweight="bold")
    axes.tick_params(labelsize=7)
    found = []
    for target in panel["targets"]:
        query = re.sub(r"\$\w+", ".*", target["expr"])
        if target["range"]:
            span = {"start": now - SPAN_SECS, "end": now, "step": SPAN_SECS / POINTS}
            series = ask(server, "query_range", query=query, **span)
        else:
            series = ask(server, "query", query=query, time=now)
        found += [(legend(target["legendFormat"], one["metric"]), one) for one in series]
    if not found:
        axes.text(0.5, 0.5, "No data", ha="center", va="center", fontsize=10, color="grey", transform=axes.transAxes)
        axes.set_axis_off()
        return
    {"timeseries": lines, "state-timeline": states, "bargauge": bars, "stat": figures, "table": table}[panel["type"]](
        axes, panel, found
    )


def lines(axes: Axes, panel: dict[str, Any], found: list[tuple[str, dict[str, Any]]]) -> None:
    """Draw lines over time, one on another where the panel stacks them."""
    defaults = panel["fieldConfig"]["defaults"]
    fixed = {
        o["matcher"]["options"]: o["properties"][0]["value"]["fixedColor"] for o in panel["fieldConfig"]["overrides"]
    }
    end = max(float(one["values"][-1][0]) for _, one in found)
    below: dict[float, float] = {}
    for number, (name, one) in enumerate(found):
        times = [(float(at) - end) / 60 for at, _ in one["values"]]
        values = [float(value) for _, value in one["values"]]
        colour = COLOURS.get(fixed.get(name, ""), f"C{number % 10}")
        if defaults["custom"]["stacking"]["mode"] == "normal":
            bottom = [below.get(at, 0.0) for at in times]
            top = [low + (value if math.isfinite(value) else 0) for low, value in zip(bottom, values, strict=True)]
            axes.fill_between(times, bottom, top, label=name, color=colour, alpha=0.7, linewidth=0)
            below.update(zip(times, top, strict=True))
        else:
            axes.plot(times, values, label=name, color=colour, linewidth=1)
    if defaults["custom"]["scaleDistribution"]["type"] == "log":
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0, top=defaults.get("max"))
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is not None and defaults["custom"]["thresholdsStyle"]["mode"] == "line":
            axes.axhline(step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value, defaults["unit"])))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda _, __: ""))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.09), frameon=False)


def states(axes: Axes, panel: dict[str, Any], found: list[tuple[str, dict[str, Any]]]) -> None:
    """Draw a band for each series, in the colour of its state."""
    end = max(float(one["values"][-1][0]) for _, one in found)
    for row, (_, one) in enumerate(found):
        for (at, value), (until, _) in zip(one["values"], one["values"][1:], strict=False):
            left = (float(at) - end) / 60
            axes.barh(row, (float(until) - float(at)) / 60, left=left, color=shade(panel, float(value)), height=0.8)
    axes.set_yticks(range(len(found)), [name for name, _ in found], fontsize=5)


def bars(axes: Axes, panel: dict[str, Any], found: list[tuple[str, dict[str, Any]]]) -> None:
    """Draw a bar for each series."""
    values = [float(one["value"][1]) for _, one in found]
    axes.barh(range(len(found)), values, color=[shade(panel, value) for value in values])
    for place, (name, one) in enumerate(found):
        axes.text(0, place, f" {name}  {float(one['value'][1]):.3g}", va="center", fontsize=7)
    axes.set_yticks([])
    axes.set_xlim(panel["fieldConfig"]["defaults"].get("min"), panel["fieldConfig"]["defaults"].get("max"))
    axes.invert_yaxis()


def figures(axes: Axes, panel: dict[str, Any], found: list[tuple[str, dict[str, Any]]]) -> None:
    """Write the numbers, on their colour where the panel has thresholds."""
    axes.set_axis_off()
    defaults = panel["fieldConfig"]["defaults"]
    texts = defaults.get("mappings", [{"options": {}}])[0]["options"]
    for place, (name, one) in enumerate(found[:3]):
        value = float(one["value"][1])
        text = texts.get(f"{value:g}", {}).get("text") or amount(value, defaults["unit"])
        if len(found) > 1:
            text = f"{name} {text}"
        colour = shade(panel, value) if panel["options"]["colorMode"] == "background" else "white"
        box = {"facecolor": colour, "edgecolor": "none", "pad": 6}
        y = 0.5 - 0.33 * (place - (min(len(found), 3) - 1) / 2)
        size = 14 if len(found) == 1 else 8
        axes.text(0.5, y, text, ha="center", va="center", fontsize=size, bbox=box, transform=axes.transAxes)


def table(axes: Axes, panel: dict[str, Any], found: list[tuple[str, dict[str, Any]]]) -> None:
    """Write a row for each series: its labels."""
    axes.set_axis_off()
    hidden = panel["transformations"][0]["options"]["excludeByName"]
    names = sorted({name for _, one in found for name in one["metric"]} - set(hidden))
    rows = [[one["metric"].get(name, "") for name in names] for _, one in found]
    drawn = axes.table(rows, colLabels=names, loc="upper center", cellLoc="left")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)


def render(server: str, board: dict[str, Any], path: Path) -> None:
    """Draw a whole dashboard into a PNG."""
    places = [panel["gridPos"] for panel in board["panels"]]
    columns, rows = 24, max(place["y"] + place["h"] for place in places)
    figure = Figure(figsize=(columns * CELL[0], rows * CELL[1] + 0.5), layout=None)
    now = time.time()
    for panel, place in zip(board["panels"], places, strict=True):
        room = (0.035, 0.022 * 40 / rows)
        left, bottom = place["x"] / columns + room[0], 1 - (place["y"] + place["h"]) / rows + room[1]
        width, height = place["w"] / columns - 1.2 * room[0], place["h"] / rows - 2.3 * room[1]
        draw(figure.add_axes((left, bottom * 0.97, width, height * 0.97)), panel, server, now)
    figure.suptitle(f"{board['title']}   {board['description']}", fontsize=12, x=0.01, ha="left")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Draw them all."""
    mpl.use("Agg")
    server, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        render(server, json.loads(path.read_text()), folder / f"{path.stem}.png")
        print(folder / f"{path.stem}.png")


if __name__ == "__main__":
    main()
