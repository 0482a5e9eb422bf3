"""`fraudstream rekey`: a topic that is not keyed by user into one that is."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

import click

from stream.verbs.invocation import Invocation, count, example, passed

if TYPE_CHECKING:
    from stream.rekey import Copied


@click.command(epilog=example("fraudstream rekey payments payments.by-user", "fraudstream rekey payments -f"))
@click.argument("source")
@click.argument("target", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is published later, until stopped.")
@passed
def rekey(invocation: Invocation, source: str, target: str | None, *, follow: bool) -> None:
    """Copy the topic SOURCE into TARGET, keyed by user, exactly once.

    TARGET is topics.transactions unless named. The user is found by codec.fields; a record that names none goes to
    topics.dead_letters. May be stopped and started again at any time: it goes on where it was.
    """
    from stream.progress import counting
    from stream.rekey import rekey as copy
    from stream.settings import Settings

    settings: Settings = invocation.real_broker("rekey")
    target = target or settings.topics.transactions
    stopped = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, signal.SIG_DFL)  # the second one ends at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with counting(f"copying {source} to {target}", None) as progress:

        def tell(so_far: "Copied") -> None:
            progress(so_far.copied + so_far.dead, None if follow else so_far.total)

        copied = copy(settings, source, target, follow=follow, stop=stopped.is_set, progress=tell)
    if copied.warning:
        click.echo(f"WARN  {copied.warning}", err=True)
    dead = f", {count(copied.dead, 'dead letter')} to {settings.topics.dead_letters}" if copied.dead else ""
    click.echo(f"Copied {count(copied.copied, 'record')} from {source} to {target}{dead}.")
    if stopped.is_set() and not follow:
        click.echo("Stopped before the end; start it again to go on.", err=True)
        raise click.exceptions.Exit(1)
