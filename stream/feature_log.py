"""The feature log: what every decision was made from, as Arrow record batches.

One Kafka record is one Arrow IPC stream of one record batch. Columns: transaction_id (string), partition (int32),
offset (int64), event_time (timestamp[ms, UTC]), features (fixed-size list of float32, in the feature set's order). The
schema's metadata names the features and the feature set's hash. One list column instead of one column a feature:
24 named columns triple a small batch.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["FeatureLog", "read_feature_log"]

ROW_BYTES = 64  # ids, offset, times and Arrow's own padding, besides the vector

#: How an Arrow IPC stream ends (Arrow columnar format, "IPC Streaming Format").
_END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_EVENT_TIME: Final = pa.timestamp("ms", tz="UTC")


class FeatureLog:
    """Encodes feature rows.

    names: the features in order. feature_set: its hash. max_bytes: the largest record wanted; halve() after the
    broker found one too large.
    """

    def __init__(self, names: Sequence[str], feature_set: str, *, max_bytes: int) -> None:
        self._width = len(names)
        self._max_bytes = max_bytes
        self._schema = pa.schema(
            [
                ("transaction_id", pa.string()),
                ("partition", pa.int32()),
                ("offset", pa.int64()),
                ("event_time", _EVENT_TIME),
                ("features", pa.list_(pa.float32(), self._width)),
            ],
            metadata={"features": json.dumps(list(names)), "feature_set": feature_set},
        )
        self._vectors = self._schema.field("features").type
        # The same in every record, and half the cost of writing one of a few rows.
        self._begin = self._schema.serialize().to_pybytes()

    @property
    def rows_a_record(self) -> int:
        """How many rows one record holds."""
        return max(1, self._max_bytes // (4 * self._width + ROW_BYTES))

    def halve(self) -> bool:
        """Write smaller records from now on; return False where one row is a record already."""
        rows = self.rows_a_record
        self._max_bytes //= 2
        return self.rows_a_record < rows

    def row_bytes(self, id_bytes: int) -> int:
        """Return the size of a record of one row whose transaction id has so many bytes, before any compression."""
        zero = np.zeros(1, np.int64)
        ((_, _, record),) = self.encode(["-" * id_bytes], zero, zero, zero, np.zeros((1, self._width), np.float32))
        return len(record)

    def encode(
        self,
        transaction_ids: Sequence[str] | pa.StringArray,
        partitions: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        times_ms: npt.NDArray[np.int64],
        features: npt.NDArray[np.float32],
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield (partition, first row's offset, record) for n rows, those of a partition together, each in its records.

        partitions, offsets, times_ms: int64[n]; features: float32[n, k].
        """
        n, step = len(transaction_ids), self.rows_a_record
        if not n:
            return
        whole = self._columns(transaction_ids, partitions, offsets, times_ms, features)
        ends = [*(np.flatnonzero(np.diff(partitions)) + 1).tolist(), n]
        for start, end in zip([0, *ends], ends, strict=False):
            for at in range(start, end, step):
                # Columns made once and cut: of a few rows they cost four times what writing them does. Arrow cuts at 64
                # bytes, so that what pads a short record can be its neighbour's values.
                rows = whole.slice(at, min(step, end - at))
                record = b"".join((self._begin, rows.serialize(), _END_OF_STREAM))
                yield int(partitions[at]), int(offsets[at]), record

    def _columns(
        self,
        transaction_ids: Sequence[str] | pa.StringArray,
        partitions: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        times_ms: npt.NDArray[np.int64],
        features: npt.NDArray[np.float32],
    ) -> pa.RecordBatch:
        n = len(transaction_ids)
        vectors = pa.Array.from_buffers(
            pa.float32(), n * self._width, [None, pa.py_buffer(np.ascontiguousarray(features))]
        )
        columns = [
            transaction_ids if isinstance(transaction_ids, pa.Array) else pa.array(transaction_ids, pa.string()),
            pa.array(partitions.astype(np.int32)),
            pa.array(offsets),
            pa.array(times_ms).view(_EVENT_TIME),
            pa.Array.from_buffers(self._vectors, n, [None], children=[vectors]),
        ]
        return pa.record_batch(columns, schema=self._schema)


def read_feature_log(record: bytes) -> pa.Table:
    """Decode one record of the feature log; the names are in the schema's metadata under "features"."""
    with pa.ipc.open_stream(record) as reader:
        return reader.read_all()
