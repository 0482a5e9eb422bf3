"""The command `fraudstream`: its verbs, and how whatever goes wrong ends.

Exit codes: 0 done, 1 failed, 2 wrong use. What a user or an operator can mend is one sentence on standard error; only a
bug shows a traceback. Nothing heavy is imported here: each verb imports what it runs when it runs.
"""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from models.errors import ModelError
from state.errors import FeatureSetError, StateError
from stream.errors import FraudstreamError
from stream.interrupts import keeping_interrupts
from stream.verbs.backfill import backfill
from stream.verbs.demo import demo
from stream.verbs.doctor import doctor
from stream.verbs.drift import drift
from stream.verbs.evaluate import evaluate
from stream.verbs.explain import explain
from stream.verbs.invocation import Invocation, read_assignment
from stream.verbs.label import label
from stream.verbs.models import models
from stream.verbs.monitor import monitor
from stream.verbs.publish import publish
from stream.verbs.rekey import rekey
from stream.verbs.score import score
from stream.verbs.simulate import simulate
from stream.verbs.top import top
from stream.verbs.topics import topics
from stream.verbs.train import train
from stream.verbs.worker import worker

__all__ = ["fraudstream", "main"]

FAILED: Final = 1
WRONG_USE: Final = 2

SETTINGS_FILE: Final = Path("fraudstream.toml")

#: The verbs as `--help` groups them.
SECTIONS: Final[dict[str, tuple[click.Command, ...]]] = {
    "Try it": (demo, simulate),
    "Run it": (topics, worker, monitor, doctor, top),
    "Your data": (publish, label, rekey, backfill),
    "Models": (train, evaluate, models, score),
    "Why": (explain, drift),
}


class _Sections(click.Group):
    """Lists its verbs by what one wants to do."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's)
        width = max(len(verb.name or "") for verbs in SECTIONS.values() for verb in verbs)
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{verb.name:{width}}", verb.get_short_help_str(100)) for verb in verbs])


@click.group(
    cls=_Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each verb has its own --help, with an example; begin with `fraudstream demo`. "
    "Exit codes: 0 done, 1 failed, 2 wrong use.",
)
@click.option(
    "--settings",
    "settings_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="FRAUDSTREAM_SETTINGS",
    metavar="FILE",
    help=f"The settings (TOML).  [default: $FRAUDSTREAM_SETTINGS, or {SETTINGS_FILE} where there is one]",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, over all other sources, such as kafka.group=test; repeatable.",
)
@click.version_option(package_name="fraudstream", message="%(prog)s %(version)s")
@click.pass_context
def fraudstream(ctx: click.Context, settings_path: Path | None, assignments: tuple[str, ...]) -> None:
    """Score card transactions on Kafka for fraud, as they happen.

    A worker reads transactions from one topic, keeps exact windows of each user's payments, scores them with an
    XGBoost + LightGBM ensemble and writes a decision for each to another topic: approve, review or decline, with its
    score and its reasons, exactly once.
    """
    if settings_path is None and SETTINGS_FILE.exists():
        settings_path = SETTINGS_FILE
    ctx.obj = Invocation(settings_path, dict(map(read_assignment, assignments)))


for _verbs in SECTIONS.values():
    for _verb in _verbs:
        fraudstream.add_command(_verb)


def main() -> NoReturn:
    """Run the command and end the process with its exit code."""
    # Without a handler of its own, Python prints warnings of the Kafka client between our lines.
    logging.getLogger("fraudstream").addHandler(logging.NullHandler())
    try:
        with keeping_interrupts():
            code = fraudstream.main(prog_name="fraudstream", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end("Interrupted.", FAILED)
    except BrokenPipeError:
        # Whoever read our output has enough of it. What is left in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except FeatureSetError as error:
        _end(_sentence(str(error)), WRONG_USE)
    except (FraudstreamError, StateError, ModelError) as error:
        _end(_sentence(str(error)), getattr(error, "exit_code", FAILED))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _end(_sentence(f"{error.strerror or error}{where}"), FAILED)
    except Exception as error:
        if not _is_kafka(error):
            raise
        _end(_sentence(f"the broker or its client refused: {error.args[0].str()}"), FAILED)
    # Of ctx.exit() click hands over the code; the verbs themselves return nothing.
    sys.exit(code if isinstance(code, int) else 0)


def _show(error: click.ClickException) -> None:
    """Show what click says of wrong use; of an option on the wrong side of the verb it only says that there is none."""
    own = {name for option in fraudstream.params for name in option.opts}
    if isinstance(error, click.NoSuchOption) and error.option_name in own and error.ctx is not None:
        verb = error.ctx.command_path.partition(" ")[2]
        right = f"{error.option_name} goes before the verb: fraudstream {error.option_name} … {verb}"
        error = click.UsageError(right, error.ctx)
    error.show()


def _end(sentence: str, code: int) -> NoReturn:
    click.echo(f"Error: {sentence}", err=True)
    sys.exit(code)


def _sentence(text: str) -> str:
    """Begin with a capital, unless the first word may be a name such as kafka, and end with a full stop."""
    if re.match("(a|an|another|no|none|the|this) ", text):
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _is_kafka(error: Exception) -> bool:
    """Tell a KafkaException without importing the client, which --help does not need."""
    kafka = sys.modules.get("confluent_kafka")
    return kafka is not None and isinstance(error, kafka.KafkaException)
