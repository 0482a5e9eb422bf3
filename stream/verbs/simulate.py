"""`fraudstream simulate`: cardholders and thieves, to a file or a topic."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from stream.verbs.invocation import Invocation, count, example, passed
from stream.verbs.publish import send

if TYPE_CHECKING:
    from stream.publish import Row


# After the mark \b click leaves lines as they are.
DRIFTS: Final = """\b
Kinds of drift, and their usual strength:
  inflation   1.5   amounts times as high
  trend       1.25  amounts grow by this factor each week
  countries   0.25  share of payments that move to rare countries
  fraud       0.01  share of payments that become a fraud no model has seen
  no-device   1     share of payments that lose device_id
  no-country  1     share of payments that lose country
"""


@click.command(
    epilog="\n".join(
        [
            DRIFTS,
            example(
                "fraudstream simulate -o history.parquet --events 200000 --days 60",
                "fraudstream simulate --topic transactions --rate 500",
                "fraudstream simulate -o drifted.parquet --drift inflation:1.5@20",
            ),
        ]
    )
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A .jsonl, .csv or .parquet.")
@click.option("--topic", help="Publish to this topic instead.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="With --topic: transactions a second."
)
@click.option("--events", type=click.IntRange(1), metavar="N", default=100_000, show_default=True, help="Payments.")
@click.option("--users", type=click.IntRange(1), metavar="N", default=1_000, show_default=True, help="Cardholders.")
@click.option("--merchants", type=click.IntRange(1), metavar="N", default=500, show_default=True, help="Merchants.")
@click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    default=30.0,
    show_default=True,
    help="Time covered.",
)
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    default="2024-01-01",
    show_default=True,
    help="First day.",
)
@click.option(
    "--fraud-rate", type=click.FloatRange(0, 0.5), metavar="N", default=0.01, show_default=True, help="Share of frauds."
)
@click.option(
    "--zipf", type=click.FloatRange(0), metavar="N", default=0.0, show_default=True, help="Exponent of users' activity."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    default=1,
    show_default=True,
    help="The same seed, the same payments.",
)
@click.option(
    "--weekend",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    default=1.0,
    show_default=True,
    help="Payments of a Saturday or Sunday, times those of another day; such days are a tenth dearer, too.",
)
@click.option(
    "--drift",
    "drifts",
    multiple=True,
    metavar="KIND[:STRENGTH][@DAY]",
    help="Something that changes from that day on (without @DAY: from the middle on); repeatable.",
)
@click.option(
    "--labels",
    "label_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what `fraudstream label --file` takes: who was a fraud, and when that becomes known.",
)
@passed
def simulate(
    invocation: Invocation,
    output: Path | None,
    topic: str | None,
    rate: float | None,
    start: datetime,
    drifts: tuple[str, ...],
    label_file: Path | None,
    **size: Any,
) -> None:
    """Simulate cardholders, merchants and several kinds of fraud.

    A file holds the labels too (is_fraud, fraud_pattern); a topic gets the transactions alone.
    """
    if (output is None) == (topic is None):
        raise click.UsageError("Give --output or --topic, one of the two.")
    if rate and topic is None:
        raise click.UsageError("--rate goes with --topic.")
    from stream.simulate import Simulation
    from stream.simulate import simulate as draw
    from stream.simulated_drift import read_drift

    start_ms = int(start.replace(tzinfo=UTC).timestamp() * 1000)
    simulation = Simulation(start_ms=start_ms, drifts=tuple(map(read_drift, drifts)), **size)
    if output is not None:
        table = draw(simulation)
        _to_file(table, output)
        _labels(table, label_file, simulation.seed)
        return
    from stream.publish import as_fast_as_possible, at_rate

    settings = invocation.real_broker("simulate --topic")
    pacing = at_rate(rate) if rate else as_fast_as_possible
    table = draw(simulation)
    _labels(table, label_file, simulation.seed)
    send(_rows(table), table.num_rows, settings, str(topic), pacing)


def _to_file(table: Any, output: Path) -> None:
    from stream.progress import counting
    from stream.simulation_file import write_simulation

    with counting(f"writing {output.name}", table.num_rows) as progress:
        write_simulation(table, output, progress)
    frauds = table.column("is_fraud").to_numpy().sum()
    click.echo(f"{output}: {count(table.num_rows, 'transaction')}, {count(int(frauds), 'fraud')}")


def _labels(table: Any, path: Path | None, seed: int) -> None:
    from stream.simulated_labels import simulated_labels
    from stream.simulation_file import write_simulation

    if path is not None:
        labels = simulated_labels(table, seed)
        write_simulation(labels, path)
        frauds = int(labels.column("is_fraud").to_numpy().sum())
        click.echo(f"{path}: {count(labels.num_rows, 'label')}, {count(frauds, 'fraud')}")


def _rows(table: Any) -> "Iterator[Row]":
    from stream.publish import Row
    from stream.simulate import transactions

    for rows in transactions(table):
        for key, value in rows:
            yield Row(key, value)
