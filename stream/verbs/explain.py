"""`fraudstream explain`: why a transaction was decided as it was."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

from contextlib import ExitStack

import click

from stream.verbs.invocation import Invocation, example, passed


@click.command(
    epilog=example(
        "fraudstream explain t-1",
        "fraudstream explain t-1 --user u-1 --json",
        "fraudstream explain --partition 2 --offset 1841 --model var/models/3f0c9a",
    )
)
@click.argument("transaction_id", required=False)
@click.option("--partition", type=click.IntRange(0), metavar="P", help="Partition the transaction was read from.")
@click.option("--offset", type=click.IntRange(0), metavar="O", help="Offset the transaction was read from.")
@click.option("--user", metavar="USER_ID", help="Whose it is: only the partition of this user is searched.")
@click.option("--since", metavar="TIME", help="Skip what was decided before, such as 2026-01-05T00:00:00Z.")
@click.option(
    "--model",
    metavar="MODEL",
    help="The version that decided, its number or bundle's directory; chooses among repeats.  [default: the first's]",
)
@click.option("--json", "plain", is_flag=True, help="Print JSON instead of a table.")
@passed
def explain(
    invocation: Invocation,
    transaction_id: str | None,
    partition: int | None,
    offset: int | None,
    user: str | None,
    since: str | None,
    model: str | None,
    plain: bool,
) -> None:
    """Explain the decision on a transaction, however old, by the model that made it.

    Its features come from the feature log, and the score is computed again: unless it is the same to the bit, nothing
    is explained. Contributions are exact, in log-odds, and add up to the score.
    """
    import orjson

    from models.bundle import open_bundle
    from stream.decision_search import Wanted
    from stream.errors import UsageError
    from stream.explain import explain as explain_found
    from stream.explain import find_bundle, search
    from stream.explain_table import as_json, as_lines
    from stream.progress import Tell, counting
    from stream.times import BAD_TIME, TimeReader
    from stream.versions import named_bundle, version_places

    since_ms = None if since is None else TimeReader().one(since)
    if since_ms == BAD_TIME:
        raise UsageError(f"--since takes a time such as 2026-01-05T00:00:00Z, not {since}.")
    wanted = Wanted(transaction_id, partition, offset, user, since_ms)
    settings = invocation.real_broker("explain")
    given = open_bundle(named_bundle(model, settings)) if model else None
    with ExitStack() as bars:
        shown: dict[str, Tell] = {}

        def tell(what: str, done: int, total: int | None) -> None:
            if what not in shown:
                bars.close()
                shown[what] = bars.enter_context(counting(what, total))
            shown[what](done, total)

        every, row, currency = search(settings, wanted, tell, version=given.version if given else None)
    version = every[0].decided.model
    bundle = find_bundle(version, given, version_places(version, settings))
    explanation = explain_found(every, row, bundle, currency)
    if plain:
        click.echo(orjson.dumps(as_json(explanation), option=orjson.OPT_INDENT_2))
        return
    for line in as_lines(explanation):
        click.echo(line)
