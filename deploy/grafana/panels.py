"""What a panel of Grafana's JSON is made of; a module for each dashboard says which panels there are.

Every panel has a title that asks what a person wants to know, a description that says how to read it, and a unit.
Sizes are in Grafana's grid of 24 columns.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

__all__ = ["OUTCOMES", "SOURCE", "Panel", "Variable", "dashboard", "quantile", "quantiles", "stat"]

SOURCE: Final = {"type": "prometheus", "uid": "fraudstream-prometheus"}
COLUMNS: Final = 24
#: Decisions have the same colours everywhere.
OUTCOMES: Final = {"approve": "green", "review": "yellow", "decline": "red"}
GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True)
class Panel:
    """One panel. queries: (PromQL, legend). steps: values from which on it is yellow and red; falling: below which."""

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: tuple[float, ...] = ()
    falling: bool = False
    stacked: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    most: float | None = None
    least: float | None = None
    log: bool = False
    show: str = ""
    nothing: str = ""
    colours: dict[str, str] = field(default_factory=dict)


#: One figure of the row on top.
stat: Final = partial(Panel, kind="stat", width=4, height=4)


@dataclass(frozen=True)
class Variable:
    """A choice above the panels, among the values of a label."""

    name: str
    label: str
    query: str


def quantile(q: float, metric: str, where: str = "", over: str = "1m") -> str:
    """Return the PromQL of a quantile over the last minute, or another time."""
    return f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{where}[{over}])))"


def quantiles(metric: str, where: str = "", of: tuple[float, ...] = (0.5, 0.99)) -> tuple[tuple[str, str], ...]:
    """Return queries of quantiles, each called p50 and the like."""
    return tuple((quantile(q, metric, where), f"p{100 * q:g}") for q in of)


def dashboard(name: str, title: str, about: str, panels: list[Panel], variables: tuple[Variable, ...] = ()) -> dict:
    """Return one dashboard as Grafana reads it; panels flow from left to right."""
    return {
        "uid": f"fraudstream-{name}",
        "title": title,
        "description": about,
        "tags": ["fraudstream"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "fraudstream",
                "tags": ["fraudstream"],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": [_variable(one) for one in variables]},
        "panels": _placed(panels),
    }


def _placed(panels: list[Panel]) -> list[dict[str, Any]]:
    placed, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y, row = 0, y + row, 0
        placed.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x, row = x + panel.width, max(row, panel.height)
    return placed


def _variable(one: Variable) -> dict[str, Any]:
    return {
        "type": "query",
        "name": one.name,
        "label": one.label,
        "datasource": SOURCE,
        "query": {"query": one.query, "refId": one.name},
        "refresh": 2,  # as the time range changes: models come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind not in {"timeseries", "state-timeline"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [_colour(*one) for one in panel.colours.items()]},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + place_),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
                "range": not instant,
                "instant": instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for place_, (expr, legend) in enumerate(panel.queries)
        ],
        **_transformed(panel),
    }


def _transformed(panel: Panel) -> dict[str, Any]:
    if panel.kind != "table":
        return {}
    hidden = dict.fromkeys(("Time", "Value", "__name__", "job", "instance", "alertstate", "state"), True)
    return {"transformations": [{"id": "organize", "options": {"excludeByName": hidden}}]}


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": _thresholds(panel)}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.nothing:
        defaults["noValue"] = panel.nothing
    if panel.least is not None:
        defaults["min"] = panel.least
    if panel.texts:
        options = {value: {"text": text, "index": at} for at, (value, text) in enumerate(panel.texts.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
            "axisSoftMin": 0,
        }
    elif panel.kind == "state-timeline":
        defaults["custom"] = {"lineWidth": 0, "fillOpacity": 80}
    defaults["color"] = {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"}
    return defaults


def _thresholds(panel: Panel) -> dict[str, Any]:
    colours = (RED, YELLOW, GREEN) if panel.falling else (GREEN, YELLOW, RED)
    if len(panel.steps) == 1:
        colours = (colours[0], colours[2])
    steps: list[dict[str, Any]] = [{"color": colours[0], "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in zip(panel.steps, colours[1:], strict=False)]
    return {"mode": "absolute", "steps": steps}


def _colour(name: str, colour: str) -> dict[str, Any]:
    fixed = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
    return {"matcher": {"id": "byName", "options": name}, "properties": [fixed]}


def _options(panel: Panel) -> dict[str, Any]:
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            colour = "background" if panel.steps else "none"
            text = "name" if panel.show == "name" else "auto"
            return {"reduceOptions": reduce, "colorMode": colour, "graphMode": "none", "textMode": text}
        case "bargauge":
            return {"reduceOptions": reduce, "orientation": "horizontal", "displayMode": "basic"}
        case "state-timeline":
            return {"mergeValues": True, "showValue": "never", "legend": {"showLegend": False}}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
