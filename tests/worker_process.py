"""Starts, watches, kills and restarts worker processes for tests."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SCRIPT = Path(__file__).with_name("line_process.py")
ROOT = Path(__file__).parents[1]


class WorkerProcess:
    """One worker; `events` grows with what it says: (epoch seconds, event, value)."""

    def __init__(self, settings: Mapping[str, object], point: str | None = None, since: Path | None = None) -> None:
        self.point = point
        self.since = since
        self.events: list[tuple[float, str, object]] = []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self.started_at = time.time()
        self.process = self._launch(settings, point)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _launch(self, settings: Mapping[str, object], point: str | None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                str(SCRIPT),
                json.dumps(dict(settings)),
                *(str(given) for given in (point, self.since) if given),
            ],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def killed(self) -> bool:
        """Whether it ended by SIGKILL, its own or ours."""
        return self.process.poll() == -signal.SIGKILL

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def count(self, event: str) -> int:
        return sum(1 for _, name, _ in self.events if name == event)

    def values(self, event: str) -> list[object]:
        return [value for _, name, value in list(self.events) if name == event]

    def wait_for(self, event: str, count: int = 1, timeout_secs: float = 60) -> None:
        """Wait until the worker has said `event` so many times."""
        self.wait_until(lambda: self.count(event) >= count, f"{count} times {event}", timeout_secs)

    def wait_until(self, reached: Callable[[], bool], what: str, timeout_secs: float = 60) -> None:
        deadline = time.monotonic() + timeout_secs
        tick = threading.Event()
        while not reached():
            if not self.alive and not reached():
                raise AssertionError(
                    f"the worker ended ({self.process.returncode}) before {what}:\n{self.errors[-3000:]}"
                )
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"no {what} within {timeout_secs} s; last {self.events[-5:]}\n{self.errors[-3000:]}"
                )
            tick.wait(0.02)

    def where(self) -> str:
        """Return where each of its threads stands. It must have run for some seconds: before, asking ends it."""
        before = len(self.errors)
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 5
        while "most recent call first" not in self.errors[before:] and self.alive and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        threading.Event().wait(0.2)  # the other threads follow
        return self.errors[before:]

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def suspend(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self, timeout_secs: float = 60) -> int:
        """SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.end(timeout_secs)

    def end(self, timeout_secs: float = 60) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(timeout_secs)
        self._reader.join(10)
        return code

    def close(self) -> None:
        """Whatever state it is in, leave nothing behind."""
        if self.alive:
            self.process.kill()
        self.end()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            at, event, value = json.loads(line)
            self.events.append((at, event, value))
