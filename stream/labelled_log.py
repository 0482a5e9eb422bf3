"""Labelled payments from the logs: the `features` topic joined with the `labels` topic.

    features       transaction_id, partition, offset, event time, vector        written by the worker
    labels         transaction_id, user_id, is_fraud, label_time                written by whoever learns of fraud
    transactions   user, amount, country, channel, where still there             joined by partition and offset

A transaction is known by its user and its id: two users may each have one of the same id. Whose a payment is says the
input topic; of one that it has deleted by now, the label of its id does, if no other payment has that and it is the
only one left.

The last label of a transaction wins: the latest label_time, of equals the later record. A transaction without a label
counts as honest once it is older than the label delay. Whatever is younger is left out, labelled or not: of such days
only the frauds found early are known, and learned or judged on they would seem to be nearly all fraud. "Older" is
measured from the newest moment that the logs themselves name, so that the same logs give the same rows; what a label
says of its own time counts up to the time of its record.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Message

from models.folds import DAY_MS
from state.features import FeatureSet
from stream.codec import Decoder
from stream.errors import UsageError
from stream.feature_log import read_feature_log
from stream.joiner_records import Label
from stream.labelled import Labelled, first_present
from stream.settings import Settings
from stream.topic_reader import read_topic

__all__ = ["Label", "join", "read_labelled_log"]

ReadTopic = Callable[[Settings, str], Iterator[list[Message]]]
Place = tuple[int, int]
#: Whose, and which: user id, transaction id.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Payment:
    """What the input topic says of a payment."""

    user_id: str
    amount_minor: int
    currency: int  # its code; 0: not known
    country: str
    channel: str


@dataclass(frozen=True, slots=True)
class Vector:
    """A row of the feature log; features: float32[k]."""

    transaction_id: str
    place: Place
    time_ms: int
    features: Any


def read_labelled_log(
    settings: Settings,
    feature_set: FeatureSet,
    *,
    label_delay_ms: int,
    refused_path: Path,
    progress: Callable[[int], object] = lambda _: None,
    read: ReadTopic = read_topic,
) -> Labelled:
    """Read the three topics to their present ends and join them.

    Records of `labels` that are no labels go, with the reason, to `refused_path`. progress: called with the records
    read so far. Raises UsageError, StartupError.
    """
    refused_path.unlink(missing_ok=True)
    refused: Counter[str] = Counter()
    told = _Told(progress)
    topics = settings.topics
    labels = _labels(told.each(read(settings, topics.labels)), refused_path, refused)
    vectors = _vectors(told.each(read(settings, topics.features)), feature_set, refused)
    if not vectors:
        left = f" ({refused['another_feature_set']:,} rows are of another one)" if refused else ""
        raise UsageError(
            f"The topic {topics.features} holds nothing of feature set {feature_set.name} ({feature_set.hash}){left}: "
            f"name the one that the workers use with --feature-set, or train on a file."
        )
    payments = _payments(told.each(read(settings, topics.transactions)), settings)
    return join(vectors, labels, payments, feature_set, label_delay_ms=label_delay_ms, refused=refused)


def join(
    vectors: list[Vector],
    labels: dict[Key, Label],
    payments: dict[Place, Payment],
    feature_set: FeatureSet,
    *,
    label_delay_ms: int,
    refused: Counter[str],
) -> Labelled:
    """Return the rows old enough to be known, in order of event time, then partition and offset."""
    newest_ms = max([*(vector.time_ms for vector in vectors), *(label.label_time for label in labels.values())])
    known = [vector for vector in vectors if vector.time_ms < newest_ms - label_delay_ms]
    refused["younger_than_the_label_delay"] += len(vectors) - len(known)
    keys = _keys(vectors, labels, payments, refused)
    rows = sorted(_once(known, keys, refused), key=lambda vector: (vector.time_ms, vector.place))
    if not rows:
        raise UsageError(
            f"All {len(vectors):,} logged transactions are younger than the label delay of {label_delay_ms / DAY_MS:g} "
            f"days: train later, or give a shorter --label-delay-days."
        )
    refused["label_without_transaction"] += len(labels.keys() - set(keys.values()))
    given = [labels.get(keys[vector.place]) for vector in rows]
    found = [payments.get(vector.place) or _deleted(vector, keys[vector.place][0], feature_set) for vector in rows]
    times_ms = np.array([vector.time_ms for vector in rows], np.int64)
    return Labelled(
        features=np.stack([vector.features for vector in rows]),
        labels=np.array([label is not None and label.is_fraud for label in given], np.int8),
        times_ms=times_ms,
        amount_minor=np.array([payment.amount_minor for payment in found], np.int64),
        currency=np.array([payment.currency for payment in found], np.uint16),
        transaction_ids=[vector.transaction_id for vector in rows],
        user_ids=[payment.user_id for payment in found],
        countries=[payment.country for payment in found],
        channels=[payment.channel for payment in found],
        refused=+refused,
        source={"from": "log", "labelled": sum(label is not None for label in given), "known_until_ms": newest_ms},
    )


class _Told:
    """Counts records as they pass."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self._progress, self._count = progress, 0

    def each(self, chunks: Iterator[list[Message]]) -> Iterator[list[Message]]:
        for messages in chunks:
            yield messages
            self._count += len(messages)
            self._progress(self._count)


