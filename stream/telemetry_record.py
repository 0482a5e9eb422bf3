"""The record a worker writes to `telemetry` for each interval, and how it is read.

Counts are additive: over workers, intervals and partitions they give the exact histogram of every event, whoever
scored it. No id of a user or a transaction is in it.

    interval     0          1          2
    wall clock  ─┬──────────┬──────────┬─      interval = closed_at_ms // interval_ms
    batches      [  b1 ][ b2  ][ b3 ]          b2 counts in the interval in which it ended; records close after batches

(worker, epoch, sequence) names a record: `epoch` is when the process started, `sequence` counts from 0 without gaps,
so a repeat can be dropped and a lost record be seen. A record is written although nothing happened: it says that the
worker lives. A swap of models closes the record early, for its counts are over one model's bins.
"""

import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "LATENCY_BOUNDS_MS",
    "MISSING",
    "OTHER",
    "Counts",
    "Sample",
    "Telemetry",
    "decode_telemetry",
    "encode_telemetry",
    "partition_number",
    "reference_hash",
]

#: Segment of transactions without the field that tells segments apart, and of those beyond telemetry.max_segments.
MISSING: Final = "missing"
OTHER: Final = "other"

#: Upper bounds of the latency counts, milliseconds; one count more than bounds, the last for what is slower.
LATENCY_BOUNDS_MS: Final = (
    1,
    2,
    3,
    5,
    8,
    10,
    15,
    20,
    30,
    50,
    75,
    100,
    150,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    60_000,
)

#: No record counts as many. Whatever a stranger writes, a month of records adds up within 64 bits.
MOST: Final = 1 << 40
#: Those of the largest number that Kafka has for a partition.
PARTITION_DIGITS: Final = 10
#: Of times and numbers of records.
LATEST: Final = 1 << 53
FLOAT32_MAX: Final = 3.4028234663852886e38

Natural = Annotated[int, Meta(ge=0, lt=MOST)]
Offset = Annotated[int, Meta(ge=0, lt=1 << 62)]
Value = Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]


class Counts(Struct, frozen=True, forbid_unknown_fields=True):
    """How many values fell into each bin of the reference histogram (models.histograms), and how many were NaN."""

    counts: list[Natural]
    missing: Natural = 0


class Sample(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows drawn uniformly from the interval's events whose score is finite, in order of arrival.

    features: float32 values of each row in the feature set's order, null where missing; scores and event_times_ms of
    the same rows.
    """

    features: list[list[Value | None]] = []
    scores: list[float] = []
    event_times_ms: list[int] = []


class Telemetry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One worker's interval."""

    worker: Annotated[str, Meta(min_length=1, description="kafka.instance_id, or a name drawn at the start")]
    epoch: Annotated[int, Meta(ge=0, lt=LATEST, description="When the worker started, epoch milliseconds")]
    sequence: Annotated[int, Meta(ge=0, lt=LATEST, description="Number of this record since then, from 0")]
    interval: Annotated[int, Meta(ge=0, lt=LATEST, description="closed_at_ms // interval_ms")]
    interval_ms: Annotated[int, Meta(gt=0, lt=LATEST, description="telemetry.interval")]
    opened_at_ms: Annotated[
        int, Meta(ge=0, lt=LATEST, description="When the record before was closed, epoch milliseconds")
    ]
    closed_at_ms: Annotated[int, Meta(ge=0, lt=LATEST, description="When this one was, epoch milliseconds")]
    model: Annotated[str, Meta(description="Version of the model that scored")]
    engine: Annotated[str, Meta(description="What computed the scores")]
    feature_set: Annotated[str, Meta(description="Hash of the feature set")]
    reference: Annotated[
        str, Meta(description="Hash of the reference histograms whose bins the counts are over; empty: no counts")
    ] = ""
    events: Annotated[int, Meta(ge=0, lt=MOST, description="Transactions decided and committed")] = 0
    features: Annotated[dict[str, Counts], Meta(description="By feature, over every event")] = {}
    score: Annotated[Counts, Meta(description="Scores, over every event")] = Counts([])
    segments: Annotated[dict[str, dict[str, Natural]], Meta(description="By segment: how many of each decision")] = {}
    flags: Annotated[dict[str, Natural], Meta(description="Transactions whose windows are unusual, by flag")] = {}
    dead_letters: Annotated[dict[str, Natural], Meta(description="Records that could not be scored, by reason")] = {}
    latency: Annotated[
        list[Natural], Meta(description="From the record's timestamp to its decision: counts over LATENCY_BOUNDS_MS")
    ] = []
    sample: Annotated[Sample, Meta(description="Rows drawn uniformly from the events")] = Sample()
    offsets: Annotated[
        dict[str, list[tuple[Offset, Offset]]],
        Meta(description="By partition of the input: committed offsets this record covers, as [first, next)"),
    ] = {}
    dropped: Annotated[
        int, Meta(ge=0, lt=MOST, description="Records of this worker, so far, that could not be written")
    ] = 0


_decoder = msgspec.json.Decoder(Telemetry)


def encode_telemetry(record: Telemetry) -> bytes:
    """Return the record as JSON."""
    return msgspec.json.encode(record)


def decode_telemetry(value: bytes) -> Telemetry:
    """Return the record this JSON holds; raises msgspec.MsgspecError or UnicodeDecodeError with what is wrong."""
    return _decoder.decode(value)


def partition_number(name: str) -> int | None:
    """Return the partition that a key of `offsets` names, None where it names none."""
    return int(name) if name.isdecimal() and len(name) <= PARTITION_DIGITS else None


def reference_hash(histograms_json: bytes) -> str:
    """Return the name of reference histograms, from a bundle's histograms.json."""
    return hashlib.sha256(histograms_json).hexdigest()[:16]
