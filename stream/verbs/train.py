"""`fraudstream train`: a labelled history into a model bundle."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.verbs.invocation import LONGEST_DAYS, Invocation, Number, count, example, passed

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.train import Plan
    from state.features import FeatureSet
    from stream.labelled import Labelled
    from stream.settings import Settings


@click.command(
    epilog=example(
        "fraudstream train history.parquet --label TX_FRAUD -o var/models/first",
        "fraudstream train --from-log",
    )
)
@click.argument("history", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--from-log", is_flag=True, help="Learn from the topics features and labels instead of a file.")
@click.option("--label", metavar="COLUMN", help="Column of HISTORY that says 1 for fraud.  [default: is_fraud]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="Bundle to write.  [default: var/models/new-…, named after the time]",
)
@click.option(
    "--holdout-days",
    type=Number(0, LONGEST_DAYS, min_open=True),
    default=7.0,
    show_default=True,
    metavar="N",
    help="The last days, set apart for evaluation and gates.",
)
@click.option(
    "--label-delay-days",
    type=Number(0, LONGEST_DAYS),
    default=7.0,
    show_default=True,
    metavar="N",
    help="How long it takes to learn that a payment was fraud.",
)
@click.option(
    "--folds",
    type=click.IntRange(1, 50),
    default=3,
    show_default=True,
    metavar="N",
    help="Times the past is judged on its own future.",
)
@click.option(
    "--trials",
    type=click.IntRange(0, 1000),
    default=8,
    show_default=True,
    metavar="N",
    help="Random sets of parameters to try; 0: none but the defaults.",
)
@click.option(
    "--seed", type=click.IntRange(0, (1 << 31) - 1), default=1, show_default=True, metavar="N", help="Of all chance."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    metavar="N",
    help="Part of what makes two trainings equal.",
)
@click.option(
    "--review-rate",
    type=float,
    default=0.02,
    show_default=True,
    metavar="SHARE",
    help="Of transactions, reviewed or declined.",
)
@click.option(
    "--decline-rate", type=float, default=0.005, show_default=True, metavar="SHARE", help="Of transactions, declined."
)
@click.option(
    "--feature-set",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="TOML",
    help="Features to learn from.  [default: state.feature_set, or the set that ships with fraudstream]",
)
@click.option("--register", is_flag=True, help="Make it a version in the registry; see fraudstream models.")
@passed
def train(
    invocation: Invocation,
    history: Path | None,
    from_log: bool,
    label: str | None,
    output: Path | None,
    holdout_days: float,
    label_delay_days: float,
    feature_set: Path | None,
    register: bool,
    **plan: Any,
) -> None:
    """Train the ensemble on HISTORY, a file of labelled transactions (CSV, Parquet, JSON lines).

    The features are those the worker computes, by the same code. The last days are held out and written beside the
    bundle, for evaluation and gates; nothing younger than the label delay is learned from. Same data, options and
    versions give the same bundle, byte for byte.
    """
    if from_log == (history is not None):
        raise click.UsageError("Give a HISTORY file or --from-log, one of the two.")
    if from_log and label:
        raise click.UsageError("--label goes with a HISTORY file; the labels topic has is_fraud.")
    from models.folds import DAY_MS
    from models.train import Plan
    from stream.feature_sets import chosen_feature_set
    from stream.progress import counting
    from stream.training import check_target, train_bundle

    started = time.monotonic()
    made = Plan(holdout_ms=round(holdout_days * DAY_MS), label_delay_ms=round(label_delay_days * DAY_MS), **plan)
    overrides = {"state.feature_set": str(feature_set) if feature_set else None}
    settings = invocation.real_broker("train", overrides) if from_log else invocation.settings(overrides)
    features = chosen_feature_set(settings)
    directory = output or Path("var/models") / time.strftime("new-%Y%m%d-%H%M%S", time.gmtime())
    check_target(directory)
    if history is None:
        rows = _read_log(settings, features, made.label_delay_ms, directory)
    else:
        rows = _read_file(history, label or "is_fraud", settings, features, made, directory)
    with counting("training", made.steps) as progress:
        bundle = train_bundle(rows, directory, features, made, progress=progress)
    _report(bundle, rows, directory, time.monotonic() - started)
    if register:
        _register(directory, settings)


def _register(directory: Path, settings: "Settings") -> None:
    from stream.progress import waiting

    with waiting("opening the registry"):
        from stream.registry import register

        version = register(directory, None, settings.registry)
    click.echo(f"{version}: registered; fraudstream models promote {version} --approve NAME lets it score")


def _read_file(
    history: Path, label: str, settings: "Settings", features: "FeatureSet", plan: "Plan", directory: Path
) -> "Labelled":
    from dataclasses import replace
    from functools import partial

    from models.train import check_splits
    from stream.files import count_rows
    from stream.labelled import read_labelled
    from stream.lineage import file_hash
    from stream.progress import counting
    from stream.training import refused_path

    spec = settings.state_spec()
    spec.check(features)
    with counting(f"computing {len(features.names)} features", count_rows(history)) as progress:
        rows = read_labelled(
            history,
            label,
            settings.mapping(),
            settings.limits(),
            spec,
            features,
            now_ms=time.time_ns() // 1_000_000,
            refused_path=refused_path(directory),
            check=partial(check_splits, plan=plan),
            progress=progress,
        )
    return replace(rows, source={"file": history.name, "label": label, "sha256": file_hash(history)})


def _read_log(settings: "Settings", features: "FeatureSet", label_delay_ms: int, directory: Path) -> "Labelled":
    from stream.labelled_log import read_labelled_log
    from stream.progress import counting
    from stream.training import refused_path

    with counting("reading features and labels", None) as progress:
        return read_labelled_log(
            settings, features, label_delay_ms=label_delay_ms, refused_path=refused_path(directory), progress=progress
        )


def _report(bundle: "Bundle", rows: "Labelled", directory: Path, secs: float) -> None:
    from models.holdout import holdout_path
    from models.manifest import OUT_OF_FOLD
    from stream.training import refused_path

    found = bundle.metrics
    click.echo(
        f"{directory}: model {bundle.version}, {count(len(rows.labels), 'transaction')}, trained in {secs:.0f} s"
    )
    click.echo(
        f"{holdout_path(directory)}: the last days, {found['events']:,.0f} transactions, {found['frauds']:,.0f} frauds"
    )
    found = {name.removeprefix(OUT_OF_FOLD): value for name, value in found.items() if name.startswith(OUT_OF_FOLD)}
    click.echo(f"{'out of fold':<16}{'AUC ROC':>9}{'average precision':>20}")
    for name, key in (("ensemble", ""), ("XGBoost alone", "xgboost_"), ("LightGBM alone", "lightgbm_")):
        click.echo(f"{name:<16}{found[key + 'auc_roc']:>9.4f}{found[key + 'average_precision']:>20.4f}")
    for name, weight in (("XGBoost", bundle.meta.xgboost), ("LightGBM", bundle.meta.lightgbm)):
        if weight == 0.0:
            click.echo(f"{name} has no weight in the ensemble: out of fold it adds nothing to the other's ranking")
    for name in ("review", "decline"):
        threshold = getattr(bundle.thresholds, name)
        click.echo(
            f"{name} from {threshold:.4f} on: {found[name + '_rate']:.2%} of transactions, "
            f"{found[name + '_precision']:.1%} of them fraud, {found[name + '_recall']:.1%} of all fraud"
        )
    if rows.refused:
        why = ", ".join(f"{number:,} {name}" for name, number in rows.refused.most_common())
        kept = f"; see {refused_path(directory)}" if refused_path(directory).exists() else ""
        click.echo(f"{count(rows.refused.total(), 'row')} left out ({why}){kept}", err=True)
