"""Finds the feature vector that a decision was made from.

A batch's decisions and its rows of the feature log are written one after the other, in one transaction where delivery
is exactly once, and a partition's rows are on the partition of the same number. So the row lies close behind its
decision in time: reading begins a little before the decision's own time stamp. No record with the row can lie before
that place, for everything before it is stamped earlier still.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import OFFSET_BEGINNING

from stream.decision_search import FoundDecision
from stream.errors import FraudstreamError
from stream.feature_log import read_feature_log
from stream.topic_scan import TopicScan

__all__ = ["FeatureRow", "find_features"]

#: Beyond the transaction's own timeout: clocks of a worker and a broker apart, where only one topic is stamped by the
#: broker. A minute of the feature log is some megabytes.
CLOCKS_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One row of the feature log: names in order, values float32[k], and the feature set's hash."""

    names: tuple[str, ...]
    feature_set: str
    values: npt.NDArray[np.float32]


def find_features(
    scan: TopicScan,
    topic: str,
    found: FoundDecision,
    *,
    timeout_ms: int,
    tell: Callable[[int, int | None], object] = lambda _, __: None,
) -> FeatureRow | None:
    """Return the row of a decision, or None where the feature log does not hold it (any more).

    timeout_ms: the longest a transaction lasts. Where the row is not found about the decision's time, as in a copy of
    the topics stamped anew, all of the partition is read. Raises StartupError; FraudstreamError for a damaged record.
    """
    number = found.decided.partition
    if number not in scan.partitions(topic):
        return None
    margin_ms = timeout_ms + CLOCKS_MS
    near = scan.offsets_at(topic, {number: max(0, found.timestamp_ms - margin_ms)})
    row = _read(scan, topic, near, found, found.timestamp_ms + margin_ms, tell)
    if row is None:
        row = _read(scan, topic, {number: OFFSET_BEGINNING}, found, None, tell)
    return row


def _read(
    scan: TopicScan,
    topic: str,
    starts: dict[int, int],
    found: FoundDecision,
    until_ms: int | None,
    tell: Callable[[int, int | None], object],
) -> FeatureRow | None:
    """Read on from the starts; give up at a record stamped after until_ms."""
    total, done = scan.counts(topic, starts), 0
    id_bytes = found.decided.transaction_id.encode()
    batches = scan.records(topic, starts)
    try:
        for records in batches:
            for record in records:
                value = record.value()
                # Arrow keeps a column of texts as their bytes one after the other.
                if value is not None and id_bytes in value and (row := _row(value, found)) is not None:
                    return row
            done += len(records)
            tell(done, total)
            if until_ms is not None and records[-1].timestamp()[1] > until_ms:
                return None
    finally:
        batches.close()
    return None


def _row(value: bytes, found: FoundDecision) -> FeatureRow | None:
    """Return the decision's row of a record, if it has one."""
    decided = found.decided
    try:
        table = read_feature_log(value)
        metadata: dict[bytes, bytes] = table.schema.metadata or {}
        feature_set = metadata[b"feature_set"].decode()
        if feature_set != decided.feature_set:
            return None  # decided twice, by models of two feature sets
        here = pc.and_(pc.equal(table["partition"], decided.partition), pc.equal(table["offset"], decided.offset))
        rows = table.filter(pc.and_(here, pc.equal(table["transaction_id"], decided.transaction_id)))
        if not rows.num_rows:
            return None
        names = tuple(json.loads(metadata[b"features"]))
        values: npt.NDArray[np.float32] = rows.slice(0, 1)["features"].combine_chunks().flatten().to_numpy()
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise FraudstreamError(
            f"The feature log of partition {decided.partition} holds a damaged record ({error}): it is not one that a "
            f"worker wrote."
        ) from error
    return FeatureRow(names, feature_set, np.ascontiguousarray(values, np.float32))
