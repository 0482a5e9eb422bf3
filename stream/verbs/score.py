"""`fraudstream score`: a file's transactions scored offline, as the worker would."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import time
from pathlib import Path

import click

from stream.verbs.invocation import Invocation, count, example, passed


@click.command(epilog=example("fraudstream score payments.csv --model var/models/first -o scores.parquet"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--model",
    metavar="MODEL",
    help="A bundle's directory, or a version's name or number.  [default: the one that workers take now]",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PARQUET",
    help="File to write: one row for each transaction.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "forest", "onnx", "gpu"]),
    help="What computes scores.  [default: model.engine]",
)
@passed
def score(invocation: Invocation, file: Path, model: str | None, output: Path, engine: str | None) -> None:
    """Score a FILE of transactions with a model, without Kafka.

    Scores equal the worker's bit for bit under the same engine, for the same code computes them from the same rows in
    the same order. Rows that are no transactions go, with the reason, to a .refused.jsonl file beside the output.
    """
    from models.ensemble import load_engine
    from stream.files import count_rows
    from stream.progress import counting
    from stream.score import score_file
    from stream.scoring import engine_of_models, open_model
    from stream.versions import current_bundle, named_bundle

    settings = invocation.settings({"model.engine": engine})
    bundle, feature_set = open_model(named_bundle(model, settings) if model else current_bundle(settings))
    loaded = load_engine(bundle, engine_of_models(settings))
    spec = settings.state_spec()
    spec.check(feature_set)
    with counting("scoring", count_rows(file)) as progress:
        done = score_file(
            file,
            output,
            settings.mapping(),
            settings.limits(),
            spec,
            feature_set,
            loaded,
            bundle.thresholds,
            bundle.version,
            now_ms=time.time_ns() // 1_000_000,
            progress=progress,
        )
    click.echo(f"{output}: {count(done.rows, 'transaction')} scored by {bundle.version} on the engine {loaded.name}")
    if done.refused:
        why = ", ".join(f"{number:,} {name}" for name, number in done.refused.most_common())
        click.echo(f"{done.refused_path}: {count(done.refused.total(), 'row')} refused ({why})", err=True)