def _labels(chunks: Iterator[list[Message]], refused_path: Path, refused: Counter[str]) -> dict[Key, Label]:
    found: dict[Key, tuple[int, int, int, Label]] = {}
    for messages in chunks:
        for message in messages:
            try:
                label = msgspec.json.decode(message.value() or b"", type=Label)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                refused["no_label"] += 1
                _refuse(refused_path, message, str(error))
                continue
            # A transaction's labels need not share a partition: the record's own time decides between equals.
            at_ms = message.timestamp()[1]
            ranked = (label.label_time, at_ms, message.offset(), _known_by(label, at_ms))
            before = found.get(label.key)
            if before is None or before[:3] <= ranked[:3]:
                found[label.key] = ranked
    return {key: ranked[3] for key, ranked in found.items()}


def _known_by(label: Label, at_ms: int) -> Label:
    """Return the label, known when it was written at the latest: from a time to come no payment's age is measured."""
    return label if label.label_time <= at_ms else msgspec.structs.replace(label, label_time=at_ms)


def _refuse(path: Path, message: Message, why: str) -> None:
    value = (message.value() or b"").decode(errors="backslashreplace")
    place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
    with path.open("ab") as file:
        file.write(orjson.dumps({"error": "no_label", "message": why, **place, "value": value}) + b"\n")


def _vectors(chunks: Iterator[list[Message]], feature_set: FeatureSet, refused: Counter[str]) -> list[Vector]:
    found: list[Vector] = []
    width = len(feature_set.names)
    for messages in chunks:
        for message in messages:
            try:
                table = read_feature_log(message.value() or b"")
                written = (table.schema.metadata or {}).get(b"feature_set", b"").decode()
                if written != feature_set.hash:
                    refused["another_feature_set"] += table.num_rows
                    continue
                matrix = table.column("features").combine_chunks().flatten().to_numpy().reshape(-1, width)
                times = table.column("event_time").cast(pa.int64()).to_pylist()
                places = zip(table.column("partition").to_pylist(), table.column("offset").to_pylist(), strict=True)
                ids = table.column("transaction_id").to_pylist()
            except (pa.ArrowException, KeyError, ValueError):
                refused["no_feature_record"] += 1
                continue
            found += map(Vector, ids, places, times, matrix)
    return found


def _keys(
    vectors: list[Vector], labels: dict[Key, Label], payments: dict[Place, Payment], refused: Counter[str]
) -> dict[Place, Key]:
    """Return whose and which each place's transaction is; "" is a user that nothing names.

    What may be one of several users' is left out and counted, for its label may say anything.
    """
    keys = {
        vector.place: (payments[vector.place].user_id, vector.transaction_id)
        for vector in vectors
        if vector.place in payments
    }
    left: dict[str, list[Key]] = {}
    for key in labels.keys() - set(keys.values()):
        left.setdefault(key[1], []).append(key)
    for vector in vectors:
        if vector.place in keys:
            continue
        candidates = left.get(vector.transaction_id, [("", vector.transaction_id)])
        if len(candidates) == 1:
            keys[vector.place] = candidates[0]
        else:
            refused["label_of_several_users"] += 1
    return keys


def _once(vectors: list[Vector], keys: dict[Place, Key], refused: Counter[str]) -> Iterator[Vector]:
    """Yield each transaction's first vector: others are repeats of at-least-once, or a payment that was sent twice."""
    seen: set[Key] = set()
    for vector in sorted(vectors, key=lambda one: one.place):
        key = keys.get(vector.place)
        if key is None:
            continue
        if key in seen:
            refused["repeated"] += 1
            continue
        seen.add(key)
        yield vector


def _payments(chunks: Iterator[list[Message]], settings: Settings) -> dict[Place, Payment]:
    mapping = settings.mapping()
    decoder = Decoder(mapping, settings.limits())
    country, channel = first_present(mapping, "country"), first_present(mapping, "channel")
    found: dict[Place, Payment] = {}
    for messages in chunks:
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            by_partition.setdefault(message.partition(), []).append(message)
        for partition, records in by_partition.items():
            decoded, _ = decoder.decode(partition, records)
            money = zip(decoded.events.amount_minor.tolist(), decoded.events.currency.tolist(), strict=True)
            for message, user, (amount, currency) in zip(decoded.messages, decoded.user_ids, money, strict=True):
                value = orjson.loads(message.value() or b"{}")
                found[partition, message.offset()] = Payment(user, amount, currency, country(value), channel(value))
    return found


def _deleted(vector: Vector, user_id: str, feature_set: FeatureSet) -> Payment:
    """Return what is still known of a payment that the input topic has deleted by now."""
    amount = next((at for at, feature in enumerate(feature_set.features) if feature.aggregate == "value"), None)
    return Payment(user_id, 0 if amount is None else int(vector.features[amount]), 0, "", "")
