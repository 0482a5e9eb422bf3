"""The installed command, in a process of its own, as a user would run it, or in this one."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from stream import cli

Completed = subprocess.CompletedProcess[str]
SCRIPT = Path(sys.executable).with_name("fraudstream")
DEADLINE_SECS = 300


@dataclass(frozen=True)
class Command:
    """Runs `fraudstream` in a folder of its own, with no settings but those given."""

    folder: Path

    def __call__(self, *args: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run to the end and return it; nothing is a terminal."""
        with self.start(*args, **environ) as process:
            out, err = process.communicate(timeout=DEADLINE_SECS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *args: object, **environ: str) -> subprocess.Popen[str]:
        """Start it and return the process."""
        return subprocess.Popen(
            [str(SCRIPT), *map(str, args)],
            cwd=self.folder,
            env=environment(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background ignores SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (one thread starts it)
        )

    def settings(self, text: str) -> Path:
        """Write fraudstream.toml."""
        path = self.folder / "fraudstream.toml"
        path.write_text(text)
        return path


def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object) -> Completed:
    """Run the command in this process, which is far quicker, and return what a process of its own would have."""
    monkeypatch.setattr(sys, "argv", ["fraudstream", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return Completed(args, int(ended.value.code or 0), printed.out, printed.err)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FRAUDSTREAM_")}
    return {**ours, "COLUMNS": "100", **more}


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence a mistake ends with; anything else on standard error is a failure."""
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage:", "Try '"))]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")
