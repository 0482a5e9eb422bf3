"""A worker in a thread of the test: the same composed line, which a test can hold at any hook of the observer.

A process is for what a thread cannot do: be killed, be stopped by a signal, end with an exit code.
"""

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from disturbed import Crew
from kafka_topics import Topics, wait_until
from line_output import LineOutput, create_line
from stream.app import compose
from stream.observer import Observer
from stream.settings import load_settings

HELD_SECS = 60.0


def line_settings(bootstrap: str, **more: object) -> dict[str, object]:
    """Return settings under which a test is short: small batches, a constant score, the shortest useful timeouts."""
    return {
        "kafka.bootstrap_servers": bootstrap,
        "kafka.session_timeout_ms": 3000,
        "kafka.transaction_timeout_ms": 3000,
        "store.kind": "memory",
        "store.checkpoint_interval_ms": 100,
        "worker.max_batch": 64,
        "worker.poll_timeout_ms": 20,
        "model.engine": "constant",
        "metrics.enabled": False,
        **more,
    }


class Hold:
    """Stops the thread that reaches a hook for the count-th time, until released."""

    def __init__(self, point: str, count: int) -> None:
        self.point = point
        self._left = count
        self.reached = threading.Event()
        self._released = threading.Event()

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached.set()
            assert self._released.wait(HELD_SECS), f"nobody released {self.point}"

    def release(self) -> None:
        self._released.set()


class Watch(Observer):
    """Records every hook as (monotonic seconds, name, what it was told)."""

    def __init__(self) -> None:
        self.events: list[tuple[float, str, object]] = []
        self.holds: list[Hold] = []

    def happened(self, name: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        told = (*args, *kwargs.values())
        self.events.append((time.monotonic(), name, told[0] if len(told) == 1 else told))
        for hold in list(self.holds):  # one that is added meanwhile waits for the next call
            if hold.point == name:
                hold()


def _recording(name: str) -> Callable[..., None]:
    def call(self: Watch, *args: object, **kwargs: object) -> None:
        self.happened(name, args, kwargs)

    return call


for _name in [n for n in vars(Observer) if not n.startswith("_") and n != "turned"]:
    setattr(Watch, _name, _recording(_name))


class LineThread:
    """One worker, composed at once (what prevents a start is raised here) and run by start()."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._watch = Watch()
        self.settings = load_settings(None, {}, dict(settings))
        self.app = compose(self.settings, self._watch)
        self.error: BaseException | None = None
        self.errors = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._tell_revocations()

    def start(self) -> "LineThread":
        self._thread.start()
        return self

    def hold(self, point: str, count: int = 1) -> Hold:
        """Let the count-th call of the hook `point` from now on wait for release()."""
        hold = Hold(point, count)
        self._watch.holds.append(hold)
        return hold

    @property
    def events(self) -> list[tuple[float, str, object]]:
        return self._watch.events

    @property
    def names(self) -> list[str]:
        return [name for _, name, _ in list(self.events)]

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def process(self) -> "LineThread":
        return self

    @property
    def returncode(self) -> int:
        return 1 if self.error else 0

    def count(self, event: str) -> int:
        return self.names.count(event)

    def values(self, event: str) -> list[object]:
        return [value for _, name, value in list(self.events) if name == event]

    def at(self, event: str) -> float:
        """Return when the event was last told."""
        return next(at for at, name, _ in reversed(self.events) if name == event)

    def wait_for(self, event: str, count: int = 1, timeout_secs: float = 40) -> None:
        """Wait until the worker has told `event` so many times."""
        self.wait_until(lambda: self.count(event) >= count, f"{count} times {event}", timeout_secs)

    def wait_until(self, reached: Callable[[], bool], what: str, timeout_secs: float = 40) -> None:
        deadline = time.monotonic() + timeout_secs
        tick = threading.Event()
        while not reached():
            assert self.alive or reached(), f"the worker ended before {what}:\n{self.errors}"
            assert time.monotonic() < deadline, f"no {what} within {timeout_secs} s; last {self.events[-8:]}"
            tick.wait(0.01)

    def stop(self, timeout_secs: float = 40) -> int:
        """Ask it to leave; return what its exit code would be."""
        self.app.stop()
        return self.end(timeout_secs)

    def end(self, timeout_secs: float = 40) -> int:
        """Wait for the end."""
        self._thread.join(timeout_secs)
        assert not self.alive, f"still running after {timeout_secs} s; last {self.events[-8:]}"
        return self.returncode

    def close(self) -> None:
        for hold in self._watch.holds:
            hold.release()
        if self._thread.ident is not None:
            self.stop()

    def _run(self) -> None:
        try:
            self.app.run()
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            self.error = error
            self.errors = "".join(traceback.format_exception(error))

    def _tell_revocations(self) -> None:
        """Tell when a revocation begins to be served, besides when it is over."""
        assignment = self.app.worker._assignment
        revoked = assignment._revoked

        def serve(consumer: object, partitions: list[object]) -> None:
            self._watch.happened("revoking", (), {})
            revoked(consumer, partitions)

        assignment._revoked = serve


class ThreadedCrew(Crew):
    """A crew that also has workers in threads."""

    def here(self, name: str, *, start: bool = True, **more: object) -> LineThread:
        """Compose the worker `name` in a thread; a name that begins with "dynamic" gets no instance id."""
        if name in self.workers:
            self.past.append(self.workers.pop(name))
        instance = "" if name.startswith("dynamic") else name
        worker = LineThread(self.settings | {"kafka.instance_id": instance} | more)
        self.workers[name] = worker
        return worker.start() if start else worker

    def finish(self, timeout_secs: float = 60, *, ended: Sequence[object] = ()) -> LineOutput:
        """Wait until all input is decided, stop everybody, and read what was written; `ended` must have failed."""
        output = super().finish(timeout_secs, ended=ended)
        failed = [w for w in self.everybody if isinstance(w, LineThread) and w.error is not None]
        assert failed == list(ended), "".join(w.errors for w in failed)
        return output


@contextmanager
def threaded_crew(topics: Topics, source: str, settings: Mapping[str, object]) -> Iterator[ThreadedCrew]:
    """Give a crew on `source` with output topics and a group of its own; nobody outlives the block."""
    line = create_line(topics, source=source)
    found = ThreadedCrew(topics, line, {**settings, "kafka.group": f"group-{line.decisions}"})
    try:
        yield found
    finally:
        found.close()


def readable_to_its_end(topics: Topics, topic: str) -> bool:
    """Say whether no open transaction holds up a read_committed reader of the topic."""
    ends = topics.ends(topic)
    wanted = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in ends}
    found = topics.admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
    return all(future.result(20).offset >= ends[place.partition] for place, future in found.items())


def wait_until_ended(topics: Topics, topic: str, deadline_secs: float = 30) -> None:
    """Wait until every transaction that wrote to the topic has ended."""
    wait_until(lambda: readable_to_its_end(topics, topic), f"no transaction on {topic} is open", deadline_secs)
