"""A drift report as tables, and the page they stand on with their plots: what matters first."""

import html
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from models.drift_report import Coverage, DriftReport, ModelDrift, Quality, Raised, SegmentMix, Subject
from models.drift_report_plots import mix_plots, subject_plot
from models.report import document, plots_html, table_html
from models.report_tables import NOTHING, Table

#: Segments beyond these are few events each; the JSON has all.
SEGMENTS_SHOWN = 20
ALERTS_SHOWN = 200

WHAT_INDEX_SAYS = (
    "PSI: population stability index of the period against the days the model was trained on; 0 is equal, from "
    "{bound:g} on it counts as drifted, if chi-squared with Benjamini and Hochberg's correction agrees. Greatest: of "
    "any stretch of the period, in which a night or a weekend alone may stand out."
)


def drift_page(report: DriftReport, tell: Callable[[int, int], object] = lambda _done, _all: None) -> str:
    """Return the HTML page. tell: called with plots drawn and plots in all. Raises ModelError without matplotlib."""
    body = [table_html(_about(report)), table_html(_drifting(report))]
    if report.unknown:
        body.append(table_html(_unknown(report)))
    if report.alerts:
        body.append(table_html(_alerts(report)))
    body.append(plots_html(mix_plots(report)))
    every = [(model, one) for model in report.models for one in _subjects(model)]
    done = 0
    for model in report.models:
        body.append(table_html(_model(model)))
        for one in _subjects(model):
            title = f"{one.name[:1].upper()}{one.name[1:]}" if one is model.score else one.name
            body.append(f'<figure class="wide">{_heading(title, one)}{subject_plot(report, model, one)}</figure>')
            done += 1
            tell(done, len(every))
    body += [table_html(table) for table in _rest(report)]
    return document("Drift", "".join(body))


def drift_tables(report: DriftReport) -> list[Table]:
    """Return what a terminal shows: the period, what drifted, what is not known."""
    return [_about(report), _drifting(report), *([_unknown(report)] if report.unknown else [])]


