"""`fraudstream evaluate`: how good a model is on labelled transactions, and the Handbook's comparison."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.verbs.invocation import Invocation, Number, example, passed

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.evaluation import Plan
    from stream.labelled import Period


@click.command(
    epilog=example(
        "fraudstream evaluate var/models/3f0c9a71 june.parquet -o report/",
        "fraudstream evaluate bundle history.csv --from 2018-06-01 --json june.json",
        "fraudstream evaluate --protocol handbook --train-start 2018-06-01 june.csv",
    )
)
@click.argument("files", nargs=-1, required=True, metavar="MODEL DATA")
@click.option(
    "--label", metavar="COLUMN", default="is_fraud", show_default=True, help="Column that says 1 for a fraud."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A .html page, or a folder for page and JSON.",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="All figures."
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "forest", "onnx", "gpu"]),
    help="What scores.  [default: model.engine]",
)
@click.option("--review-cost", type=Number(0), metavar="N", default=3.0, show_default=True, help="Price of one review.")
@click.option(
    "--decline-cost",
    type=Number(0),
    metavar="N",
    default=20.0,
    show_default=True,
    help="Price of declining one honest payment.",
)
@click.option(
    "--amount-bands", metavar="N,N,…", default="10,50,100,500", show_default=True, help="Edges of the amounts' bands."
)
@click.option(
    "--cards", type=click.IntRange(1), metavar="K", default=100, show_default=True, help="Cards looked at in a day."
)
@click.option(
    "--from",
    "first_day",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="First day judged, UTC; the days before fill windows.",
)
@click.option("--until", "last_day", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="Last day judged, UTC.")
@click.option("--drop-detected", is_flag=True, help="Leave a card out of the days after it was found among the K.")
@click.option(
    "--resamples", type=click.IntRange(2), metavar="N", default=200, show_default=True, help="Draws of an interval."
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", default=1, show_default=True, help="Of draws and training."
)
@click.option("--protocol", type=click.Choice(["handbook"]), help="Train and compare models on DATA alone.")
@click.option(
    "--train-start",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    multiple=True,
    help="With --protocol: first training day; repeatable.",
)
@passed
def evaluate(invocation: Invocation, files: tuple[str, ...], protocol: str | None, **options: Any) -> None:
    """Say how good MODEL is on the labelled transactions in DATA.

    MODEL is a bundle's folder, or the name or number of a version of the registry; DATA a CSV, Parquet or JSON-lines
    file. Every figure comes with its 95 % interval: ranking, the thresholds and what they cost, calibration, and the
    same by country, channel and amount.

    With --protocol handbook, DATA alone is given: the default ensemble, its base models, a random forest and a logistic
    regression learn from 7 days, wait 7 days for labels, and are compared on the 7 days after them, as in the Fraud
    Detection Handbook.
    """
    wanted = 1 if protocol else 2
    if len(files) != wanted:
        raise click.UsageError(
            "With --protocol give DATA alone: it trains models of its own." if protocol else "Give MODEL and DATA."
        )
    if protocol and (options["first_day"] or options["last_day"]):
        raise click.UsageError("--protocol chooses the days itself: leave out --from and --until.")
    if bool(options["train_start"]) != bool(protocol):
        raise click.UsageError("--protocol handbook and --train-start DATE go together.")
    data = Path(files[-1])
    if not data.is_file():
        raise click.UsageError(f"File '{data}' does not exist.")
    if protocol:
        _compare(invocation, data, options)
    else:
        _evaluate(invocation, files[0], data, options)


def _evaluate(invocation: Invocation, model: str, data: Path, options: dict[str, Any]) -> None:
    from models.evaluation import Plan
    from models.evaluation_policy import Prices
    from models.report import report_html, report_json
    from models.report_plots import plots
    from models.report_tables import as_text, tables
    from stream.evaluation import evaluate_file
    from stream.files import count_rows
    from stream.progress import counting
    from stream.report_files import ReportFiles
    from stream.scoring import engine_of_models
    from stream.versions import named_bundle

    files = ReportFiles(options["output"], options["json_file"], data)
    bands, period = _bands(options["amount_bands"]), _period(options["first_day"], options["last_day"])
    settings = invocation.settings({"model.engine": options["engine"]})

    def plan(bundle: "Bundle") -> "Plan":
        return Plan(
            bundle.thresholds,
            Prices(options["review_cost"], options["decline_cost"]),
            options["cards"],
            options["drop_detected"],
            options["seed"],
            options["resamples"],
        )

    found = evaluate_file(
        settings,
        named_bundle(model, settings),
        data,
        options["label"],
        plan,
        now_ms=time.time_ns() // 1_000_000,
        rows=count_rows(data),
        progress=counting,
        engine=engine_of_models(settings),
        period=period,
        bands=bands,
    )
    click.echo(as_text(tables(found.evaluation, found.about)) + "\n")
    files.write(
        lambda: report_html(found.evaluation, found.about, plots(found.evaluation)),
        lambda: report_json(found.evaluation, found.about),
        lambda path: click.echo(str(path)),
    )


def _compare(invocation: Invocation, data: Path, options: dict[str, Any]) -> None:
    from models.handbook_report import comparison_json, comparison_plots, comparison_tables
    from models.report import page
    from models.report_tables import as_text
    from stream.comparison import compare_file
    from stream.files import count_rows
    from stream.progress import counting
    from stream.report_files import ReportFiles

    files = ReportFiles(options["output"], options["json_file"], data)
    starts: list[datetime] = sorted(set(options["train_start"]))
    found = compare_file(
        invocation.settings(),
        data,
        options["label"],
        [start.strftime("%Y-%m-%d") for start in starts],
        now_ms=time.time_ns() // 1_000_000,
        rows=count_rows(data),
        progress=counting,
        cards_a_day=options["cards"],
        seed=options["seed"],
        resamples=options["resamples"],
    )
    shown = comparison_tables(found.comparison, found.about)
    click.echo(as_text(shown) + "\n")
    files.write(
        lambda: page("Comparison by the Handbook's protocol", shown, comparison_plots(found.comparison)),
        lambda: comparison_json(found.comparison, found.about),
        lambda path: click.echo(str(path)),
    )


def _period(first_day: datetime | None, last_day: datetime | None) -> "Period":
    from models.folds import DAY_MS
    from stream.labelled import ALWAYS, Period

    begins = ALWAYS.from_ms if first_day is None else _ms(first_day)
    ends = ALWAYS.until_ms if last_day is None else _ms(last_day) + DAY_MS
    if ends <= begins:
        raise click.UsageError("--until must not lie before --from.")
    return Period(begins, ends)


def _ms(day: datetime) -> int:
    return int(day.replace(tzinfo=UTC).timestamp() * 1000)


def _bands(text: str) -> list[float]:
    """Read 10,50,100."""
    try:
        edges = [float(part) for part in text.split(",")]
    except ValueError:
        edges = []
    if not edges or not all(low < high for low, high in zip([0.0, *edges], [*edges, float("inf")], strict=True)):
        raise click.UsageError(f"--amount-bands takes rising amounts above 0, such as 10,50,100, not {text}")
    return edges
