"""docker-compose.yml without Docker: its services' own commands, with their settings, run as processes of this machine.

What differs is where things are: a container's paths are folders of the test, its neighbours' names the test's broker
and store, and a port is any that is free.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from command import environment
from deployment import DEPLOY, ROOT

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
BIN = Path(sys.executable).parent
ENDED_SECS = 300.0


class Service:
    """One service of ours as a process. moved: where a path of the container is here, longest first."""

    def __init__(self, name: str, moved: Mapping[str, str], environ: Mapping[str, str], folder: Path) -> None:
        service = SERVICES[name]
        entry = service.get("entrypoint", ["fraudstream"])
        argv = [relocated(part, moved) for part in [*entry, *service["command"]]]
        theirs = {key: relocated(value, moved) for key, value in service["environment"].items()}
        folder.mkdir(exist_ok=True)
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(BIN / argv[0]) if argv[0] in ("fraudstream", "python") else argv[0], *argv[1:]],
                cwd=folder,
                env={
                    **environment({**theirs, **environ}),
                    "PATH": f"{BIN}:{os.environ['PATH']}",
                    "PYTHONPATH": str(ROOT),
                    # Compiled kernels are where every other test has them.
                    **{key: value for key, value in os.environ.items() if key == "NUMBA_CACHE_DIR"},
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def url(self) -> str:
        """Where its /metrics is, once it has said so."""
        self.wait_until(self._served, "serving metrics")
        return str(self._served())

    def metrics(self) -> str:
        return self.get("/metrics")

    def get(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url.replace("/metrics", path), timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def wait_until(self, reached: Callable[[], object], what: str, timeout_secs: float = 120) -> None:
        deadline, tick = time.monotonic() + timeout_secs, threading.Event()
        while not _true(reached):
            assert self.process.poll() is None, f"{self.name} ended before {what}:\n{self.log[-3000:]}"
            assert time.monotonic() < deadline, f"{self.name}: no {what} in {timeout_secs} s:\n{self.log[-3000:]}"
            tick.wait(0.1)

    def done(self) -> None:
        """Wait for a one-shot's good end."""
        assert self.process.wait(ENDED_SECS) == 0, f"{self.name}:\n{self.log[-3000:]}"

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def _served(self) -> str:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return next((line["url"] for line in lines if line.get("event") == "serving"), "")


def _true(reached: Callable[[], object]) -> bool:
    """Say whether it is so; whoever does not answer (yet), or answers 503, has not reached it."""
    try:
        return bool(reached())
    except OSError:
        return False


def relocated(text: str, moved: Mapping[str, str]) -> str:
    """Put the test's folder in the place of a container's."""
    for there, here in moved.items():
        if text == there or text.startswith(f"{there}/"):
            return here + text.removeprefix(there)
    return text


def places(folder: Path) -> dict[str, str]:
    """Return where the containers' paths are in this folder."""
    for name in ("registry", "data", "secrets"):
        (folder / name).mkdir()
    return {
        "/opt/fraudstream/share": str(DEPLOY),
        "/etc/fraudstream": str(DEPLOY),
        "/run/secrets": str(folder / "secrets"),
        "/registry": str(folder / "registry"),
        "/data": str(folder / "data"),
    }
