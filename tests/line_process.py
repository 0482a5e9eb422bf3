"""A worker in a process of its own, as the command starts it, that can be told to kill itself at a named point.

    python tests/line_process.py '{"kafka.group": "g", ...}' [POINT:COUNT[:STOP|:WAIT] [FILE]]

POINT is a hook of the observer: produced, offsets_sent, committing, users_written, ... When it is reached for the
COUNT-th time, the process is killed (SIGKILL, nothing is cleaned up), with STOP suspended (SIGSTOP); with WAIT the
thread that came there waits for ever. With FILE, it is counted from when that is there. Each line on standard output
tells one thing the worker did.
"""

import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from stream.app import compose
from stream.observer import Observer, Observers
from stream.process import spare_libraries
from stream.settings import load_settings

WAYS = {"": signal.SIGKILL, "STOP": signal.SIGSTOP, "WAIT": None}


class Killer(Observer):
    """Kills or suspends its own process, or holds the calling thread, at the count-th call of one hook."""

    def __init__(self, point: str, count: int, number: signal.Signals | None, since: str = "") -> None:
        self._left = count
        self._signal = number
        self._since = since
        setattr(self, point, self._reached)

    def _reached(self, *_args: object, **_kwargs: object) -> None:
        if self._since and not Path(self._since).exists():
            return
        self._left -= 1
        if self._left == 0 and self._signal is None:
            threading.Event().wait()
        elif self._left == 0:
            # To this thread, not to the process: there another thread may take a stop, and this one runs on meanwhile.
            signal.pthread_kill(threading.get_ident(), self._signal)


class Teller(Observer):
    """Says on standard output how far the worker is."""

    def assigned(self, partitions):
        self._say("assigned", partitions)

    def revoked(self, partitions, *, lost):
        self._say("lost" if lost else "revoked", partitions)

    def recovering(self, partition, *, replay_from, live_from, reason):
        self._say("recovering", [partition, replay_from, live_from, reason])

    def live(self, partition):
        self._say("live", partition)

    def batch(self, report):
        if report.events:
            self._say("batch", report.events)

    def committing(self):
        self._say("committing", None)

    def committed(self, secs):
        self._say("committed", round(secs, 6))

    def aborted(self, reason):
        self._say("aborted", reason)

    def store_failed(self, sentence):
        self._say("store_failed", sentence)

    def loaded(self, users, secs):
        self._say("loaded", users)

    def evicted(self, users):
        if users:
            self._say("evicted", users)

    def checkpointed(self, partition, *, users, watermark, secs):
        self._say("checkpointed", [partition, users, watermark])

    def paused(self, partitions, reason):
        self._say("paused", [partitions, reason])

    def resumed(self, partitions):
        self._say("resumed", partitions)

    def preparing(self, version):
        self._say("preparing", version)

    def prepared(self, version, secs):
        self._say("prepared", [version, round(secs, 4)])

    def swapped(self, *, model, engine, feature_set, former, approved_by):
        self._say("swapped", [former, model, feature_set, approved_by])

    def swap_refused(self, version, running, sentence):
        self._say("swap_refused", [version, running, sentence])

    def _say(self, event, value):
        line = json.dumps([round(time.time(), 4), event, value]) + "\n"
        os.write(sys.stdout.fileno(), line.encode())  # one call: several threads speak


def main() -> None:
    faulthandler.register(signal.SIGUSR1)  # tells on standard error where each thread stands
    settings = load_settings(None, {}, json.loads(sys.argv[1]))
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    observers: list[Observer] = [Teller()]
    if len(sys.argv) > 2:
        point, count, *how = sys.argv[2].split(":")
        observers.append(Killer(point, int(count), WAYS["".join(how)], *sys.argv[3:]))
    app = compose(settings, Observers(*observers))
    signal.signal(signal.SIGTERM, lambda *_: app.stop())
    spare_libraries()
    app.run()


if __name__ == "__main__":
    main()
