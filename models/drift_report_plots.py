"""The plots of a drift report: each feature's bins beside its index over time, the mix of decisions, the labels."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from models.drift_report import DriftReport, ModelDrift, Moment, Raised, Subject
from models.report_plots import COLOURS, FRAUD, HONEST, draw_svg
from models.svg import svg

WIDE_INCHES = (9.6, 2.5)
REFERENCE = "#9aa7b3"
INK = "#1c2630"
#: As many edges as can be read below a plot of this width.
EDGES_SHOWN = 7
STYLE = {"font.size": 8.5, "axes.spines.top": False, "axes.spines.right": False}


def subject_plot(report: DriftReport, model: ModelDrift, subject: Subject) -> str:
    """Return the SVG of one feature: left its bins in training and now, right its index over the period."""

    def draw(figure: Any) -> None:
        bins, time = figure.subplots(1, 2, width_ratios=(1, 1.15))
        _bins(bins, subject)
        _over_time(time, report, subject)

    text = svg(draw, WIDE_INCHES, f"{model.version} {subject.name}", STYLE)
    return text[text.index("<svg") :].strip()


def mix_plots(report: DriftReport) -> dict[str, str]:
    """Return the plots of decisions and labels by title; none where there is nothing to draw."""
    drawn = {}
    if any(sum(one.decisions.values()) for one in report.mix):
        drawn["Decisions that were not approved, by time"] = draw_svg(partial(_mix, report=report), "mix")
        drawn["Decisions a minute, by time"] = draw_svg(partial(_rate, report=report), "rate")
    if any(one.frauds + one.honest for one in report.labels):
        drawn["Labels that came, by time"] = draw_svg(partial(_labels, report=report), "labels")
    return drawn


def _bins(axes: Any, subject: Subject) -> None:
    known = np.array([*subject.reference], float), np.array([*subject.current], float)
    places = np.arange(len(known[0]))
    shares = []
    for counts, missing in zip(known, (subject.reference_missing, subject.missing), strict=True):
        total = counts.sum()
        shares.append(np.append(counts / total * (1 - missing) if total else counts, missing))
    at = np.append(places, len(places) + 1.0)
    for share, shift, colour, label in (
        (shares[0], -0.2, REFERENCE, "training"),
        (shares[1], 0.2, COLOURS[0], "this period"),
    ):
        axes.bar(at + shift, share, width=0.4, color=colour, label=label)
    step = max(1, -(-len(subject.edges) // EDGES_SHOWN))
    shown = range(0, len(subject.edges), step)
    axes.set_xticks(
        [*(edge + 0.5 for edge in shown), at[-1]],
        [*(_number(subject.edges[edge]) for edge in shown), "missing"],
        rotation=30,
        ha="right",
    )
    axes.set(ylabel="share of events")
    axes.legend(frameon=False, loc="best")


def _over_time(axes: Any, report: DriftReport, subject: Subject) -> None:
    times, values = _steps(subject.over_time, [one.psi for one in subject.over_time])
    axes.plot(times, values, color=COLOURS[0], lw=1.4, marker="o", ms=2.5, label="index (PSI)")
    top = max([report.psi_bound * 1.15, *(value for value in values if value == value)])  # noqa: PLR0124  NaN
    axes.axhline(report.psi_bound, color=INK, lw=0.8, ls=":", label=f"bound {report.psi_bound:g}")
    if subject.broken or any(abs((one.missing or 0) - subject.reference_missing) > 0.01 for one in subject.over_time):
        _, missing = _steps(subject.over_time, [one.missing for one in subject.over_time])
        axes.plot(times, missing, color=COLOURS[1], lw=1, label="share missing")
        top = max([top, *(value for value in missing if value == value)])  # noqa: PLR0124  NaN
    for number, place in enumerate(subject.alerts):
        _alert(axes, report, report.alerts[place], label="alert" if number == 0 else "")
    _period(axes, report)
    axes.set_ylim(0, 1.25 * top)
    axes.legend(frameon=False, loc="upper left", ncols=4)


def _alert(axes: Any, report: DriftReport, raised: Raised, label: str) -> None:
    """Shade the time in which an alert was open."""
    begin = max(raised.at_ms, report.since_ms)
    end = report.until_ms if raised.cleared_ms is None else min(raised.cleared_ms, report.until_ms)
    axes.axvspan(_time(begin), _time(max(end, begin + 1)), color=FRAUD, alpha=0.08, lw=0)
    axes.axvline(_time(begin), color=FRAUD, lw=1.2, label=label or None)


def _mix(axes: Any, report: DriftReport) -> None:
    times = [_time((one.start_ms + one.end_ms) // 2) for one in report.mix]
    totals = [sum(one.decisions.values()) for one in report.mix]
    for name, colour in (("review", COLOURS[1]), ("decline", FRAUD)):
        shares = [
            100 * one.decisions.get(name, 0) / total if total else np.nan
            for one, total in zip(report.mix, totals, strict=True)
        ]
        axes.plot(times, shares, color=colour, marker="o", ms=2.5, lw=1.3, label=name)
    marked = [one for one in report.alerts if one.signal == "decision_mix_drift" and not one.segment]
    for number, raised in enumerate(marked):
        _alert(axes, report, raised, label="alert" if number == 0 else "")
    _period(axes, report)
    axes.set(ylabel="% of decisions")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _rate(axes: Any, report: DriftReport) -> None:
    times = [_time((one.start_ms + one.end_ms) // 2) for one in report.mix]
    rates = [60_000 * sum(one.decisions.values()) / (one.end_ms - one.start_ms) for one in report.mix]
    axes.plot(times, rates, color=COLOURS[0], lw=1.3)
    for begin, end in report.coverage.silent_ms:
        axes.axvspan(_time(begin), _time(end), color=INK, alpha=0.08, lw=0)
    _period(axes, report)
    axes.set(ylabel="a minute (grey: no telemetry)")
    axes.set_ylim(bottom=0)


def _labels(axes: Any, report: DriftReport) -> None:
    times = [_time((one.start_ms + one.end_ms) // 2) for one in report.labels]
    axes.plot(times, [one.honest for one in report.labels], color=HONEST, lw=1.3, label="honest")
    axes.plot(times, [one.frauds for one in report.labels], color=FRAUD, lw=1.3, label="fraud")
    _period(axes, report)
    axes.set(ylabel="labels")
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _steps(moments: Sequence[Moment], values: Sequence[float | None]) -> tuple[list[Any], list[float]]:
    times = [_time((one.start_ms + one.end_ms) // 2) for one in moments]
    return times, [np.nan if value is None else value for value in values]


def _period(axes: Any, report: DriftReport) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - as in models.svg

    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlim(_time(report.since_ms), _time(report.until_ms))


def _time(at_ms: int) -> Any:
    return np.datetime64(at_ms, "ms")


def _number(value: float) -> str:
    """Write an edge as short as it can be read: 1.2k, 0.03."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"
