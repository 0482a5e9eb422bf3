"""The race: every contender on the same records, model and broker, its answers checked, its CPU and time measured.

One run of one contender
    Step 1  topics of its own, the warm part in the source
    Step 2  start its processes and wait until they have decided the warm part: windows are full
    Step 3  suspend them, add the measured part, resume them and wait until all of it is decided
    Step 4  read the decisions back and compare each with the right answer; of ours also what else they write
    Step 5  measure from the resumption to the moment at which the broker appended the last decision

Ours stores users so often that for any worker slower than FASTEST the measured part lasts longer than the interval, so
that a checkpoint falls into it: every 4.5 s with 900,000 payments, every 0.5 s with 100,000; the default is every 10 s.

CPU seconds are those of all its processes, threads and children; those of the broker and of Redis are told apart.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import psutil
from confluent_kafka import Producer

from contender import Contender, Job, Ours, Watched
from kafka_topics import Record, Topics
from models.policy import OUTCOMES, Thresholds
from scene import LONG, WARM, Scene, Written
from stream.feature_log import read_feature_log

TOLERANCE = 1e-5  # of a score, a probability, from ours
STARTING_SECS, STALLED_SECS = 300.0, 90.0  # without a first or one more decision: it will not come
SETTLED_SECS = 0.5
PARTITIONS = 4
FASTEST = 200_000  # events a second
DEFAULT_CHECKPOINT_MS, LEAST_CHECKPOINT_MS = 10_000, 100
LEAST_SHARE = 0.15  # of two processes' CPU: with less, one held no partitions
CLOSING = "closing-"


@dataclass(frozen=True)
class Measured:
    """events a second on the clock; µs of CPU an event, the contender's and that of broker and Redis; bytes.

    stored: users that checkpoints of ours wrote within the measured part, one every checkpoint_ms.
    """

    rate: float
    cpu_us: float
    servers_us: float
    decision_bytes: float
    row_bytes: float
    stored: int = 0
    checkpoint_ms: int = 0


class Wrong(AssertionError):
    """A contender's answers are not right, or did not come."""


