"""What stands before the verb on the command line, and what several verbs share."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from stream.settings import Settings

__all__ = ["LONGEST_DAYS", "Invocation", "Number", "count", "example", "passed", "read_assignment"]

#: A century, which no history is longer than: what is more would leave the range of times.
LONGEST_DAYS: Final = 36_525


@dataclass(frozen=True)
class Invocation:
    """settings_path: the settings file, None where there is none. assigned: settings of the command line by key."""

    settings_path: Path | None
    assigned: Mapping[str, object] = field(default_factory=dict)

    def settings(self, overrides: Mapping[str, object] = MappingProxyType({})) -> "Settings":
        """Read the settings; overrides are values of the command line by dotted key, None where not given."""
        from stream.settings import load_settings

        given = {key: value for key, value in overrides.items() if value is not None}
        return load_settings(self.settings_path, os.environ, {**self.assigned, **given})

    def real_broker(self, verb: str, overrides: Mapping[str, object] = MappingProxyType({})) -> "Settings":
        """Read the settings of a verb that needs a real broker; raises UsageError where they name the trial broker.

        The Kafka client's own properties are checked too.
        """
        from stream.clients import check_properties
        from stream.errors import UsageError

        settings = self.settings(overrides)
        if settings.embedded:
            raise UsageError(
                f"The embedded broker lives inside `fraudstream demo` and ends with it: set kafka.bootstrap_servers to "
                f"a real broker for `fraudstream {verb}`."
            )
        check_properties(settings)
        return settings


class Number(click.FloatRange):
    """A number within bounds; click's own lets "nan" through, which lies within none, and where open infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or end with a sentence."""
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return found


passed: Final[Callable[..., Any]] = click.make_pass_decorator(Invocation)


def read_assignment(text: str) -> tuple[str, object]:
    """Read KEY=VALUE; the value is TOML (5, true, ["a", "b"]), and a text where it is none."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"--set takes KEY=VALUE, such as kafka.group=test, not {text}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}", parse_float=Decimal)["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def example(*lines: str) -> str:
    """Return the closing part of a verb's help: commands to copy."""
    return "\n\n".join(["\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)])


def count(number: int, one: str, many: str = "") -> str:
    """Return "1 row" or "12,345 rows"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
