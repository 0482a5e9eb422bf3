"""`fraudstream publish`: a file onto the input topic."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.verbs.invocation import Invocation, count, example, passed

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from stream.publish import Pacing, Published, Row
    from stream.settings import Settings


@click.command(
    epilog=example(
        "fraudstream publish payments.csv --rate 500",
        "fraudstream publish payments.parquet --speed 3600   # an hour a second",
    )
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--topic", help="Topic to publish to.  [default: topics.transactions]")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Transactions a second.  [default: no limit]"
)
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), metavar="N", help="Event time times this, instead of a rate."
)
@passed
def publish(invocation: Invocation, file: Path, topic: str | None, rate: float | None, speed: float | None) -> None:
    """Publish a FILE of transactions (CSV, Parquet, JSON lines).

    Each row becomes one JSON record under your own field names, keyed by its user as Java's producer keys, stamped
    with the time it is sent. codec.fields in the settings says which of your columns is what.
    """
    if rate and speed:
        raise click.UsageError("Give --rate or --speed, not both.")
    from stream.files import count_rows
    from stream.publish import as_fast_as_possible, at_event_time, at_rate

    settings = invocation.real_broker("publish")
    pacing: Pacing = as_fast_as_possible
    if rate:
        pacing = at_rate(rate)
    elif speed:
        pacing = at_event_time(speed)
    rows = _rows(file, settings, dated=speed is not None)
    send(rows, count_rows(file), settings, topic or settings.topics.transactions, pacing)


def send(rows: "Iterable[Row]", total: int | None, settings: "Settings", topic: str, pacing: "Pacing") -> None:
    """Publish rows with a progress bar, and say what came of it. total: how many rows, None where not known."""
    from confluent_kafka import Producer

    from stream.clients import publisher_config
    from stream.interrupts import keeping_interrupts
    from stream.progress import counting
    from stream.publish import publish

    producer = Producer(publisher_config(settings))
    taken = _Taken(rows)
    started = time.monotonic()
    try:
        with keeping_interrupts(), counting(f"publishing to {topic}", total) as progress:
            published = publish(taken, producer, topic, pacing, progress=progress)
    except KeyboardInterrupt:
        _interrupted(producer, taken.count, topic)
    _report(published, topic, time.monotonic() - started)


class _Taken:
    """Counts the rows that were taken."""

    def __init__(self, rows: "Iterable[Row]") -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> "Iterator[Row]":
        for row in self._rows:
            self.count += 1
            yield row


def _rows(file: Path, settings: "Settings", *, dated: bool) -> "Iterator[Row]":
    from stream.file_traffic import dated_rows, undated_rows

    if dated:
        return dated_rows(file, settings.mapping(), settings.limits(), time.time_ns() // 1_000_000)
    return undated_rows(file, settings.mapping())


def _interrupted(producer: "Producer", taken: int, topic: str) -> None:
    from stream.errors import FraudstreamError

    left = producer.flush(10)
    raise FraudstreamError(
        f"Interrupted after {count(taken, 'transaction')} for {topic}, {left or 'none'} of them not acknowledged."
    )


def _report(published: "Published", topic: str, secs: float) -> None:
    from stream.errors import FraudstreamError

    speed = f"{published.count / secs:,.0f} a second" if secs else "at once"
    click.echo(f"Published {count(published.count, 'transaction')} to {topic} in {secs:.1f} s ({speed}).")
    if published.failed:
        why = ", ".join(f"{number:,} {name}" for name, number in published.reasons.most_common())
        raise FraudstreamError(f"{count(published.failed, 'transaction')} could not be published ({why}).")