class Ring:
    """Broker, Redis and scene that all contenders share. most: how many payments to measure at most."""

    def __init__(
        self,
        scene: Scene,
        topics: Topics,
        redis_url: str,
        servers: Sequence[int],
        most: int = LONG,
        warm: int = WARM,
    ) -> None:
        self.scene, self.topics, self._redis = scene, topics, redis_url
        self._servers = [psutil.Process(pid) for pid in servers]
        self._warm, self._most = warm, most

    def run(self, contender: Contender, *, partitions: int = PARTITIONS) -> Measured:
        """Race one contender once. Raises Wrong."""
        # Step 1
        folder = tempfile.mkdtemp(prefix="fraudstream-race-")
        events = min(contender.events, self._most)
        job = new_job(
            contender,
            self.topics,
            self._redis,
            self.scene,
            folder,
            total=self._warm + events,
            partitions=partitions,
            checkpoint_ms=max(LEAST_CHECKPOINT_MS, min(DEFAULT_CHECKPOINT_MS, 1000 * events // FASTEST)),
        )
        try:
            self._fill(job, 0, self._warm, closed=contender.closed)
            # Step 2
            watched = Watched(contender, job, self._servers)
            try:
                self._wait(job, watched, self._warm)
                # Step 3
                with watched.suspended():
                    self._fill(job, self._warm, job.total, closed=contender.closed)
                resumed = time.time()
                records = self._wait(job, watched, job.total)
            finally:
                watched.end()
            # Steps 4 and 5
            return self._measure(job, watched, resumed, records)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            for topic in (job.source, job.decisions, job.dead_letters, job.features, job.telemetry):
                self.topics.delete(topic)

    def _fill(self, job: Job, first: int, end: int, *, closed: bool) -> None:
        """Write a part of the scene, keyed as Java's producer keys, each record stamped with its payment's time."""
        producer = Producer(
            {
                "bootstrap.servers": self.topics.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.messages": 2_000_000,
            }
        )
        scene = self.scene
        columns = scene.keys[first:end], scene.values[first:end], scene.times_ms[first:end].tolist()
        for key, value, time_ms in zip(*columns, strict=True):
            producer.produce(job.source, value, key, timestamp=time_ms)
        for partition in range(job.partitions) if closed else ():
            # As late as the payment that comes next, so that nothing of that one is late.
            time_ms = int(scene.times_ms[end]) if end < len(scene.times_ms) else int(scene.times_ms[-1]) + 1
            name = f"{CLOSING}{first}-{partition}"
            payment = {"transaction_id": name, "user_id": name, "amount": 1.0, "event_time": time_ms, "country": ""}
            producer.produce(job.source, json.dumps(payment), name, partition, timestamp=time_ms)
        assert producer.flush(60) == 0

    def _wait(self, job: Job, watched: Watched, wanted: int) -> list[Record]:
        """Return the decisions once the log holds so many."""
        before, changed = -1, time.monotonic()
        tick = threading.Event()
        while True:
            now = sum(self.topics.ends(job.decisions).values())
            if now != before:
                before, changed = now, time.monotonic()
            # Transactions leave markers, so that more than enough may still be too little: then more will come.
            if now >= wanted and time.monotonic() - changed > SETTLED_SECS:
                records = [one for one in self.topics.read(job.decisions) if CLOSING.encode() not in one.value]
                if len(records) >= wanted:
                    return records
            if not watched.alive:
                raise Wrong(f"ended after {now:,} decisions: {watched.last_words()}")
            patience = STALLED_SECS if now else STARTING_SECS
            if time.monotonic() - changed > patience:
                raise Wrong(f"no decision for {patience:.0f} s after {now:,}: {watched.last_words()}")
            tick.wait(0.1)

    def _measure(self, job: Job, watched: Watched, resumed: float, records: Sequence[Record]) -> Measured:
        contender = watched.contender
        features, telemetry = (self.topics.read(topic) for topic in (job.features, job.telemetry))
        ended = max(record.timestamp_ms for record in records) / 1000
        own, servers = watched.spent(resumed, ended)
        stored = [users for _, users, _ in watched.said("checkpointed", resumed, ended)]
        if contender.name == "null":
            _check_null(records, job.total)
        else:
            check(records, job.total, self.scene.scores, self.scene.thresholds, contender.ours)
        if contender.ours:
            if contender.ours == Ours():
                check_written(records, self.scene.written)
            check_ours(contender.ours, job.total, [one.value for one in features], len(telemetry), stored)
        if min(own) < LEAST_SHARE * sum(own):
            raise Wrong(f"one of {len(own)} processes did {min(own) / sum(own):.0%} of the work")
        events = job.total - self._warm
        return Measured(
            rate=events / (ended - resumed),
            cpu_us=sum(own) / events * 1e6,
            servers_us=servers / events * 1e6,
            decision_bytes=float(np.mean([len(record.value) for record in records])),
            row_bytes=sum(len(record.value) for record in features) / len(records),
            stored=sum(stored),
            checkpoint_ms=job.checkpoint_ms,
        )


def new_job(
    contender: Contender,
    topics: Topics,
    redis_url: str,
    scene: Scene,
    folder: str,
    *,
    total: int = 0,
    partitions: int = PARTITIONS,
    checkpoint_ms: int = DEFAULT_CHECKPOINT_MS,
) -> Job:
    """Return what a contender is told, its topics created."""
    decisions = topics.create("decisions", partitions, {"message.timestamp.type": "LogAppendTime"})
    return Job(
        bootstrap=topics.bootstrap,
        redis=redis_url,
        source=topics.create("transactions", partitions),
        decisions=decisions,
        dead_letters=topics.create("dlq", partitions, {"max.message.bytes": "2000000"}),
        features=topics.create("features", partitions),
        telemetry=topics.create("telemetry", 1),
        group=f"race-{decisions}",
        bundle=str(scene.bundle),
        silent=str(scene.silent),
        graph=str(scene.graph),
        written=str(scene.written),
        checkpoint_ms=checkpoint_ms,
        folder=folder,
        delivery=contender.delivery,
        total=total,
        partitions=partitions,
    )


def check(
    records: Sequence[Record], total: int, scores: np.ndarray, thresholds: Thresholds, ours: Ours | None = None
) -> None:
    """Raise Wrong unless each payment has one decision, a score within the tolerance, the right word.

    Words are compared where the right score is farther from both thresholds than the tolerance. Of ours, scores are
    equal to the last bit (but of another engine), and what is held has its reasons and nothing else.
    """
    decisions = [orjson.loads(record.value) for record in records]
    rows = np.array([int(decision["transaction_id"][2:]) for decision in decisions])
    seen = np.bincount(rows, minlength=total)
    if len(seen) > total or (seen != 1).any():
        raise Wrong(f"{int((seen == 0).sum()):,} payments without a decision, {int((seen > 1).sum()):,} with several")
    found = np.array([decision["score"] for decision in decisions], np.float64)
    away = np.abs(found - scores[rows])
    if not (away <= TOLERANCE).all():
        worst = int(np.argmax(np.nan_to_num(away, nan=np.inf)))
        count = int((~(away <= TOLERANCE)).sum())
        raise Wrong(f"{count:,} scores differ, most {decisions[worst]['transaction_id']} by {away[worst]:.2g}")
    if ours and ours.exact and (found.astype(np.float32) != scores[rows]).any():
        raise Wrong(f"{int((found.astype(np.float32) != scores[rows]).sum()):,} scores differ in their last bits")
    if ours and not ours.held:
        thresholds = Thresholds(1.0, 1.0)
    right = scores[rows]
    near = np.minimum(abs(right - thresholds.review), abs(right - thresholds.decline)) <= TOLERANCE
    words = np.array(OUTCOMES)[thresholds.decide(right)]
    other = (np.array([decision["decision"] for decision in decisions]) != words) & ~near
    if other.any():
        first = decisions[int(np.argmax(other))]
        raise Wrong(f"{int(other.sum()):,} decisions differ, first {first['transaction_id']}: {first['decision']}")
    if ours:
        amiss = sum(bool(decision["reasons"]) != (decision["decision"] != "approve") for decision in decisions)
        if amiss:
            raise Wrong(f"{amiss:,} decisions are held without reasons, or have some and are not held")


def check_ours(ours: Ours, total: int, features: Sequence[bytes], telemetry: int, stored: Sequence[int]) -> None:
    """Raise Wrong unless ours wrote what else it is to write, and nothing that it is told not to.

    features: records of the feature log. telemetry: how many records. stored: users of each measured checkpoint.
    """
    rows = sum(read_feature_log(record).num_rows for record in features)
    if rows != (total if ours.features else 0):
        raise Wrong(f"{rows:,} rows in the feature log for {total:,} payments")
    if (telemetry > 0) != ours.telemetry:
        raise Wrong(f"{telemetry:,} records of telemetry")
    if not sum(stored):
        raise Wrong("no checkpoint stored users while it was measured")


def check_written(records: Sequence[Record], written: Path) -> None:
    """Raise Wrong unless the decisions that null writes are those of ours, but for where and when."""
    sample = msgspec.msgpack.decode(written.read_bytes(), type=Written).decisions
    right = {decision["transaction_id"]: decision for decision in map(_without_place, sample)}
    for decision in (_without_place(record.value) for record in records):
        name = decision["transaction_id"]
        if right.get(name, decision) != decision:
            raise Wrong(f"null writes another decision of {name}")


def _without_place(decision: bytes) -> dict[str, Any]:
    """Return a decision without what a run, not the payment, gives it."""
    found = orjson.loads(decision)
    for name in ("scored_at", "partition", "offset"):
        del found[name]
    return found


def _check_null(records: Sequence, total: int) -> None:
    if len(records) != total:
        raise Wrong(f"{len(records):,} records for {total:,}")
