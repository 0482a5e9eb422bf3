"""Puts state, models and stream together; the one place that knows all three."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from confluent_kafka import Consumer, Producer

from state.compile_process import compile_beside
from state.features import FeatureSet, StateSpec
from state.memory_store import MemoryStore
from state.redis_store import RedisStore
from state.sqlite_store import SqliteStore
from state.store import Namespace, Store
from state.windows import Windows, is_warm, load, warm
from stream.assignment import Assignment
from stream.breaker import Breaker
from stream.checkpoint import Checkpointer
from stream.clients import LastingConsumer, consumer_config, producer_config, telemetry_config
from stream.codec import DecisionEncoder, Decoder, warm_codec
from stream.delivery import AtLeastOnce, Delivery, ExactlyOnce
from stream.embedded import check_embedded
from stream.errors import StartupError
from stream.feature_log import FeatureLog
from stream.line import Line, Scorer, Topics
from stream.model_cache import ModelCache
from stream.namespace import begins_now, check_namespace
from stream.observer import Observer, Observers, ScoredBy
from stream.scoring import First, Scoring, first_model, prove
from stream.settings import Settings
from stream.sources import DirectorySource, Pointer, Source
from stream.swap import Model, Swapper
from stream.telemetry import TelemetryObserver, worker_name
from stream.telemetry_writer import TelemetryWriter
from stream.topics import Surroundings, look_around
from stream.worker import Limits, Worker

__all__ = ["App", "compose", "make_store"]

log = logging.getLogger("fraudstream")

#: Beyond the retention, how long stored users outlive their last write: an outage shorter than this loses nobody.
EXPIRY_MARGIN_MS: Final = 7 * 86_400_000
WORTH_A_WORD_SECS: Final = 5.0
BATCH_HEADER_BYTES: Final = 128  # what the broker counts besides the record's value
FEATURE_RECORD_BYTES: Final = 512 << 10  # half of a topic's default limit
NOT_FOLLOWED: Final = Pointer("", "", "", 0)


@dataclass(frozen=True)
class App:
    """A composed worker: run() until stop()."""

    worker: Worker
    line: Line
    swapper: Swapper | None = None

    def run(self) -> None:
        """Score until stopped."""
        if self.swapper is None:
            self.worker.run(self.line)
            return
        self.swapper.start()
        try:
            self.worker.run(self.line, self.swapper)
        finally:
            self.swapper.stop()

    def stop(self) -> None:
        """Finish the batch, commit, checkpoint, leave; for another thread to call."""
        self.worker.stop()


def make_store(settings: Settings, namespace: Namespace) -> Store:
    """Return the store the settings name, not yet opened."""
    kept = settings.store
    expire_after_ms = int(settings.state.retention) + EXPIRY_MARGIN_MS
    if kept.kind == "redis":
        return RedisStore(kept.url.reveal(), namespace, expire_after_ms=expire_after_ms, prefix=kept.prefix)
    if kept.kind == "sqlite":
        Path(kept.path).parent.mkdir(parents=True, exist_ok=True)
        return SqliteStore(kept.path, namespace, expire_after_ms=expire_after_ms)
    return MemoryStore(namespace)


def compose(settings: Settings, observer: Observer, *, bootstrap: str | None = None) -> App:
    """Check the surroundings and put a worker together; nothing is consumed before run().

    bootstrap: where the embedded broker listens. Raises FraudstreamError, StateError or ModelError with one sentence.
    """
    check_embedded(settings)
    first = first_model(settings)
    scoring = first.scoring
    if first.failure:
        log.warning("starting with the cached model %s: %s", scoring.model, first.failure)
        observer.followed(failure=first.failure, is_current=False)
    spec = settings.state_spec()
    spec.check(scoring.feature_set)
    around = look_around(settings, bootstrap=bootstrap)
    for finding in around.warnings:
        log.warning(finding.sentence)
    _check_feature_topic(settings, scoring.feature_set, around)
    namespace = Namespace(
        around.cluster_id,
        settings.kafka.group,
        settings.topics.transactions,
        around.topic_id,
        spec.hash,
        around.partitions,
    )
    store = make_store(settings, namespace)
    store.open()
    try:
        registered = store.registered()
        check_namespace(store, namespace, registered, settings.store.recovery)
    except BaseException:
        store.close()
        raise
    # The first batch must not wait for kernels to load or a session to allocate.
    _warm_windows(spec, scoring.feature_set)
    warm_codec()
    scoring.judge.judge(np.zeros((1, len(scoring.feature_set.names)), np.float32), np.zeros(1, np.uint16))
    fresh = begins_now(namespace, registered, settings.store.recovery)
    app = _wire(settings, observer, first, spec, store, around, bootstrap, begins_now=fresh)
    observer.started(model=scoring.model, engine=scoring.engine, feature_set=scoring.feature_set.hash, state=spec.hash)
    return app


def _warm_windows(spec: StateSpec, feature_set: FeatureSet) -> None:
    started = time.monotonic()
    warm(spec, feature_set)
    _tell_if_long(time.monotonic() - started)


def _tell_if_long(secs: float) -> None:
    if secs > WORTH_A_WORD_SECS:
        log.info("compiled the window kernels for this feature set in %.0f s; the next start finds them", secs)


def _check_feature_topic(settings: Settings, features: FeatureSet, around: Surroundings) -> None:
    """Refuse a topic that cannot take one row: every batch would be aborted, until the worker gives up."""
    row = FeatureLog(features.names, features.hash, max_bytes=1).row_bytes(settings.codec.limits.max_id_length)
    needed = row + BATCH_HEADER_BYTES
    if around.feature_bytes < needed:
        raise StartupError(
            f"The topic {settings.topics.features} (topics.features) takes records of {around.feature_bytes} bytes, "
            f"and one row of {len(features.names)} features can have {needed}: raise its max.message.bytes."
        )


def _wire(
    settings: Settings,
    observer: Observer,
    first: First,
    spec: StateSpec,
    store: Store,
    around: Surroundings,
    bootstrap: str | None,
    *,
    begins_now: bool,
) -> App:
    clock = time.monotonic
    topic = settings.topics.transactions
    models = _Models(settings, spec, around)
    model = models.model(first.scoring, first.pointer or NOT_FOLLOWED)
    line: Line | None = None

    def scores_with() -> ScoredBy:
        return model.scorer.scored_by if line is None else line.scored_by

    if settings.telemetry.enabled:
        observer = Observers(observer, _telemetry(settings, observer, scores_with, bootstrap))
    consumer = LastingConsumer(
        lambda on_error: Consumer(consumer_config(settings, bootstrap=bootstrap, on_error=on_error))
    )
    breaker = Breaker(clock, observer)
    checkpointer = Checkpointer(
        store,
        observer,
        breaker,
        clock,
        interval_secs=settings.store.checkpoint_interval_ms / 1000,
        now_ms=_now_ms,
    )
    delivery = _delivery(settings, observer, consumer, around, bootstrap)
    assignment = Assignment(
        consumer,
        topic,
        delivery,
        store,
        checkpointer,
        breaker,
        model.make_windows,
        observer,
        start=settings.kafka.start,
        choice=settings.store.recovery,
        begins_now=begins_now,
        partitions=around.partitions,
        retention_ms=spec.retention_ms,
        transaction_secs=settings.kafka.transaction_timeout_ms / 1000,
        vouches_ms=EXPIRY_MARGIN_MS,
        now_ms=_now_ms,
    )
    limits = Limits(
        max_batch=settings.worker.max_batch,
        poll_secs=settings.worker.poll_timeout_ms / 1000,
        memory_bytes=int(settings.state.memory_limit_bytes),
        unwritten_bytes=int(settings.worker.max_unwritten_bytes),
        max_aborts=settings.worker.max_consecutive_aborts,
        shutdown_secs=settings.worker.shutdown_timeout_ms / 1000,
    )
    worker = Worker(consumer, topic, assignment, delivery, store, checkpointer, breaker, observer, limits, clock)
    line = Line(
        Decoder(settings.mapping(), settings.limits()),
        model.scorer,
        Topics(settings.topics.decisions, settings.topics.dead_letters, settings.topics.features),
        worker.load,
        _now_ms,
        retention_ms=spec.retention_ms,
    )
    return App(worker, line, _swapper(settings, observer, models, model) if first.pointer else None)


class _Models:
    """Makes what the line takes of what scores."""

    def __init__(self, settings: Settings, spec: StateSpec, around: Surroundings) -> None:
        self._settings = settings
        self._spec = spec
        self._around = around
        self._logs: dict[str, FeatureLog] = {}  # one a feature set, as it remembers what the broker found too large

    def model(self, scoring: Scoring, pointer: Pointer, no_kernel: str = "") -> Model:
        """Return the model of a version; no_kernel as in Model."""
        features = scoring.feature_set
        names = scoring.judge.outcome_names
        if features.hash not in self._logs:
            most = min(FEATURE_RECORD_BYTES, self._around.feature_bytes)
            self._logs[features.hash] = FeatureLog(features.names, features.hash, max_bytes=most)
        encoder = DecisionEncoder(names, scoring.model, scoring.engine, features.hash)
        scorer = Scorer(scoring.judge, encoder, self._logs[features.hash], scoring.scored_by())
        make_windows = partial(Windows, self._spec, features)
        return Model(pointer, scoring.model, scoring.engine, features.hash, scorer, make_windows, no_kernel)

    def load(self, source: Source, pointer: Pointer) -> Model:
        """Return a promoted version, ready to score. Raises FraudstreamError, ModelError or StateError."""
        scoring = prove(self._settings, source.open(pointer))
        _check_feature_topic(self._settings, scoring.feature_set, self._around)
        return self.model(scoring, pointer, self._warm(scoring.feature_set))

    def _warm(self, features: FeatureSet) -> str:
        """Have the windows' kernel for a promoted feature set at hand; return why there is none, or nothing.

        Compiled in a process beside this one: in a thread of this one nothing would be decided for many seconds.
        """
        if is_warm(self._spec, features) or load(self._spec, features):
            return ""
        started = time.monotonic()
        if failure := compile_beside(self._spec, features):
            return failure
        _tell_if_long(time.monotonic() - started)
        return "" if load(self._spec, features) else "what was compiled beside this worker is not found on disk"


def _swapper(settings: Settings, observer: Observer, models: _Models, running: Model) -> Swapper:
    source = DirectorySource(Path(settings.model.follow))
    return Swapper(
        source,
        partial(models.load, source),
        running,
        ModelCache(Path(settings.model.cache)),
        observer,
        poll_secs=int(settings.model.poll_interval) / 1000,
    )


def _telemetry(
    settings: Settings, observer: Observer, scores_with: Callable[[], ScoredBy], bootstrap: str | None
) -> TelemetryObserver:
    worker = worker_name(settings.kafka.instance_id)
    config = telemetry_config(settings, bootstrap=bootstrap)
    writer = TelemetryWriter(lambda: Producer(config), settings.topics.telemetry, worker.encode(), observer)
    return TelemetryObserver(writer, settings.telemetry, worker, _now_ms(), scores_with, _now_ms)


def _delivery(
    settings: Settings, observer: Observer, consumer: LastingConsumer, around: Surroundings, bootstrap: str | None
) -> Delivery:
    topic = settings.topics.transactions
    exactly_once = settings.kafka.delivery == "exactly_once"

    def make_producer(report: Callable[..., None]) -> Producer:
        config: dict[str, Any] = producer_config(
            settings, transactional=exactly_once, bootstrap=bootstrap, batch_bytes=around.batch_bytes
        )
        # Only failures are reported one by one: a callback for each success costs as much as the encoding.
        return Producer({**config, "on_delivery": report, "delivery.report.only.error": True})

    if exactly_once:
        return ExactlyOnce(make_producer, topic, observer, timeout_secs=settings.kafka.transaction_timeout_ms / 1000)
    return AtLeastOnce(make_producer, topic, observer, consumer)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