def clock(at_ms: int) -> str:
    """Write epoch milliseconds as 2026-01-05 12:30 UTC."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _subjects(model: ModelDrift) -> list[Subject]:
    return ([model.score] if model.score else []) + list(model.features)


def _heading(title: str, subject: Subject) -> str:
    says = ", ".join(_says(subject)) or "as in training"
    return f'<h3>{html.escape(title)} <span class="note">{html.escape(says)}, PSI {subject.psi:.3f}</span></h3>'


def _about(report: DriftReport) -> Table:
    coverage, hours = report.coverage, (report.until_ms - report.since_ms) / 3_600_000
    rows = [
        ["period", f"{clock(report.since_ms)} to {clock(report.until_ms)} ({hours:,.1f} hours)"],
        ["decisions", f"{coverage.events:,} by {len(coverage.workers)} workers"],
        ["models", "; ".join(_scored(model) for model in report.models) or NOTHING],
        ["labels that came", f"{sum(one.frauds + one.honest for one in report.labels):,}"],
        ["alerts open", f"{len(report.alerts):,}"],
    ]
    return Table("Period", ("", ""), rows)


def _scored(model: ModelDrift) -> str:
    return f"{model.version} ({', '.join(model.engines)}) scored {model.events:,}"


def _drifting(report: DriftReport) -> Table:
    heads = ("what", "model", "says", "PSI", "greatest", "missing", "in training", "alerts")
    rows = [
        [
            one.name,
            model.version,
            ", ".join(_says(one)),
            f"{one.psi:.3f}",
            f"{one.worst:.3f}",
            f"{one.missing:.1%}",
            f"{one.reference_missing:.1%}",
            str(len(one.alerts)) if one.alerts else NOTHING,
        ]
        for model, one in report.drifting()
    ]
    if not rows:
        compared = any(model.compared for model in report.models)
        text = "Nothing: every feature and score is as in training." if compared else "Nothing could be compared."
        return Table("What drifted", ("",), [[text]])
    return Table("What drifted", heads, rows, WHAT_INDEX_SAYS.format(bound=report.whole_psi_bound))


def _says(subject: Subject) -> list[str]:
    said = []
    if subject.broken:
        said.append("missing more often" if subject.missing > subject.reference_missing else "missing less often")
    if subject.drifted:
        said.append("distributed otherwise")
    if subject.alerts:
        said.append("alert")
    return said


def _unknown(report: DriftReport) -> Table:
    return Table("What this page does not know", ("",), [[sentence] for sentence in report.unknown])


def _alerts(report: DriftReport) -> Table:
    heads = ("found", "until", "signal", "about", "model", "what was said")

    def row(one: Raised) -> list[str]:
        about = ", ".join(filter(None, (one.subject, one.segment))) or NOTHING
        until = NOTHING if one.cleared_ms is None else clock(one.cleared_ms)
        return [clock(one.at_ms), until, one.signal, about, one.model or NOTHING, one.text]

    left = len(report.alerts) - ALERTS_SHOWN
    note = f"{left:,} more are in the JSON." if left > 0 else "A dash: still open at the end of the period."
    return Table("Alerts", heads, [row(one) for one in report.alerts[:ALERTS_SHOWN]], note)


def _model(model: ModelDrift) -> Table:
    heads = ("feature", "says", "PSI", "greatest", "Jensen-Shannon", "chi² p", "KS", "KS p", "missing", "in training")
    title = f"Model {model.version}: {model.events:,} events, {clock(model.first_ms)} to {clock(model.last_ms)}"
    rows = [
        [
            one.name,
            ", ".join(_says(one)) or NOTHING,
            f"{one.psi:.3f}",
            f"{one.worst:.3f}",
            f"{one.jensen_shannon:.4f}",
            _chance(one.chi_squared_p),
            f"{one.ks:.3f}",
            _chance(one.ks_p),
            f"{one.missing:.1%}",
            f"{one.reference_missing:.1%}",
        ]
        for one in _subjects(model)
    ]
    if not rows:
        return Table(title, ("",), [["Its reference is not at hand, so there is nothing to compare with."]])
    return Table(title, heads, rows, "The score first, then the features that changed most.")


def _chance(p_value: float) -> str:
    return "< 1e-12" if p_value < 1e-12 else f"{p_value:.2g}"


def _rest(report: DriftReport) -> list[Table]:
    return [
        _segments(report.segments),
        _quality(report.quality),
        _coverage(report.coverage),
    ]


def _segments(found: Sequence[SegmentMix]) -> Table:
    heads = ("segment", "decisions", "reviewed", "declined", "reviewed, first half", "second half", "PSI of the mix")
    rows = []
    for one in found[:SEGMENTS_SHOWN]:
        both = {name: one.first.get(name, 0) + one.second.get(name, 0) for name in {*one.first, *one.second}}
        rows.append(
            [
                one.name or "(not told apart)",
                f"{one.events:,}",
                _share(both, "review"),
                _share(both, "decline"),
                _share(one.first, "review"),
                _share(one.second, "review"),
                NOTHING if one.psi is None else f"{one.psi:.3f}",
            ]
        )
    if not rows:
        return Table("Segments", ("",), [["No decision was counted."]])
    left = len(found) - SEGMENTS_SHOWN
    note = "PSI of the period's second half against its first; a dash: too few decisions to say."
    return Table("Segments", heads, rows, note + (f" {left:,} more are in the JSON." if left > 0 else ""))


def _share(decisions: Mapping[str, int], name: str) -> str:
    total = sum(decisions.values())
    return f"{decisions.get(name, 0) / total:.2%}" if total else NOTHING


def _quality(found: Sequence[Quality]) -> Table:
    if not found:
        return Table("Quality, from labels", ("",), [["No label came in this period."]])
    names = list(found[0].figures)
    heads = ("model", "segment", "labelled", "frauds", *(name.replace("_", " ") for name in names))
    rows = [
        [
            one.model,
            one.segment or "all",
            f"{one.events:,}",
            f"{one.frauds:,}",
            *(NOTHING if value is None else f"{value:.3f}" for value in one.figures.values()),
        ]
        for one in found
    ]
    note = (
        "Of decisions whose label came in the period, whenever they were made. Review counts what is declined too. A "
        "dash: too few frauds. Calibration ratio: frauds expected by the scores over those that came."
    )
    return Table("Quality, from labels", heads, rows, note)


def _coverage(found: Coverage) -> Table:
    covered, uncovered = sum(found.covered.values()), sum(found.uncovered.values())
    rows = [
        ["records of telemetry", f"{found.records:,}"],
        ["workers", ", ".join(found.workers) or NOTHING],
        ["records of the input covered", f"{covered:,} of {covered + uncovered:,} in {len(found.covered)} partitions"],
        ["telemetry records lost on the way", f"{found.lost:,}"],
        ["dropped by workers", f"{found.dropped:,}"],
        ["repeated, counted once", f"{found.repeated:,}"],
        ["not readable", f"{found.unreadable:,}"],
        ["times without telemetry", f"{len(found.silent_ms):,}"],
        *([f"not scored: {name}", f"{count:,}"] for name, count in found.dead_letters.items()),
        *([f"not compared: {name}", f"{count:,}"] for name, count in found.set_aside.items() if count),
    ]
    return Table("Coverage", ("", ""), rows)
