"""`fraudstream models`: which versions there are, which one scores, and on whose word."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.verbs.invocation import Invocation, example, passed

if TYPE_CHECKING:
    from stream.promotion import Promotion

APPROVE = click.option("--approve", "by", metavar="NAME", help="Who says that this version may score; kept on record.")
UNJUDGED = click.option(
    "--accept-unjudged", is_flag=True, help="Answer for gates that could not be judged; kept on record."
)
CHALLENGER = click.option("--challenger", is_flag=True, help="Let it wait as challenger; workers do not follow it.")


class _Shown:
    """Prints a gate table once, above whatever sentence follows it."""

    def __call__(self, done: "Promotion") -> None:
        from stream.model_table import gate_table

        for line in gate_table(done.gates):
            click.echo(line)
        for note in done.notes:
            click.echo(f"Note: {note}")


@click.group(epilog=example("fraudstream models list", "fraudstream models promote 3f0c9a1b2c4d --approve Ada"))
def models() -> None:
    """Register, judge, promote and roll back model versions.

    The registry is MLflow's (registry.uri); bundles lie in registry.directory, whose champion.json workers follow.
    VERSION is a version's name or its number, as fraudstream models list shows them.
    """


@models.command(epilog=example("fraudstream models register var/model", "fraudstream models register b --holdout h"))
@click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE_DIR")
@click.option(
    "--holdout",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Last days, for the gates alone.  [default: BUNDLE_DIR.holdout.parquet]",
)
@passed
def register(invocation: Invocation, bundle: Path, holdout: Path | None) -> None:
    """Make a trained bundle a version; nothing scores with it yet."""
    from stream.progress import waiting

    settings = invocation.settings().registry
    with waiting("opening the registry"):
        from stream.registry import Registry
        from stream.registry import register as add

        version = Registry(settings).find(add(bundle, holdout, settings))
    click.echo(f"{version.name}: registered as number {version.number} of {settings.name}")
    if "holdout_sha256" not in version.tags:
        click.echo("Without a holdout it cannot be promoted: register it again with --holdout FILE.", err=True)


@models.command("list", epilog=example("fraudstream models list"))
@passed
def list_(invocation: Invocation) -> None:
    """List all versions, newest first."""
    from stream.progress import waiting

    settings = invocation.settings()
    with waiting("opening the registry"):
        from stream.model_table import version_table
        from stream.promotion import promoter

        office = promoter(settings)
        found = office.registry.versions()
        pointer = office.versions.pointer()
    if not found:
        click.echo(f"No version is registered in {settings.registry.uri}; see fraudstream models register --help")
        return
    for line in version_table(found):
        click.echo(line)
    named = next((one.name for one in found if "champion" in one.aliases), "")
    followed = pointer.version if pointer else ""
    if named != followed:
        click.echo(
            f"Workers follow {followed or 'no version'}, but the registry's champion is {named or 'none'}: promote the "
            f"right one again.",
            err=True,
        )


@models.command(epilog=example("fraudstream models show 3f0c9a1b2c4d"))
@click.argument("version")
@passed
def show(invocation: Invocation, version: str) -> None:
    """Show one version: lineage, metrics, gates, who approved."""
    from stream.progress import waiting

    settings = invocation.settings()
    with waiting("opening the registry"):
        from stream.model_table import details
        from stream.promotion import promoter

        office = promoter(settings)
        found = office.registry.find(version)
    for line in details(found, str(office.versions.path(found.name))):
        click.echo(line)


@models.command(epilog=example("fraudstream models promote 3f0c9a1b2c4d --approve Ada"))
@click.argument("version")
@APPROVE
@CHALLENGER
@UNJUDGED
@click.option(
    "--champion-holdout",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Same payments with the champion's features, where the version's feature set lacks them.",
)
@passed
def promote(
    invocation: Invocation,
    version: str,
    by: str | None,
    challenger: bool,
    accept_unjudged: bool,
    champion_holdout: Path | None,
) -> None:
    """Let a version score, if it passes every gate.

    Workers that follow registry.directory swap to it between two batches. Exit code 1 where a gate failed, with its
    figure and bound.
    """
    approved = _approved(by)
    done = _judged(
        invocation,
        lambda office, hooks: office.promote(
            version,
            approved,
            challenger=challenger,
            champion_holdout=champion_holdout,
            accept_unjudged=accept_unjudged,
            **hooks,
        ),
    )
    _tell(done, challenger)


@models.command(epilog=example("fraudstream models thresholds 2 --review 0.2 --decline 0.7 --approve Ada"))
@click.argument("version")
@click.option("--review", type=float, required=True, metavar="SCORE", help="Scores from here on go to review.")
@click.option("--decline", type=float, required=True, metavar="SCORE", help="Scores from here on are declined.")
@APPROVE
@CHALLENGER
@UNJUDGED
@passed
def thresholds(
    invocation: Invocation,
    version: str,
    review: float,
    decline: float,
    by: str | None,
    challenger: bool,
    accept_unjudged: bool,
) -> None:
    """Make a version with other thresholds, without training, and promote it through the gates."""
    approved = _approved(by)

    def change(office: Any, hooks: dict[str, Any]) -> "Promotion":
        from models.errors import ModelError
        from models.policy import Thresholds
        from stream.errors import UsageError

        try:
            wanted = Thresholds(review, decline)
        except ModelError as error:
            raise UsageError(str(error)) from error
        done: Promotion = office.change_thresholds(
            version, wanted, approved, challenger=challenger, accept_unjudged=accept_unjudged, **hooks
        )
        return done

    _tell(_judged(invocation, change), challenger)


@models.command(epilog=example("fraudstream models rollback --approve Ada"))
@APPROVE
@passed
def rollback(invocation: Invocation, by: str | None) -> None:
    """Put the champion before the present one back, at once and without gates."""
    from stream.progress import waiting

    approved = _approved(by)
    settings = invocation.settings()
    with waiting("opening the registry"):
        from stream.promotion import promoter

        done = promoter(settings).rollback(approved)
    for note in done.notes:
        click.echo(f"Note: {note}", err=True)
    click.echo(f"{done.version}: champion again, in place of {done.replaced}")


@models.command(epilog=example("fraudstream models compare 3f0c9a1b2c4d 77aa01c3e9f2"))
@click.argument("one")
@click.argument("other")
@passed
def compare(invocation: Invocation, one: str, other: str) -> None:
    """Show two versions' metrics and gate figures side by side."""
    from stream.progress import waiting

    settings = invocation.settings()
    with waiting("opening the registry"):
        from stream.model_table import compared
        from stream.registry import Registry

        registry = Registry(settings.registry)
        pair = registry.find(one), registry.find(other)
    for line in compared(*pair):
        click.echo(line)


def _approved(by: str | None) -> str:
    if by is None or not by.strip():
        raise click.UsageError("say who approves with --approve NAME; the name is kept with the version")
    return by.strip()


def _judged(invocation: Invocation, act: Any) -> "Promotion":
    from stream.progress import waiting

    settings = invocation.settings()
    with waiting("opening the registry") as tell:
        from stream.promotion import promoter

        done: Promotion = act(promoter(settings), {"show": _Shown(), "tell": lambda what: tell(f"judging: {what}")})
    return done


def _tell(done: "Promotion", challenger: bool) -> None:
    instead = f", in place of {done.replaced}" if done.replaced else ""
    click.echo(f"{done.version}: {'challenger' if challenger else f'champion{instead}'}")
