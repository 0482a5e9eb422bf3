"""Runs the line twice over the same input, once undisturbed and once under whatever a test does to it."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from committed import committed, last_records, wait_until_committed
from kafka_topics import Topics
from line_output import LineOutput, LineTopics, create_line, read_line
from worker_process import WorkerProcess

#: Where a worker can be told to kill itself: output queued, offsets in the transaction, commit asked for, users of a
#: checkpoint stored but not the watermark.
POINTS = ("produced", "offsets_sent", "committing", "users_written")


@dataclass
class Kills:
    """How often each way to die was died."""

    counts: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.counts.total()

    def table(self) -> str:
        return "\n".join(f"{point:<16}{count:>6}" for point, count in sorted(self.counts.items()))


class Crew:
    """Several workers of one group, each restarted under its own name whenever it has ended."""

    def __init__(self, topics: Topics, line: LineTopics, settings: Mapping[str, object]) -> None:
        self.topics = topics
        self.line = line
        self.settings = dict(settings) | line.settings()
        self.workers: dict[str, WorkerProcess] = {}
        self.past: list[WorkerProcess] = []

    def start(self, name: str, point: str | None = None, **more: object) -> WorkerProcess:
        """Start the worker `name`; a name that begins with "dynamic" gets no instance id."""
        if name in self.workers:
            self.past.append(self.workers.pop(name))
        instance = "" if name.startswith("dynamic") else name
        worker = WorkerProcess(self.settings | {"kafka.instance_id": instance} | more, point)
        self.workers[name] = worker
        return worker

    def finish(self, timeout_secs: float = 180, *, ended: Sequence[object] = ()) -> LineOutput:
        """Wait until all input is decided, stop everybody gracefully, and read what was written.

        Nobody but `ended` may have ended by itself.
        """
        alive = [w for w in self.workers.values() if w.alive]
        wait_until_committed(self.topics, self.group, self.line.transactions, alive, timeout_secs)
        for worker in alive:
            assert worker.stop() == 0, worker.errors[-3000:]
        for worker in [w for w in self.everybody if w not in ended]:
            code = worker.process.returncode
            assert code in (0, -signal.SIGKILL), f"a worker ended by itself ({code}):\n{worker.errors[-3000:]}"
        return read_line(self.topics, self.line)

    @property
    def group(self) -> str:
        return str(self.settings["kafka.group"])

    @property
    def everybody(self) -> list[WorkerProcess]:
        return [*self.past, *self.workers.values()]

    def left(self) -> int:
        """Return how many offsets are not committed yet."""
        done = committed(self.topics, self.group, self.line.transactions)
        return sum(end - done.get(p, 0) for p, end in self._wanted().items())

    def close(self) -> None:
        for worker in self.everybody:
            worker.close()

    def _wanted(self) -> dict[int, int]:
        if not hasattr(self, "_ends"):
            self._ends = last_records(self.topics, self.line.transactions)
        return self._ends


@contextmanager
def crew(topics: Topics, source: str, settings: Mapping[str, object]) -> Iterator[Crew]:
    """Give a crew on `source` with output topics and a group of its own; nobody outlives the block."""
    line = create_line(topics, source=source)
    found = Crew(topics, line, {**settings, "kafka.group": f"group-{line.decisions}"})
    try:
        yield found
    finally:
        found.close()


def undisturbed(topics: Topics, source: str, settings: Mapping[str, object]) -> LineOutput:
    """Return what one worker writes that nobody disturbs."""
    with crew(topics, source, {**settings, "store.kind": "memory"}) as calm:
        calm.start("calm")
        return calm.finish()


def kill_again_and_again(
    who: Crew, names: list[str], kills: int, seed: int, on_kill: Callable[[int], None] = lambda _: None
) -> Kills:
    """Kill workers, at every named point in turn and at random moments, restarting each; stop when input runs low."""
    rng = random.Random(seed)
    done = Kills()
    ways = [*POINTS, "random"]
    plan = [ways[i % len(ways)] for i in range(kills)]
    deadline = time.monotonic() + 60 + 15 * kills
    tick = threading.Event()
    running: dict[str, str] = {}
    for name in names:
        way = plan.pop(0)
        running[name] = way
        who.start(name, _point(way, rng))
    while running:
        for name, way in list(running.items()):
            worker = who.workers[name]
            if way == "random" and worker.alive and worker.count("committed") >= 1:
                tick.wait(rng.random() * 0.3)
                worker.kill()
            if worker.alive:
                continue
            assert worker.killed, f"{name} ended by itself ({worker.process.returncode}):\n{worker.errors[-3000:]}"
            done.counts[way] += 1
            on_kill(done.total)
            if plan:
                running[name] = plan.pop(0)
                who.start(name, _point(running[name], rng))
            else:
                del running[name]
                who.start(name)
        tick.wait(0.01)
        if time.monotonic() > deadline:
            raise AssertionError(f"{done.total} of {kills} kills happened, {who.left()} records are left: {running}")
    return done


def _point(way: str, rng: random.Random) -> str | None:
    if way == "random":
        return None
    return f"{way}:{rng.randrange(1, 4)}"
