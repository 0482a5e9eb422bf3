"""`fraudstream monitor`: the watch."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import click

from stream.verbs.invocation import Invocation, example, passed


@click.command(
    epilog=example("fraudstream --settings fraudstream.toml monitor", "fraudstream monitor --port 0"),
)
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="Of /metrics and health; 0 picks a free one.")
@passed
def monitor(invocation: Invocation, port: int | None) -> None:
    """Watch drift and quality, and join labels, until stopped.

    Needs the topics of `fraudstream topics create` and the extra `monitor`. One monitor of a monitor.group is active, a
    second one waits. It reads back what it needs at each start, so it keeps nothing but the index of decisions
    (labels.index), which it can rebuild. Alerts go to the topic topics.alerts; logs are JSON lines on standard error;
    /metrics, /healthz and /readyz answer on monitor.address and monitor.port.
    """
    settings = invocation.real_broker("monitor", {"monitor.port": port})
    try:
        from stream.monitor_service import run_monitor
    except ModuleNotFoundError as error:
        from stream.errors import UsageError

        raise UsageError(
            f"The monitor needs the package {error.name}: install it with pip install 'fraudstream[monitor]'."
        ) from error
    if not run_monitor(settings):
        raise click.exceptions.Exit(1)
