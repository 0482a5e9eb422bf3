"""Who takes part in a race, what each is told, and its processes as it runs: suspended, resumed, their CPU sampled."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from kafka_server import ROOT, watch
from line_output import LineTopics
from scene import LONG

SAMPLE_SECS = 0.02
FAMILY_SECS = 2.0  # how often new children are looked for
END_SECS = 20.0
# Of processes that import the project's own modules.
_PATHS = (ROOT, ROOT / "tests", ROOT / "tests/bench", ROOT / "tests/bench/peers")
OWN = {"PYTHONPATH": os.pathsep.join(map(str, _PATHS))}

Delivery = Literal["exactly_once", "at_least_once"]


@dataclass(frozen=True)
class Job:
    """What a contender is told, as JSON in its first argument."""

    bootstrap: str
    redis: str
    source: str
    decisions: str
    dead_letters: str
    features: str
    telemetry: str
    group: str
    bundle: str
    silent: str
    graph: str
    written: str
    folder: str
    delivery: Delivery
    total: int
    partitions: int
    checkpoint_ms: int

    def line(self) -> LineTopics:
        return LineTopics(self.source, self.decisions, self.dead_letters, self.features, self.telemetry)


@dataclass(frozen=True)
class Ours:
    """What a worker of ours must have written besides its decisions, or must not have; the race compares.

    exact: scores are equal to the last bit. held: the bundle holds payments, each with its reasons.
    """

    exact: bool = True
    held: bool = True
    features: bool = True
    telemetry: bool = True


@dataclass(frozen=True)
class Contender:
    """command: of one process; copies: how many of them; events: how many payments it is measured on.

    closed: it decides a payment only once each partition has shown a later one, so each part ends with one of those.
    once: so slow that one round must do. ours: what else is compared, of a worker of ours.
    """

    name: str
    delivery: Delivery
    command: Callable[[Job], Sequence[str]]
    events: int = LONG
    closed: bool = False
    once: bool = False
    copies: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)
    ours: Ours | None = None

    @property
    def is_peer(self) -> bool:
        return not self.name.startswith(("ours", "null"))

    @property
    def label(self) -> str:
        return f"{self.name}, {self.delivery.replace('_', ' ')}"


def job_argument(job: Job) -> str:
    return json.dumps(asdict(job))


class Watched:
    """A contender's processes, and how much CPU each with its children, and the servers, had used at each moment."""

    def __init__(self, contender: Contender, job: Job, servers: Sequence[psutil.Process]) -> None:
        self.contender, self.job = contender, job
        self._log = Path(job.folder, "output.log").open("w+b")  # noqa: SIM115 (lives as long as the processes)
        environ = {**os.environ, "PYTHONPATH": "", "TMPDIR": job.folder, **contender.environ}
        command = [*contender.command(job)]
        self._roots = [
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=job.folder,
                env=environ,
                start_new_session=True,
            )
            for _ in range(contender.copies)
        ]
        # However the race ends, nothing of it is left.
        self._watchdogs = [watch(root.pid, Path(job.folder)) for root in self._roots]
        self._servers = servers
        self._samples: list[tuple[float, ...]] = []  # when, the servers', each root's
        self._family: list[tuple[int, psutil.Process]] = []
        self._spent: dict[tuple[int, int], float] = {}  # by root and process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether all of its processes are: what one of two does alone is not what was to be measured."""
        return all(root.poll() is None for root in self._roots)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend all of its processes."""
        family = [process for _, process in self._children()]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    def last_words(self) -> str:
        self._log.seek(0)
        return self._log.read()[-1500:].decode(errors="replace")

    def said(self, event: str, first: float, last: float) -> list[Any]:
        """Return the values of an event that a worker of ours told between two moments (epoch seconds)."""
        found = []
        for line in Path(self._log.name).read_bytes().splitlines():
            try:
                at, name, value = json.loads(line)
            except ValueError:
                continue  # a line of its standard error
            if name == event and first <= at <= last:
                found.append(value)
        return found

    def spent(self, first: float, last: float) -> tuple[list[float], float]:
        """Return CPU seconds between two moments (epoch seconds): of each of its processes, of the servers."""
        at, *used = np.array(self._samples).T
        servers, *own = (float(np.interp(last, at, one) - np.interp(first, at, one)) for one in used)
        return own, servers

    def end(self) -> None:
        self._done.set()
        self._thread.join()
        family = self._children()
        for watchdog in self._watchdogs:
            watchdog.kill()
            watchdog.communicate()
        for root in self._roots:
            root.send_signal(signal.SIGTERM)
        for root in self._roots:
            try:
                root.wait(END_SECS)
            except subprocess.TimeoutExpired:
                root.kill()
                root.wait()
        for _, process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._log.close()

    def _children(self) -> list[tuple[int, psutil.Process]]:
        """Return each process with its root's number."""
        found = []
        for number, root in enumerate(self._roots):
            try:
                process = psutil.Process(root.pid)
                found += [(number, one) for one in (process, *process.children(recursive=True))]
            except psutil.NoSuchProcess:
                continue
        return found

    def _sample(self) -> None:
        looked = 0.0
        while not self._done.wait(SAMPLE_SECS):
            now = time.monotonic()
            if now - looked > FAMILY_SECS:
                self._family, looked = self._children(), now
            for number, process in self._family:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue  # what it used until it was last seen stays counted
                self._spent[number, process.pid] = times.user + times.system
            servers = [server.cpu_times() for server in self._servers]
            used = sum(times.user + times.system for times in servers)
            own = [0.0] * len(self._roots)
            for (number, _), secs in self._spent.items():
                own[number] += secs
            self._samples.append((time.time(), used, *own))
