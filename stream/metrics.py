"""What the worker does, as Prometheus reads it. Counting costs microseconds a batch; ages are taken at the scrape."""

# What a hook means stands at Observer; not every argument of each is a metric.
# ruff: noqa: D102, ARG002

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.deadletter import ERRORS
from stream.decision import FLAG_NAMES
from stream.observer import BatchReport, Observer
from stream.tally import Counter, Histogram, add_histogram

__all__ = ["PrometheusObserver"]

MS_PER_SEC: Final = 1000.0  # dividing, unlike multiplying by 0.001, meets the bounds exactly

# Finest where the promises are (a few to some tens of milliseconds), up to a backlog of minutes.
LATENCY_SECS: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
# A stage takes tens of microseconds for one record and tens of milliseconds for a full batch.
STAGE_SECS: Final = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
BATCH_RECORDS: Final = (*(2.0**power for power in range(13)), 16384.0, 65536.0)
OUTCOMES: Final = ("approve", "review", "decline")
SWAP_OUTCOMES: Final = ("swapped", "refused")


@dataclass(slots=True)
class _Held:
    """One partition as last heard of. stored_at: monotonic seconds when the store last took a slice, or had it all."""

    stored_at: float
    live: bool = False
    paused: bool = False
    lag: int = 0
    committed: int = 0
    watermark: int = 0
    users: int = 0
    size_bytes: int = 0
    events: int = 0
    unwritten: int = 0


_BY_PARTITION: Final[tuple[tuple[str, str, Callable[[_Held, float], float]], ...]] = (
    ("consumer_lag_records", "Offsets between what is processed and the log's end.", lambda p, _: p.lag),
    ("committed_offset", "Next offset to consume, as acknowledged by the broker.", lambda p, _: p.committed),
    ("watermark_offset", "Every user touched below this offset is in the store.", lambda p, _: p.watermark),
    (
        "checkpoint_age_seconds",
        "Time since state was last written to the store, or since there was nothing left to write.",
        lambda p, now: max(0.0, now - p.stored_at),
    ),
    ("state_users", "Users held in memory.", lambda p, _: p.users),
    ("state_bytes", "Memory that users' windows take.", lambda p, _: p.size_bytes),
    ("state_events", "Events held in windows.", lambda p, _: p.events),
    ("state_unwritten_users", "Users changed since they were last written to the store.", lambda p, _: p.unwritten),
    ("partition_live", "1 once the replay after an assignment is over, else 0.", lambda p, _: p.live),
    ("partition_paused", "1 while intake waits for the store or for memory, else 0.", lambda p, _: p.paused),
)


