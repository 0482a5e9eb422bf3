"""`fraudstream doctor`: what is wrong, and how to mend it."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import shutil
import textwrap

import click

from stream.verbs.invocation import Invocation, example, passed

COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "red", "SKIP": "bright_black"}
NAME_WIDTH = 13


@click.command(epilog=example("fraudstream --settings fraudstream.toml doctor"))
@passed
@click.pass_context
def doctor(ctx: click.Context, invocation: Invocation) -> None:
    """Say what is wrong with broker, topics, keys, model or store.

    One line each: OK, WARN (it would work), FAIL (a worker would not start, or lose what it should know), SKIP (could
    not be looked at). Changes nothing. Exit code 1 where anything failed.
    """
    settings = invocation.real_broker("doctor")
    from stream.doctor import examine

    failed = 0
    for check in examine(settings):
        click.echo(_line(check.level, check.name, check.text.rstrip(".")))
        failed += check.level == "FAIL"
    if failed:
        ctx.exit(1)


def _line(level: str, name: str, text: str) -> str:
    lead = 6 + NAME_WIDTH
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    wrapped = textwrap.wrap(text, width - lead, break_long_words=False, break_on_hyphens=False) or [""]
    first = click.style(f"{level:<6}", fg=COLOURS[level], bold=level == "FAIL") + f"{name:<{NAME_WIDTH}}{wrapped[0]}"
    return "\n".join([first, *(" " * lead + rest for rest in wrapped[1:])])
