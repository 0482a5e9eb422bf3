"""What happens in the worker, as JSON lines on standard error: who came, what went wrong, where it goes on.

A flood of bad input is one line a second: counts by reason, and where the first of each was met. A reason met for the
first time is told at once.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, TextIO

import orjson

from stream.log_format import JsonFormatter, hash_id, id_key
from stream.observer import BatchReport, Observer
from stream.secret import Secret

# What a hook means stands at Observer.
# ruff: noqa: D102

__all__ = ["LogObserver", "configure", "hash_id", "id_key"]

SUMMARY_SECS: Final = 1.0

log = logging.getLogger("fraudstream")


def configure(level: str, key: bytes, secrets: Iterable[Secret] = (), stream: TextIO | None = None) -> None:
    """Send every log line, warning and uncaught exception of the process to `stream` (standard error) as JSON.

    level: least severe level of our own lines; of other libraries' only warnings and worse are shown.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(key, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    own = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(own, logging.WARNING))
    log.setLevel(own)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, at)
        return
    log.critical("the process ends on an unexpected error", exc_info=(kind, error, at), extra={"event": "crashed"})


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        name = args.thread.name if args.thread else ""
        log.critical(
            "a thread ends on an unexpected error",
            exc_info=args.exc_value,
            extra={"event": "crashed", "thread_name": name},
        )


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        log.error("an error in a callback", exc_info=args.exc_value, extra={"event": "unraisable"})


