"""`fraudstream label`: what a payment turned out to be."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from stream.verbs.invocation import Invocation, count, example, passed

if TYPE_CHECKING:
    from stream.publish import Row
    from stream.settings import Settings

#: How far two machines' clocks, or an analyst's idea of the time zone, may differ.
AHEAD_MS: Final = 86_400_000


@click.command(
    epilog=example(
        "fraudstream label t-1 --fraud",
        "fraudstream label t-1 --honest --user u-1",
        "fraudstream label --file chargebacks.csv --is-fraud-column disputed",
    )
)
@click.argument("transaction_id", required=False)
@click.option("--fraud/--honest", "is_fraud", default=None, help="What it turned out to be.")
@click.option("--user", metavar="USER_ID", help="Whose it is.  [default: looked up in the decisions]")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Many labels: CSV, Parquet or JSON lines.",
)
@click.option(
    "--time", "at", metavar="TIME", help="When it became known, such as 2026-01-05T10:00:00Z.  [default: now]"
)
@click.option("--transaction-id-column", default="transaction_id", metavar="NAME", help="The file's name for it.")
@click.option("--user-id-column", default="user_id", metavar="NAME", help="The file's name for it.")
@click.option("--is-fraud-column", default="is_fraud", metavar="NAME", help="The file's name for it.")
@click.option("--label-time-column", default="label_time", metavar="NAME", help="The file's name for it, if any.")
@passed
def label(
    invocation: Invocation,
    transaction_id: str | None,
    is_fraud: bool | None,
    user: str | None,
    file: Path | None,
    at: str | None,
    transaction_id_column: str,
    user_id_column: str,
    is_fraud_column: str,
    label_time_column: str,
) -> None:
    """Say what the payment TRANSACTION_ID turned out to be, or what all payments of a file did.

    The labels go to topics.labels, keyed by user as Java's producer keys. The monitor joins them with the decisions,
    and quality is computed from both; `train --from-log` learns from them. A row of the file that is no label goes,
    with the reason, to FILE.refused.jsonl.
    """
    if (file is None) == (transaction_id is None):
        raise click.UsageError("Give a transaction id, or --file.")
    settings = invocation.real_broker("label")
    now_ms = _time_ms(at)
    if file is not None:
        if is_fraud is not None or user is not None:
            raise click.UsageError("--fraud, --honest and --user are for one transaction; a file has columns for them.")
        from stream.label_file import LabelColumns

        columns = LabelColumns(transaction_id_column, user_id_column, is_fraud_column, label_time_column)
        _publish_file(settings, file, columns, now_ms)
        return
    assert transaction_id is not None
    if is_fraud is None:
        raise click.UsageError("What did it turn out to be? Give --fraud or --honest.")
    from stream.label_file import as_row

    user = user or _user_of(settings, transaction_id)
    _publish(settings, [as_row(transaction_id, user, is_fraud, now_ms)])
    click.echo(f"Labelled {transaction_id} of {user} as {'fraud' if is_fraud else 'honest'}.")


def _time_ms(at: str | None) -> int:
    from stream.errors import UsageError
    from stream.times import BAD_TIME, TimeReader

    now_ms = time.time_ns() // 1_000_000
    if at is None:
        return now_ms
    found = TimeReader().one(at)
    if found == BAD_TIME or found < 0:
        raise UsageError(f"--time takes a time such as 2026-01-05T10:00:00Z, not {at}.")
    if found > now_ms + AHEAD_MS:
        raise UsageError(f"--time says when it became known, and {at} is yet to come.")
    return found


def _user_of(settings: "Settings", transaction_id: str) -> str:
    """Return whose payment it is, as its decision says."""
    from stream.decision_search import Wanted, find_decisions
    from stream.errors import UsageError
    from stream.progress import counting
    from stream.topic_scan import TopicScan, scan_config

    topic = settings.topics.decisions
    with counting(f"searching {topic}", None) as tell, TopicScan(scan_config(settings)) as scan:
        found = find_decisions(scan, topic, Wanted(transaction_id), tell)
    users = sorted({one.decided.user_id for one in found})
    if not users:
        raise UsageError(f"No decision on {transaction_id} is in the topic {topic}: say whose it is with --user.")
    if len(users) > 1:
        raise UsageError(f"Several users have a payment {transaction_id} ({', '.join(users)}): say whose with --user.")
    return users[0]


def _publish_file(settings: "Settings", file: Path, columns: Any, now_ms: int) -> None:
    import orjson

    from stream.label_file import read_labels

    path = file.with_name(f"{file.name}.refused.jsonl")
    path.unlink(missing_ok=True)
    refused: list[IO[bytes]] = []
    number = 0

    def refuse(row: int, why: str, values: Mapping[str, Any]) -> None:
        nonlocal number
        if not refused:
            refused.append(path.open("wb"))
        number += 1
        refused[0].write(orjson.dumps({"row": row, "message": why, "value": dict(values)}) + b"\n")

    try:
        published = _publish(settings, read_labels(file, columns, now_ms, refuse))
    finally:
        for opened in refused:
            opened.close()
    click.echo(f"Published {count(published, 'label')} to {settings.topics.labels}.")
    if number:
        click.echo(f"WARN  {count(number, 'row')} {'is' if number == 1 else 'are'} no label: see {path}.", err=True)


def _publish(settings: "Settings", rows: "Iterable[Row]") -> int:
    from confluent_kafka import Producer

    from stream.clients import publisher_config
    from stream.errors import FraudstreamError
    from stream.progress import counting
    from stream.publish import publish

    topic = settings.topics.labels
    with counting(f"publishing to {topic}", None) as progress:
        published = publish(rows, Producer(publisher_config(settings)), topic, progress=lambda n: progress(n, None))
    if published.failed:
        why = ", ".join(f"{number:,} {name}" for name, number in published.reasons.most_common())
        raise FraudstreamError(f"{count(published.failed, 'label')} could not be published ({why}).")
    return published.count
