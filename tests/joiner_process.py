"""A joiner in a process of its own, that can be told to kill itself at a named point.

    python tests/joiner_process.py '{"monitor.group": "g", ...}' [POINT:COUNT]

POINT is a hook of the observer: produced, committing, committed, storing, stored, ... When it is reached for the
COUNT-th time, the process is killed (SIGKILL). `full:N` leaves the index N pages instead, and `refresh:S` lets all
offsets be committed again after S seconds. Each line on standard output tells one thing the joiner did.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from stream import joiner, label_index_file
from stream.errors import FraudstreamError
from stream.joiner import Joiner
from stream.joiner_observer import JoinerObserver
from stream.settings import load_settings
from worker_process import ROOT, WorkerProcess

#: Where it can be killed: output queued, commit asked for, committed but the index not stored, about to store, stored.
POINTS = ("produced", "committing", "committed", "storing", "stored")


class JoinerProcess(WorkerProcess):
    """One joiner; watched, killed and stopped as a worker is."""

    def _launch(self, settings: Mapping[str, object], point: str | None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__, json.dumps(dict(settings)), *([point] if point else [])],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )


class Teller(JoinerObserver):
    """Says on standard output what the joiner tells, and dies where it is told to."""

    def __init__(self, point: str) -> None:
        self._point, _, count = point.partition(":")
        self._left = float(count or 0)

    def _tell(self, name: str, *told: object) -> None:
        print(json.dumps([time.time(), name, told]), flush=True)
        if name == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def delay(self, delays_ms):
        self._tell("delay", len(delays_ms))


def _telling(name):
    def call(self, *args, **kwargs):
        self._tell(name, *args, *kwargs.values())

    return call


for _name in [n for n in vars(JoinerObserver) if not n.startswith("_") and n not in vars(Teller)]:
    setattr(Teller, _name, _telling(_name))


def fill_up(pages: int) -> None:
    """Let the index's disk be full at so many pages: SQLite itself says so, as it does where the system says ENOSPC."""
    connect = label_index_file._connect

    def small(path):
        connection = connect(path)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    label_index_file._connect = small


def main() -> None:
    logging.getLogger("fraudstream").addHandler(logging.NullHandler())  # as the command does
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = load_settings(None, {}, json.loads(sys.argv[1]))
    point = sys.argv[2] if len(sys.argv) > 2 else ""
    if point.startswith("full:"):
        fill_up(int(point.partition(":")[2]))
    if point.startswith("refresh:"):
        joiner.REFRESH_SECS = float(point.partition(":")[2])
    try:
        Joiner(settings, Teller(point)).run(stop.is_set)
    except FraudstreamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
