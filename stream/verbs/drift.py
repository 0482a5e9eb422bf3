"""`fraudstream drift`: what changed in the traffic since the models were trained."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import time
from contextlib import ExitStack
from pathlib import Path

import click

from stream.verbs.invocation import Invocation, example, passed


@click.group(epilog=example("fraudstream drift report --since 24h -o report.html"))
def drift() -> None:
    """What changed in the traffic since the models were trained."""


@drift.command(
    epilog=example(
        "fraudstream drift report -o report.html",
        "fraudstream drift report --since 7d --json drift.json",
        "fraudstream drift report --since 2026-01-05T00:00:00Z -o week.html",
    )
)
@click.option(
    "--since",
    metavar="WHEN",
    default="24h",
    show_default=True,
    help="Where the period begins: so long before its end (30m, 24h, 7d), or a time such as 2026-01-05T00:00:00Z.",
)
@click.option("--until", metavar="WHEN", help="Where it ends: so long ago, or a time.  [default: now]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PATH", help="A .html page, or a folder.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="All figures."
)
@passed
def report(invocation: Invocation, since: str, until: str | None, output: Path | None, json_file: Path | None) -> None:
    """Compare a period's traffic with what its models were trained on.

    From the telemetry that workers write, the labels that came and the alerts of the monitor: what drifted first, then
    every feature's distribution and its index over time, decisions, segments, quality and what is not known. Nothing is
    written to Kafka.
    """
    from models.drift_report import drift_report_json
    from models.drift_report_tables import drift_page, drift_tables
    from models.report_tables import as_text
    from stream.drift_report import drift_report
    from stream.monitor_references import References
    from stream.progress import counting
    from stream.report_files import ReportFiles

    now_ms = time.time_ns() // 1_000_000
    until_ms = now_ms if until is None else min(now_ms, _moment(until, now_ms, "--until"))
    since_ms = _moment(since, until_ms, "--since")
    if since_ms >= until_ms:
        raise click.UsageError("--since must lie before --until, and before now.")
    settings = invocation.real_broker("drift report")
    files = ReportFiles(output, json_file, Path())
    with ExitStack() as bars:
        shown = {}

        def tell(topic: str, records: int) -> None:
            if topic not in shown:
                bars.close()
                shown[topic] = bars.enter_context(counting(f"reading {topic}", None))
            shown[topic](records)

        found = drift_report(settings, since_ms, until_ms, References(settings).histograms, tell)
    click.echo(as_text(drift_tables(found)))

    def page() -> str:
        drawn = sum(len(model.features) + 1 for model in found.models)
        with counting("drawing", drawn) as told:
            return drift_page(found, lambda done, _: told(done))

    files.write(page, lambda: drift_report_json(found), lambda path: click.echo(str(path)))


def _moment(text: str, before_ms: int, option: str) -> int:
    """Read a time, or a duration before one, as epoch milliseconds."""
    from stream.quantity import Duration
    from stream.times import BAD_TIME, TimeReader

    try:
        return before_ms - Duration.parse(text)
    except ValueError:
        at_ms = TimeReader().one(text)
    if at_ms == BAD_TIME:
        raise click.UsageError(
            f"{option} takes a duration such as 24h or a time such as 2026-01-05T00:00:00Z, not {text}."
        )
    return at_ms
