"""An evaluation as tables: the same rows for the terminal and for the page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from models.bootstrap import Estimate
from models.evaluation import Evaluation, ThresholdFigures, first_and_last_day
from models.evaluation_segments import LEAST, UNKNOWN, Segment

NOTHING = "–"
TOO_FEW = f"fewer than {LEAST} frauds or honest"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, column heads and rows of texts, each row as long as the heads; a note may stand below."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(evaluation: Evaluation, about: Mapping[str, Any]) -> list[Table]:
    """Return the tables of an evaluation; about says what was evaluated, in the order it is to be shown."""
    return [
        _about(evaluation, about),
        _models(evaluation),
        _thresholds(evaluation),
        _cost(evaluation),
        _calibration(evaluation),
        *(_segments(name, found) for name, found in evaluation.segments.items()),
    ]


def estimate(found: Estimate | None, digits: int = 3, scale: float = 1.0, unit: str = "") -> str:
    """Write 0.912 [0.905, 0.919]; a dash where there is no figure."""
    if found is None or math.isnan(found.value):
        return NOTHING
    value, low, high = (f"{part * scale:,.{digits}f}" for part in (found.value, found.low, found.high))
    return f"{value}{unit}" if math.isnan(found.low) else f"{value}{unit} [{low}, {high}]"


def percent(found: Estimate | None, digits: int = 2) -> str:
    """Write 1.95 % [1.90, 2.01]."""
    return estimate(found, digits, 100.0, " %")


def as_text(shown: Sequence[Table]) -> str:
    """Return the tables for a terminal, columns aligned."""
    return "\n\n".join(_text(table) for table in shown)


def _text(table: Table) -> str:
    rows = [list(table.heads), *(list(row) for row in table.rows)] if any(table.heads) else list(map(list, table.rows))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([table.title, *(f"  {line}" for line in lines), *([f"  {table.note}"] if table.note else [])])


def _about(evaluation: Evaluation, about: Mapping[str, Any]) -> Table:
    first, last = first_and_last_day(evaluation)
    plan = evaluation.plan
    rows = [[str(name), f"{value:,}" if isinstance(value, int) else str(value)] for name, value in about.items()]
    rows += [
        ["transactions", f"{evaluation.events:,} of {evaluation.users:,} users, {first} to {last}"],
        ["frauds", f"{evaluation.frauds:,} ({evaluation.frauds / evaluation.events:.2%})"],
    ]
    note = (
        f"Brackets: {plan.level:.0%} intervals over {plan.resamples} resamples of whole users (seed {plan.seed}), for "
        "one user's payments are not independent."
    )
    return Table("Evaluation", ("", ""), rows, note)


def _models(evaluation: Evaluation) -> Table:
    plan = evaluation.plan
    cards = f"CP@{plan.cards_a_day}"
    rows = [
        [name, estimate(found.auc_roc), estimate(found.average_precision), estimate(found.card_precision)]
        for name, found in evaluation.models.items()
    ]
    bound = sum(min(day.compromised_cards, plan.cards_a_day) for day in evaluation.days)
    best = bound / (plan.cards_a_day * len(evaluation.days))
    left = "; cards found are left out of the days after" if plan.drop_detected else ""
    note = (
        f"{cards}: mean over days of the share of compromised cards among the {plan.cards_a_day} most suspicious{left}."
    )
    if not plan.drop_detected:
        note += f" None could be above {best:.3f}."
    return Table("Ranking", ("model", "AUC ROC", "average precision", cards), rows, note)


def _thresholds(evaluation: Evaluation) -> Table:
    heads = ("from", "score", "rate", "precision", "recall", "false positives", "fraud money caught")

    def row(name: str, at: ThresholdFigures) -> list[str]:
        figures = (at.rate, at.precision, at.recall, at.false_positive_rate, at.amount_recall)
        return [name, f"{at.threshold:.4f}", *map(percent, figures)]

    rows = [row("review", evaluation.review), row("decline", evaluation.decline)]
    return Table("Thresholds", heads, rows, "Review counts what is declined too.")


def _cost(evaluation: Evaluation) -> Table:
    cost, prices = evaluation.cost, evaluation.plan.prices
    shown = {
        "missed frauds": cost.missed_frauds,
        f"reviews, {prices.review:g} each": cost.reviews,
        f"wrongly declined, {prices.wrong_decline:g} each": cost.wrong_declines,
        "together": cost.total,
        "approving everything": cost.without_model,
    }
    thousands = evaluation.events / 1000
    rows = [[name, estimate(found, 0), estimate(found, 2, 1 / thousands)] for name, found in shown.items()]
    return Table("Cost in major units", ("", "all", "per 1,000 transactions"), rows)


def _calibration(evaluation: Evaluation) -> Table:
    found = evaluation.calibration
    rows = [
        ["Brier score", estimate(found.brier, 5), f"{found.brier_of_rate:.5f} for always saying the fraud rate"],
        ["slope", estimate(found.slope), "1 is right; below, scores are too extreme"],
        ["intercept", estimate(found.intercept), "0 is right; below, scores are too high"],
    ]
    return Table("Calibration", ("", "", ""), rows, "Slope and intercept in log-odds.")


def _segments(name: str, found: Sequence[Segment]) -> Table:
    if [one.name for one in found] == [UNKNOWN]:
        return Table(f"By {name}", ("",), [[f"No transaction says its {name}."]])
    heads = (name, "events", "frauds", "AUC ROC", "average precision", "reviewed", "recall", "false positives")
    rows = [
        [
            one.name,
            f"{one.events:,}",
            f"{one.frauds:,}",
            TOO_FEW if one.auc_roc is None else estimate(one.auc_roc),
            estimate(one.average_precision),
            *map(percent, (one.review_rate, one.recall, one.false_positive_rate)),
        ]
        for one in found
    ]
    return Table(f"By {name}", heads, rows, "At the review threshold.")


def plain(value: Any) -> Any:
    """Return dataclasses as maps and what is not finite as None, so that JSON can hold it."""
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
