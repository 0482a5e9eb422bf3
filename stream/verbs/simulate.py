"""`fraudstream simulate`: cardholders and thieves, to a file or a topic."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.verbs.invocation import Invocation, count, example, passed
from stream.verbs.publish import send

if TYPE_CHECKING:
    from stream.publish import Row


@click.command(
    epilog=example(
        "fraudstream simulate -o history.parquet --events 200000 --users 5000",
        "fraudstream simulate --topic transactions --rate 500",
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
@passed
def simulate(
    invocation: Invocation, output: Path | None, topic: str | None, rate: float | None, start: datetime, **size: Any
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

    start_ms = int(start.replace(tzinfo=UTC).timestamp() * 1000)
    simulation = Simulation(start_ms=start_ms, **size)
    if output is not None:
        _to_file(draw(simulation), output)
        return
    from stream.publish import as_fast_as_possible, at_rate

    settings = invocation.real_broker("simulate --topic")
    pacing = at_rate(rate) if rate else as_fast_as_possible
    table = draw(simulation)
    send(_rows(table), table.num_rows, settings, str(topic), pacing)


def _to_file(table: Any, output: Path) -> None:
    from stream.progress import counting
    from stream.simulation_file import write_simulation

    with counting(f"writing {output.name}", table.num_rows) as progress:
        write_simulation(table, output, progress)
    frauds = table.column("is_fraud").to_numpy().sum()
    click.echo(f"{output}: {count(table.num_rows, 'transaction')}, {count(int(frauds), 'fraud')}")


def _rows(table: Any) -> "Iterator[Row]":
    from stream.publish import Row
    from stream.simulate import transactions

    for rows in transactions(table):
        for key, value in rows:
            yield Row(key, value)