class LogObserver(Observer):
    """Writes to the logger "fraudstream". key: what ids are hashed with, see id_key. clock: monotonic seconds."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._reasons_met: set[str] = set()
        self._dead: dict[str, int] = {}
        self._first_dead: dict[str, tuple[int, int | None, str]] = {}
        self._summary_at = 0.0
        self._breaker_open = False
        self._registry_failure = ""
        self._telemetry_lost = 0

    def started(self, *, model: str, engine: str, feature_set: str, state: str) -> None:
        _tell("started", "the worker starts", model=model, engine=engine, feature_set=feature_set, state=state)

    def turned(self) -> None:
        if self._dead:
            self._summarise()

    def assigned(self, partitions: list[int]) -> None:
        _tell("assigned", "partitions assigned", partitions=partitions)

    def revoked(self, partitions: list[int], *, lost: bool) -> None:
        if lost:
            _tell("lost", "partitions lost: what was in flight is given up", logging.WARNING, partitions=partitions)
        else:
            _tell("revoked", "partitions revoked", partitions=partitions)

    def recovering(self, partition: int, *, replay_from: int, live_from: int, reason: str) -> None:
        _tell(
            "recovering",
            "replaying without output",
            partition=partition,
            offset=replay_from,
            to=live_from,
            reason=reason,
        )

    def live(self, partition: int) -> None:
        _tell("live", "the partition is decided again", partition=partition)

    def batch(self, report: BatchReport) -> None:
        if not report.dead_letters:
            return
        with self._lock:
            for reason, count in report.dead_letters.items():
                self._dead[reason] = self._dead.get(reason, 0) + count
            for reason, place in report.first_dead.items():
                self._first_dead.setdefault(reason, place)
        self._summarise()

    def decision(self, value: bytes) -> None:
        """At debug level only: where it came from and its trace, ids hashed."""
        if not log.isEnabledFor(logging.DEBUG):
            return
        decision = orjson.loads(value)
        parent = decision.get("traceparent")
        _tell(
            "decision",
            "not approved",
            logging.DEBUG,
            partition=decision["partition"],
            offset=decision["offset"],
            **({"trace_id": parent.split("-")[1]} if parent else {}),
            decision=decision["decision"],
            transaction=hash_id(self._key, decision["transaction_id"]),
            user=hash_id(self._key, decision["user_id"]),
        )

    def aborted(self, reason: str) -> None:
        _tell("aborted", "the batch in flight is given up and decided again", logging.WARNING, reason=reason)

    def checkpointed(self, partition: int, *, users: int, watermark: int, secs: float) -> None:
        _tell(
            "checkpointed", "state stored", logging.DEBUG, partition=partition, offset=watermark, users=users, secs=secs
        )

    def store_failed(self, sentence: str) -> None:
        _tell("store_failed", "the store does not answer", logging.WARNING, reason=sentence)
        self._breaker_open = True

    def breaker(self, *, is_open: bool) -> None:
        if self._breaker_open and not is_open:
            _tell("store_back", "the store answers again")
        self._breaker_open = is_open

    def evicted(self, users: int) -> None:
        if users:
            _tell("evicted", "idle users left memory", logging.DEBUG, users=users)

    def paused(self, partitions: list[int], reason: str) -> None:
        _tell("paused", "intake waits", logging.WARNING, partitions=partitions, reason=reason)

    def resumed(self, partitions: list[int]) -> None:
        _tell("resumed", "intake goes on", partitions=partitions)

    def preparing(self, version: str) -> None:
        _tell("preparing", "another version was promoted", logging.DEBUG, version=version)

    def prepared(self, version: str, secs: float) -> None:
        _tell("prepared", "the promoted version is ready", logging.DEBUG, version=version, secs=round(secs, 3))

    def swapped(self, *, model: str, engine: str, feature_set: str, former: str, approved_by: str) -> None:
        message = f"model swapped from {former} to {model}, approved by {approved_by or 'nobody named'}"
        _tell("swapped", message, model=model, engine=engine, feature_set=feature_set, former=former)

    def swap_refused(self, version: str, running: str, sentence: str) -> None:
        _tell(
            "swap_refused",
            f"the promoted version is refused and {running} stays: {sentence}",
            logging.ERROR,
            version=version,
            model=running,
        )

    def window_kernel(self, *, feature_set: str, failure: str) -> None:
        if failure:
            message = (
                f"windows of feature set {feature_set} run on the general kernel, to the same bits and about a fifth "
                f"slower, until a restart: {failure}"
            )
            _tell("general_kernel", message, logging.WARNING, feature_set=feature_set)

    def followed(self, *, failure: str, is_current: bool) -> None:  # noqa: ARG002 (swaps are told by themselves)
        if failure and failure != self._registry_failure:
            _tell("registry_unreadable", f"promotions are not seen: {failure}", logging.WARNING)
        if self._registry_failure and not failure:
            _tell("registry_back", "the registry can be read again")
        self._registry_failure = failure

    def telemetry_written(self) -> None:
        if self._telemetry_lost:
            _tell("telemetry_back", "telemetry is written again", lost=self._telemetry_lost)
            self._telemetry_lost = 0

    def telemetry_dropped(self, reason: str) -> None:
        if not self._telemetry_lost:
            message = "telemetry cannot be written, decisions go on without it"
            _tell("telemetry_dropped", message, logging.WARNING, reason=reason)
        self._telemetry_lost += 1

    def stopped(self) -> None:
        self._summarise(now=True)
        _tell("stopped", "the worker has left its group")

    def _summarise(self, *, now: bool = False) -> None:
        """Tell of the dead letters since the last time, at once where a reason is new, else once a second."""
        with self._lock:
            new = not self._reasons_met.issuperset(self._dead)
            if not self._dead or not (now or new or self._clock() >= self._summary_at):
                return
            counts, first = self._dead, self._first_dead
            self._dead, self._first_dead = {}, {}
            self._reasons_met.update(counts)
            self._summary_at = self._clock() + SUMMARY_SECS
        places = {
            reason: {"partition": partition, "offset": offset, "field": field}
            for reason, (partition, offset, field) in first.items()
        }
        _tell("dead_letters", "records that could not be scored", logging.WARNING, counts=counts, first=places)


def _tell(event: str, message: str, level: int = logging.INFO, **fields: Any) -> None:
    log.log(level, message, extra={"event": event, **fields})
