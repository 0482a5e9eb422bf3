"""`fraudstream worker`: the data plane."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import click

from stream.verbs.invocation import Invocation, example, passed


@click.command(
    epilog=example(
        "fraudstream --settings fraudstream.toml worker",
        "fraudstream worker --instance-id worker-3 --metrics-port 0",
    )
)
@click.option("--instance-id", metavar="NAME", help="A name of its own: its partitions wait for it while it restarts.")
@click.option(
    "--recovery",
    type=click.Choice(["refuse", "rebuild", "accept_partial"]),
    help="When history is missing: stop and say so, rebuild from the log, or go on without it.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Port of /metrics and health; 0 picks a free one.",
)
@passed
def worker(invocation: Invocation, instance_id: str | None, recovery: str | None, metrics_port: int | None) -> None:
    """Score transactions until stopped.

    Start as many workers as you like: they share the input's partitions. Ctrl-C or SIGTERM finishes the batch, commits,
    stores what is unwritten and leaves; a second signal ends at once. Logs are JSON lines on standard error; /metrics,
    /healthz and /readyz answer on metrics.address and metrics.port.
    """
    settings = invocation.real_broker(
        "worker",
        {"kafka.instance_id": instance_id, "store.recovery": recovery, "metrics.port": metrics_port},
    )
    from stream.service import run_worker

    if not run_worker(settings):
        raise click.exceptions.Exit(1)
