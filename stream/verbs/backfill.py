"""`fraudstream backfill`: a file's features, computed by the stream's own code."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import time
from pathlib import Path

import click

from stream.verbs.invocation import Invocation, count, example, passed


@click.command(epilog=example("fraudstream backfill payments.csv -o features.parquet --keep is_fraud"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PARQUET",
    help="File to write: one row for each transaction.",
)
@click.option("--keep", multiple=True, metavar="COLUMN", help="Column of FILE to copy, such as a label; repeatable.")
@click.option(
    "--feature-set",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="TOML",
    help="Features to compute.  [default: state.feature_set, or the set that ships with fraudstream]",
)
@passed
def backfill(invocation: Invocation, file: Path, output: Path, keep: tuple[str, ...], feature_set: Path | None) -> None:
    """Compute the features of a FILE of transactions, without Kafka.

    They equal the worker's bit for bit, for the same code computes them: what a model is trained on. Rows that are no
    transactions go, with the reason, to a .refused.jsonl file beside the output.
    """
    from stream.backfill import backfill as compute
    from stream.feature_sets import chosen_feature_set
    from stream.files import count_rows
    from stream.progress import counting

    settings = invocation.settings({"state.feature_set": str(feature_set) if feature_set else None})
    features = chosen_feature_set(settings)
    spec = settings.state_spec()
    spec.check(features)
    with counting(f"computing {len(features.names)} features", count_rows(file)) as progress:
        done = compute(
            file,
            output,
            settings.mapping(),
            settings.limits(),
            spec,
            features,
            now_ms=time.time_ns() // 1_000_000,
            keep=keep,
            progress=progress,
        )
    unusual = ", ".join(f"{number:,} {name}" for name, number in done.flags.items() if number)
    flags = f" ({unusual})" if unusual else ""
    click.echo(f"{output}: {count(done.rows, 'transaction')}{flags}, {len(features.names)} features of {features.name}")
    if done.refused:
        why = ", ".join(f"{number:,} {name}" for name, number in done.refused.most_common())
        click.echo(f"{done.refused_path}: {count(done.refused.total(), 'row')} refused ({why})", err=True)
