"""`fraudstream top`: the live view."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import click

from stream.verbs.invocation import Number, example


@click.command(
    epilog=example("fraudstream top", "fraudstream top 10.0.0.5:9108 10.0.0.6:9108", "fraudstream top | tee speed.log")
)
@click.argument("workers", nargs=-1, metavar="[HOST:PORT]...")
@click.option("--url", "urls", multiple=True, help="The same as an argument; repeatable.  [default: 127.0.0.1:9108]")
@click.option("--interval", type=Number(0.1, 3600), metavar="N", default=1.0, show_default=True, help="Seconds.")
def top(workers: tuple[str, ...], urls: tuple[str, ...], interval: float) -> None:
    """Show speed, lag, latency and decisions of the workers, live.

    They are read from the workers' metrics. Where the output is no terminal it prints a line an interval. Ctrl-C ends
    it.
    """
    from rich.console import Console

    from stream.top import run_top

    run_top([*workers, *urls] or ["http://127.0.0.1:9108/metrics"], interval, Console())
