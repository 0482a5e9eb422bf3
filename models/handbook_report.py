"""The Handbook's comparison as tables, plots and JSON."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from models.bootstrap import Estimate
from models.evaluation import ModelFigures
from models.evaluation_handbook import Comparison, Run
from models.report import JSON_FORMAT, render_json
from models.report_plots import COLOURS, draw_svg
from models.report_tables import Table, estimate, plain


def comparison_tables(comparison: Comparison, about: Mapping[str, Any]) -> list[Table]:
    """Return what was compared, each run's table, and their mean where there are several."""
    protocol = comparison.protocol
    rows = [[str(name), f"{value:,}" if isinstance(value, int) else str(value)] for name, value in about.items()]
    rows += [
        [
            "protocol",
            f"{protocol.train_days} days to learn, {protocol.delay_days} to wait, {protocol.test_days} judged",
        ],
        ["seed", str(comparison.seed)],
    ]
    note = f"Brackets: 95% intervals over {comparison.resamples} resamples of whole users."
    shown = [Table("Comparison by the Fraud Detection Handbook's protocol", ("", ""), rows, note)]
    shown += [_run(run, comparison.cards_a_day) for run in comparison.runs]
    return [*shown, _mean(comparison)] if len(comparison.runs) > 1 else shown


def comparison_plots(comparison: Comparison) -> dict[str, str]:
    """Return the SVG of each figure by its title, every model's interval in every run. Raises EvaluationError."""
    titles = _heads(comparison.cards_a_day)[1:]
    return {
        title: draw_svg(partial(_draw, comparison=comparison, column=column), title)
        for column, title in enumerate(titles)
    }


def _draw(axes: Any, comparison: Comparison, column: int) -> None:
    names = list(comparison.runs[0].models)
    for at, run in enumerate(comparison.runs):
        shift = 0.5 * ((at + 0.5) / len(comparison.runs) - 0.5)
        found = [_estimates(run.models[name])[column] for name in names]
        places = [len(names) - 1 - place - shift for place in range(len(names))]
        colour = COLOURS[at % len(COLOURS)]
        axes.hlines(places, [one.low for one in found], [one.high for one in found], color=colour, lw=1.2)
        axes.plot([one.value for one in found], places, "o", color=colour, ms=4, label=f"from {run.train_start}")
    axes.set_yticks(range(len(names)), names[::-1])
    axes.legend(frameon=False, fontsize=7)


def comparison_json(comparison: Comparison, about: Mapping[str, Any]) -> bytes:
    """Return the comparison as indented JSON: format, about, comparison."""
    return render_json({"format": JSON_FORMAT, "about": plain(about), "comparison": plain(comparison)})


def _heads(cards_a_day: int) -> Sequence[str]:
    return ("model", "AUC ROC", "average precision", f"card precision@{cards_a_day}")


def _run(run: Run, cards_a_day: int) -> Table:
    rows = [[name, *map(estimate, _estimates(found))] for name, found in run.models.items()]
    note = (
        f"Learned from {run.train_events:,} transactions ({run.train_frauds:,} frauds), judged on {run.test_events:,} "
        f"({run.test_frauds:,} frauds); {run.left_out:,} of cards known as compromised were left out."
    )
    return Table(f"Training from {run.train_start}", _heads(cards_a_day), rows, note)


def _mean(comparison: Comparison) -> Table:
    rows = []
    for name in comparison.runs[0].models:
        values = np.array([[one.value for one in _estimates(run.models[name])] for run in comparison.runs])
        spread = values.std(axis=0, ddof=1)
        rows.append([name, *(f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(values.mean(axis=0), spread, strict=True))])
    note = "Behind ±: the standard deviation between runs."
    return Table(f"Mean of {len(comparison.runs)} runs", _heads(comparison.cards_a_day), rows, note)


def _estimates(found: ModelFigures) -> tuple[Estimate, Estimate, Estimate]:
    return found.auc_roc, found.average_precision, found.card_precision
