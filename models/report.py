"""A report: one HTML page that needs nothing else, and JSON with everything that is on it.

JSON    format, about, sample, plan, models, thresholds, cost, calibration, days, segments, curves, histogram
        an interval is {"value", "low", "high"}; null where a figure does not exist
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from models.evaluation import Evaluation, first_and_last_day
from models.report_tables import Table, plain, tables

#: Raised when a key of the JSON goes away or changes its meaning; new keys may come at any time.
JSON_FORMAT = 1

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2630; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin: 1.6em 0 .4em }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums }
th, td { padding: .2em .9em .2em 0; text-align: left; vertical-align: top } th { border-bottom: 1px solid #b8c2cc }
td { border-bottom: 1px solid #eceff2 } .note { color: #5b6873; font-size: .9em; margin: .3em 0 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1em }
.plots svg { width: 100%; height: auto }
"""


def report_json(evaluation: Evaluation, about: Mapping[str, Any]) -> bytes:
    """Return the evaluation as indented JSON; about is anything JSON."""
    first, last = first_and_last_day(evaluation)
    document = {
        "format": JSON_FORMAT,
        "about": plain(about),
        "sample": {
            "events": evaluation.events,
            "frauds": evaluation.frauds,
            "users": evaluation.users,
            "first_day": str(first),
            "last_day": str(last),
        },
        "plan": plain(evaluation.plan),
        "models": plain(evaluation.models),
        "thresholds": {"review": plain(evaluation.review), "decline": plain(evaluation.decline)},
        "cost": plain(evaluation.cost),
        "calibration": plain(evaluation.calibration),
        "days": [{**plain(day), "day": str(np.datetime64(day.day, "D"))} for day in evaluation.days],
        "segments": plain(evaluation.segments),
        "curves": plain(evaluation.curves),
        "histogram": plain(evaluation.histogram),
    }
    return render_json(document)


def render_json(document: Mapping[str, Any]) -> bytes:
    """Return the one way a report's JSON is written."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def report_html(evaluation: Evaluation, about: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """Return the page; plots are titles and their SVG, as `report_plots.plots` draws them."""
    return page("Evaluation", tables(evaluation, about), plots)


def page(title: str, shown: Sequence[Table], plots: Mapping[str, str]) -> str:
    """Return one HTML page. Whatever a table says is text; the plots are taken to be sound SVG."""
    first, rest = shown[:1], shown[1:]
    return document(title, "".join(map(table_html, first)) + plots_html(plots) + "".join(map(table_html, rest)))


def document(title: str, body: str) -> str:
    """Return a page that needs nothing else around a sound body."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing is loaded and nothing runs, whatever a value in the data may look like.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f"{body}</body></html>\n"
    )


def plots_html(plots: Mapping[str, str]) -> str:
    """Return plots by title as a grid; they are taken to be sound SVG."""
    figures = "".join(f"<figure><h2>{html.escape(name)}</h2>{svg}</figure>" for name, svg in plots.items())
    return f'<div class="plots">{figures}</div>' if figures else ""


def table_html(table: Table) -> str:
    """Return a table; whatever it says is text."""
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in table.heads)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    head = f"<thead><tr>{heads}</tr></thead>" if any(table.heads) else ""
    return f"<h2>{html.escape(table.title)}</h2><table>{head}<tbody>{rows}</tbody></table>{note}"