class PrometheusObserver(Observer, Collector):
    """Counts what the hooks tell, and shows it through a registry of its own.

    clock: monotonic seconds. started_at: epoch seconds of the start. Series of partitions given up disappear.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, started_at: float | None = None) -> None:
        self._clock = clock
        self._started_at = time.time() if started_at is None else started_at
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._assigned: set[int] = set()
        self._info: dict[str, str] = {}
        self._up = True
        self._breaker_open = self._general_kernel = False
        self._registry_readable = self._model_current = True
        self._count()
        self._measure()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def _count(self) -> None:
        self._events = Counter(
            "fraudstream_events", "Transactions scored and sent, those of batches aborted at the commit included."
        )
        self._replayed = Counter("fraudstream_replayed_events", "Transactions replayed without output.")
        self._decisions = Counter("fraudstream_decisions", "Decisions by outcome.", "decision", OUTCOMES)
        self._dead = Counter(
            "fraudstream_dead_letters", "Records that could not be scored, by reason.", "reason", ERRORS
        )
        self._flags = Counter(
            "fraudstream_flagged_events", "Transactions whose windows are unusual, by flag.", "flag", FLAG_NAMES
        )
        self._turns = Counter("fraudstream_turns", "Rounds of the loop, with or without records.")
        self._commits = Counter("fraudstream_commits", "Batches made durable.")
        self._aborts = Counter("fraudstream_aborts", "Batches given up, to be decided again.")
        self._store_failures = Counter("fraudstream_store_failures", "Calls that the store did not answer.")
        self._evicted = Counter("fraudstream_evicted_users", "Idle users dropped from memory.")
        self._swaps = Counter(
            "fraudstream_model_swaps", "Promotions taken up, and those refused.", "outcome", SWAP_OUTCOMES
        )
        self._telemetry_written = Counter("fraudstream_telemetry_written", "Records of telemetry that the broker has.")
        self._telemetry_dropped = Counter(
            "fraudstream_telemetry_dropped", "Records of telemetry lost: the monitor knows nothing of their events."
        )
        self._loaded = Counter("fraudstream_loaded_users", "Users looked up in the store because memory had them not.")

    def _measure(self) -> None:
        self._batch = Histogram(BATCH_RECORDS)
        self._latency = Histogram(LATENCY_SECS)
        self._commit = Histogram(STAGE_SECS)
        self._load = Histogram(STAGE_SECS)
        self._checkpoint = Histogram(STAGE_SECS)
        self._model_load = Histogram(STAGE_SECS)
        self._stages: dict[str, Histogram] = {}

    # Hooks, in the observer's order.

    def started(self, *, model: str, engine: str, feature_set: str, state: str) -> None:
        with self._lock:
            self._info = {"model": model, "engine": engine, "feature_set": feature_set, "state": state}

    def turned(self) -> None:
        with self._lock:
            self._turns.add()

    def assigned(self, partitions: list[int]) -> None:
        with self._lock:
            self._assigned.update(partitions)
            for number in partitions:
                self._partition(number)

    def revoked(self, partitions: list[int], *, lost: bool) -> None:
        with self._lock:
            self._assigned.difference_update(partitions)
            for number in partitions:
                self._held.pop(number, None)

    def recovering(self, partition: int, *, replay_from: int, live_from: int, reason: str) -> None:
        with self._lock:
            self._held[partition] = _Held(self._clock(), committed=live_from, watermark=replay_from)

    def live(self, partition: int) -> None:
        with self._lock:
            self._partition(partition).live = True

    def batch(self, report: BatchReport) -> None:
        with self._lock:
            self._events.add(report.events)
            self._decisions.add_all(report.outcomes)
            dead = 0
            if report.dead_letters:
                self._dead.add_all(report.dead_letters)
                dead = sum(report.dead_letters.values())
            if report.replayed:
                self._replayed.add(report.replayed)
            if report.flags:
                self._flags.add_all(report.flags)
            self._batch.add(report.events + report.replayed + dead)
            self._latency.add_all(report.latency_ms / MS_PER_SEC)
            for stage, secs in report.stage_secs.items():
                histogram = self._stages.get(stage)
                if histogram is None:
                    histogram = self._stages[stage] = Histogram(STAGE_SECS)
                histogram.add(secs)

    def committed(self, secs: float) -> None:
        with self._lock:
            self._commits.add()
            self._commit.add(secs)

    def aborted(self, reason: str) -> None:
        with self._lock:
            self._aborts.add()

    def position(self, partition: int, *, committed: int, lag: int) -> None:
        with self._lock:
            if (held := self._held.get(partition)) is not None:
                held.committed, held.lag = committed, lag

    def loaded(self, users: int, secs: float) -> None:
        with self._lock:
            self._loaded.add(users)
            self._load.add(secs)

    def checkpointed(self, partition: int, *, users: int, watermark: int, secs: float) -> None:
        with self._lock:
            self._checkpoint.add(secs)
            if (held := self._held.get(partition)) is not None:
                held.watermark, held.stored_at = watermark, self._clock()

    def store_failed(self, sentence: str) -> None:
        with self._lock:
            self._store_failures.add()
            self._breaker_open = True

    def breaker(self, *, is_open: bool) -> None:
        with self._lock:
            self._breaker_open = is_open

    def evicted(self, users: int) -> None:
        with self._lock:
            self._evicted.add(users)

    def memory(self, partition: int, *, users: int, size_bytes: int, events: int, unwritten: int) -> None:
        with self._lock:
            if (held := self._held.get(partition)) is not None:
                held.users, held.size_bytes, held.events, held.unwritten = users, size_bytes, events, unwritten
                if not unwritten and held.watermark >= held.committed:
                    held.stored_at = self._clock()

    def paused(self, partitions: list[int], reason: str) -> None:
        self._set_paused(partitions, paused=True)

    def resumed(self, partitions: list[int]) -> None:
        self._set_paused(partitions, paused=False)

    def prepared(self, version: str, secs: float) -> None:
        with self._lock:
            self._model_load.add(secs)

    def swapped(self, *, model: str, engine: str, feature_set: str, former: str, approved_by: str) -> None:
        with self._lock:
            self._swaps.add(value="swapped")
            self._info |= {"model": model, "engine": engine, "feature_set": feature_set}
            self._model_current = True

    def swap_refused(self, version: str, running: str, sentence: str) -> None:
        with self._lock:
            self._swaps.add(value="refused")

    def window_kernel(self, *, feature_set: str, failure: str) -> None:
        with self._lock:
            self._general_kernel = bool(failure)

    def followed(self, *, failure: str, is_current: bool) -> None:
        with self._lock:
            self._registry_readable, self._model_current = not failure, is_current

    def telemetry_written(self) -> None:
        with self._lock:
            self._telemetry_written.add()

    def telemetry_dropped(self, reason: str) -> None:
        with self._lock:
            self._telemetry_dropped.add()

    def stopped(self) -> None:
        with self._lock:
            self._up = False
            self._held.clear()
            self._assigned.clear()

    # What a scrape shows.

    def collect(self) -> Iterable[Metric]:
        """Return everything at one moment."""
        with self._lock:
            return [*self._gauges(), *self._partitions(), *self._counters(), *self._histograms()]

    def _gauges(self) -> Iterable[Metric]:
        yield InfoMetricFamily("fraudstream_model", "What this worker scores with.", self._info or None)
        held = self._held.values()
        for name, about, value in (
            ("start_time_seconds", "Start of the worker since the Unix epoch.", self._started_at),
            ("worker_up", "1 until the worker has left its group, then 0.", self._up),
            ("assigned_partitions", "Partitions this worker holds.", len(self._assigned)),
            ("live_partitions", "Partitions whose replay is over.", sum(p.live for p in held)),
            ("paused_partitions", "Partitions whose intake waits.", sum(p.paused for p in held)),
            (
                "model_current",
                "0 while the registry names another model than scores, else 1.",
                self._model_current,
            ),
            ("registry_readable", "0 while the registry directory cannot be read, else 1.", self._registry_readable),
            (
                "general_kernel",
                "1 while windows run on the general kernel because their own could not be compiled, else 0.",
                self._general_kernel,
            ),
            ("store_breaker_open", "1 while the store does not answer, else 0.", self._breaker_open),
        ):
            yield GaugeMetricFamily(f"fraudstream_{name}", about, float(value))

    def _partitions(self) -> Iterable[Metric]:
        now, held = self._clock(), sorted(self._held.items())
        for name, about, value in _BY_PARTITION:
            family = GaugeMetricFamily(f"fraudstream_{name}", about, labels=["partition"])
            for number, partition in held:
                family.add_metric([str(number)], float(value(partition, now)))
            yield family

    def _counters(self) -> Iterable[Metric]:
        for counter in (
            *(self._events, self._replayed, self._decisions, self._dead, self._flags),
            *(self._turns, self._commits, self._aborts, self._store_failures, self._evicted, self._loaded, self._swaps),
            *(self._telemetry_written, self._telemetry_dropped),
        ):
            yield counter.family()

    def _histograms(self) -> Iterable[Metric]:
        for name, about, histogram in (
            ("batch_records", "Records of one batch.", self._batch),
            ("decision_latency_seconds", "From a record's broker timestamp to its decision.", self._latency),
            ("commit_seconds", "From a batch's last record to its commit.", self._commit),
            ("store_load_seconds", "One read of users from the store.", self._load),
            ("model_load_seconds", "From a promotion seen to its model ready to score.", self._model_load),
            ("checkpoint_seconds", "One slice of a checkpoint written to the store.", self._checkpoint),
        ):
            yield HistogramMetricFamily(f"fraudstream_{name}", about, histogram.buckets, histogram.sum)
        stages = HistogramMetricFamily("fraudstream_stage_seconds", "One batch in one stage.", labels=["stage"])
        for stage, histogram in self._stages.items():
            add_histogram(stages, [stage], histogram)
        yield stages

    def _partition(self, number: int) -> _Held:
        held = self._held.get(number)
        if held is None:
            held = self._held[number] = _Held(self._clock())
        return held

    def _set_paused(self, partitions: list[int], *, paused: bool) -> None:
        with self._lock:
            for number in partitions:
                if (held := self._held.get(number)) is not None:
                    held.paused = paused
