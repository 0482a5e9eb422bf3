"""Runs the line twice over the same input, once undisturbed and once under whatever a test does to it."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from committed import committed, last_records, wait_until_committed
from kafka_topics import Topics
from line_output import LineOutput, LineTopics, create_line, read_line
from worker_process import WorkerProcess

#: Where a worker can be told to kill itself: output queued, offsets in the transaction, commit asked for, users of a
#: checkpoint stored but not the watermark.
POINTS = ("produced", "offsets_sent", "committing", "users_written")


class Crew:
    """Several workers of one group, each restarted under its own name whenever it has ended."""

    def __init__(self, topics: Topics, line: LineTopics, settings: Mapping[str, object]) -> None:
        self.topics = topics
        self.line = line
        self.settings = dict(settings) | line.settings()
        self.workers: dict[str, WorkerProcess] = {}
        self.past: list[WorkerProcess] = []

    def start(self, name: str, point: str | None = None, since: Path | None = None, **more: object) -> WorkerProcess:
        """Start the worker `name`; a name that begins with "dynamic" gets no instance id.

        It dies at `point`, where one is given, but not before the file `since` is there.
        """
        if name in self.workers:
            self.past.append(self.workers.pop(name))
        instance = "" if name.startswith("dynamic") else name
        worker = WorkerProcess(self.settings | {"kafka.instance_id": instance} | more, point, since)
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
        return sum(end - done.get(p, 0) for p, end in last_records(self.topics, self.line.transactions).items())

    def close(self) -> None:
        for worker in self.everybody:
            worker.close()


@contextmanager
def crew(topics: Topics, source: str, settings: Mapping[str, object]) -> Iterator[Crew]:
    """Give a crew on `source` with output topics and a group of its own; nobody outlives the block."""
    line = create_line(topics, source=source)
    found = Crew(topics, line, {**settings, "kafka.group": f"group-{line.decisions}"})
    try:
        yield found
    finally:
        found.close()


def undisturbed(topics: Topics, source: str, settings: Mapping[str, object], timeout_secs: float = 180) -> LineOutput:
    """Return what one worker writes that nobody disturbs."""
    with crew(topics, source, {**settings, "store.kind": "memory"}) as calm:
        calm.start("calm")
        return calm.finish(timeout_secs)
