"""`fraudstream demo`: the whole line on this machine alone."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import click

from stream.verbs.invocation import example


@click.command(epilog=example("fraudstream demo", "fraudstream demo --seconds 60 --rate 1500 --seed 3"))
@click.option(
    "--seconds", type=click.IntRange(1, 3600), metavar="N", default=30, show_default=True, help="How long to publish."
)
@click.option(
    "--rate", type=click.IntRange(10, 2000), metavar="N", default=500, show_default=True, help="Transactions a second."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    default=1,
    show_default=True,
    help="Other cardholders, another model.",
)
def demo(seconds: int, rate: int, seed: int) -> None:
    """Try everything at once: nothing but this program is needed.

    Trains a small model on simulated cardholders (kept under var/ for the next time), starts a broker inside this
    process, publishes the payments of other cardholders, scores them and shows the live view; ends with a summary.
    Reads no settings. Ctrl-C ends it early.
    """
    from stream.demo import run_demo

    run_demo(seconds, rate, seed)
