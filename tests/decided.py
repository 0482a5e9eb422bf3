"""Writes decisions and the feature log as workers would have over weeks, by several versions of a model."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from models.bundle import Bundle, write_bundle
from models.ensemble import load_engine
from models.meta import MetaModel
from models.policy import Thresholds
from models.reasons import Explainer
from models.train import train
from state.events import Events
from state.features import default_feature_set
from stream.decision import DecisionEncoder
from stream.decoded import Decoded, pack_texts
from stream.feature_log import FeatureLog
from stream.judge import EnsembleJudge
from stream.murmur2 import partition_of
from stream.training import sentences_of

START_MS = 1_750_000_000_000
METAS = (MetaModel(-1.0, 0.5, 0.5), MetaModel(-0.5, 0.8, 0.3), MetaModel(0.0, 0.2, 0.9), MetaModel(0.3, 0.4, 0.4))


def write_versions(directory: Path, names: Sequence[str], rounds: int = 10) -> list[Bundle]:
    """Write one bundle a name at directory/name: the same trees under another meta-model each, so other scores."""
    features = default_feature_set()
    x = vectors(4_000, seed=1)
    risk = np.nan_to_num(x[:, 0]) + x[:, 1] * x[:, 2] + np.random.default_rng(2).normal(size=len(x))
    labels, times_ms = (risk > 1.5).astype(np.int8), np.arange(len(x), dtype=np.int64) * 1000
    trained = train(x, labels, times_ms, feature_names=features.names, seed=3, rounds=rounds)
    return [
        write_bundle(
            directory / name,
            replace(trained, meta=meta),
            feature_set=features.source,
            feature_set_hash=features.hash,
            sentences=sentences_of(features),
            lineage={},
            version=name,
        )
        for name, meta in zip(names, METAS, strict=False)
    ]


def vectors(count: int, seed: int) -> np.ndarray:
    """Return float32[count, k] of the shipped feature set's width, gaps among them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, len(default_feature_set().names))).astype(np.float32)
    x[rng.random(count) < 0.2, 0] = np.nan
    return x


def decoded(partition: int, user_ids: list[str], transaction_ids: list[str], offsets, times_ms) -> Decoded:
    """Return transactions with nothing to them but ids, places and times."""
    n = len(user_ids)
    none = np.zeros(n, np.int64)
    text, spans, plain = pack_texts((transaction_ids, user_ids, [""] * n, [""] * n))
    ids, fields = none.astype(np.uint64), np.zeros((n, 0), np.uint64)
    events = Events(times_ms, offsets, ids, none, none.astype(np.uint16), fields)
    users, places = [user.encode() for user in user_ids], np.full(n, partition)
    return Decoded(places, [], users, events, times_ms, text, spans, plain)


class Past:
    """A past that never was: transaction i is t-i of user u-(i mod users), decided i * step_ms after the start."""

    def __init__(self, bootstrap: str, decisions: str, features: str, partitions: int, *, users: int = 1_000) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": f"past-{decisions}",
                "linger.ms": 5,
                "compression.type": "lz4",
                "log_level": 3,
            }
        )
        self._producer.init_transactions(30)
        self._topics = decisions, features
        self._next = [0] * partitions
        self._users = [f"u-{number}" for number in range(users)]
        self._of = [partition_of(user.encode(), partitions) for user in self._users]
        self.written = 0

    def write(
        self,
        bundle: Bundle,
        engine: str,
        count: int,
        *,
        batch: int = 2_000,
        step_ms: int = 1_000,
        ids: str = "t",
        explained: bool = True,
        commit: bool = True,
    ) -> None:
        """Decide so many more, a transaction of the producer for each batch, as the worker does.

        explained: whether reasons stand in them, which for all of a random past take most of the time.
        commit: whether each transaction is committed, or aborted once all of it is in the log.
        """
        thresholds = bundle.thresholds if explained else Thresholds(1.0, 1.0)
        judge = EnsembleJudge(load_engine(bundle, engine), thresholds, Explainer(bundle))
        encoder = DecisionEncoder(judge.outcome_names, bundle.version, engine, bundle.feature_set_hash)
        log = FeatureLog(bundle.feature_names, bundle.feature_set_hash, max_bytes=512 << 10)
        until = self.written + count
        while self.written < until:
            rows = range(self.written, min(until, self.written + batch))
            self._producer.begin_transaction()
            self._write(judge, encoder, log, rows, step_ms, ids)
            if commit:
                self._producer.commit_transaction(30)
            else:
                self._producer.flush(30)
                self._producer.abort_transaction(30)
            self.written = rows.stop

    def _write(self, judge, encoder, log, rows: Iterable[int], step_ms: int, ids: str) -> None:
        shares: dict[int, list[int]] = {}
        for row in rows:
            shares.setdefault(self._of[row % len(self._users)], []).append(row)
        for partition, share in shares.items():
            first, at_ms = self._next[partition], START_MS + share[-1] * step_ms
            self._next[partition] += len(share)
            columns = decoded(
                partition,
                [self._users[row % len(self._users)] for row in share],
                [f"{ids}-{row}" for row in share],
                np.arange(first, first + len(share), dtype=np.int64),
                START_MS + np.array(share, np.int64) * step_ms,
            )
            x = vectors(len(share), seed=share[0])
            verdicts = judge.judge(x, np.zeros(len(x), np.uint16))
            flags = np.zeros(len(share), np.uint8)
            values = encoder.encode(columns, verdicts.scores, verdicts.outcomes, flags, verdicts.reasons, at_ms)
            for user, value in zip(columns.users, values, strict=True):
                self._produce(self._topics[0], partition, user, value, at_ms)
            for _, _, record in log.encode(
                columns.transaction_column(), columns.partitions, columns.events.offset, columns.time_ms, x
            ):
                self._produce(self._topics[1], partition, None, record, at_ms)

    def _produce(self, topic: str, partition: int, key: bytes | None, value: bytes, at_ms: int) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, timestamp=at_ms)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return
