"""The race: every contender on the same records, model and broker, its answers checked, its CPU and time measured.

One run of one contender
    Step 1  topics of its own, the warm part in the source
    Step 2  start its processes and wait until they have decided the warm part: windows are full
    Step 3  suspend them, add the measured part, resume them and wait until all of it is decided
    Step 4  read the decisions back and compare each with the right answer
    Step 5  measure from the resumption to the moment at which the broker appended the last decision

CPU seconds are those of all its processes, threads and children; those of the broker and of Redis are told apart.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import psutil
from confluent_kafka import Producer

from contender import Contender, Job, Watched
from kafka_topics import Record, Topics
from scene import LONG, WARM, Scene

TOLERANCE = 1e-5  # of a score, a probability, from ours
STARTING_SECS, STALLED_SECS = 300.0, 90.0  # without a first or one more decision: it will not come
SETTLED_SECS = 0.5
PARTITIONS = 4
WRITTEN = (297, 130)  # bytes of a decision and of a row of the feature log, until ours have been seen
CLOSING = "closing-"


@dataclass(frozen=True)
class Measured:
    """events a second on the clock; µs of CPU an event, the contender's and that of broker and Redis; bytes."""

    rate: float
    cpu_us: float
    servers_us: float
    decision_bytes: float
    row_bytes: float


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
        self.written = WRITTEN

    def run(self, contender: Contender, *, partitions: int = PARTITIONS) -> Measured:
        """Race one contender once. Raises Wrong."""
        # Step 1
        folder = tempfile.mkdtemp(prefix="fraudstream-race-")
        job = new_job(
            contender,
            self.topics,
            self._redis,
            self.scene,
            folder,
            total=self._warm + min(contender.events, self._most),
            partitions=partitions,
            written=self.written,
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
                "queue.buffering.max.messages": 500_000,
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
        if watched.contender.name == "null":
            _check_null(records, job.total)
        else:
            check(records, job.total, self.scene.scores)
        ended = max(record.timestamp_ms for record in records) / 1000
        events = job.total - self._warm
        own, servers = watched.spent(resumed, ended)
        features = sum(len(record.value) for record in self.topics.read(job.features))
        return Measured(
            rate=events / (ended - resumed),
            cpu_us=own / events * 1e6,
            servers_us=servers / events * 1e6,
            decision_bytes=float(np.mean([len(record.value) for record in records])),
            row_bytes=features / len(records),
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
    written: tuple[int, int] = WRITTEN,
) -> Job:
    """Return what a contender is told, its topics created. written: bytes of a decision, of a row of features."""
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
        folder=folder,
        delivery=contender.delivery,
        total=total,
        partitions=partitions,
        decision_bytes=written[0],
        row_bytes=written[1],
    )


def check(records: Sequence[Record], total: int, scores: np.ndarray) -> None:
    """Raise Wrong unless each payment has one decision, its score within the tolerance of the right one."""
    decisions = [orjson.loads(record.value) for record in records]
    rows = np.array([int(decision["transaction_id"][2:]) for decision in decisions])
    seen = np.bincount(rows, minlength=total)
    if len(seen) > total or (seen != 1).any():
        raise Wrong(f"{int((seen == 0).sum()):,} payments without a decision, {int((seen > 1).sum()):,} with several")
    away = np.abs(np.array([decision["score"] for decision in decisions], np.float64) - scores[rows])
    if not (away <= TOLERANCE).all():
        worst = int(np.argmax(np.nan_to_num(away, nan=np.inf)))
        count = int((~(away <= TOLERANCE)).sum())
        raise Wrong(f"{count:,} scores differ, most {decisions[worst]['transaction_id']} by {away[worst]:.2g}")


def _check_null(records: Sequence, total: int) -> None:
    if len(records) != total:
        raise Wrong(f"{len(records):,} records for {total:,}")
