"""The record the monitor writes to `alerts`: something began to be wrong, or is well again.

An alert is raised once for one cause: `id` follows from what is wrong and since when, so a monitor that starts again
finds in the topic what it has said already.
"""

from typing import Annotated, Final, Literal, get_args

import msgspec
import xxhash
from msgspec import Meta, Struct

__all__ = ["SIGNALS", "Alert", "Signal", "alert_id", "decode_alert", "encode_alert"]

#: What an alert can be about; each has an entry of this name in the runbook.
Signal = Literal[
    "feature_drift",
    "feature_missing",
    "score_drift",
    "decision_mix_drift",
    "detector_drift",
    "adversarial_drift",
    "quality_drop",
    "concept_drift",
    "label_rate_drift",
    "telemetry_uncovered",
    "unknown_model",
]
SIGNALS: Final[tuple[Signal, ...]] = get_args(Signal)


class Alert(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change of one signal; the record's key is the signal's name."""

    id: Annotated[str, Meta(description="Of the cause: the same where it is raised and where it is cleared")]
    state: Annotated[Literal["raised", "cleared"], Meta(description="Whether it begins or ends")]
    signal: Signal
    subject: Annotated[str, Meta(description="What it is about: a feature, a partition, a threshold; empty: the whole")]
    segment: Annotated[str, Meta(description="The segment it is about; empty: all")]
    model: Annotated[str, Meta(description="Version of the model it is about; empty: none")]
    statistic: Annotated[str, Meta(description="What was computed, such as psi or adwin")]
    value: Annotated[float | None, Meta(description="What it came to")]
    bound: Annotated[float | None, Meta(description="What it should have kept to")]
    since: Annotated[int, Meta(description="Since when, epoch milliseconds of the stream's own clock")]
    at: Annotated[int, Meta(description="When it was found, epoch milliseconds of the stream's own clock")]
    runbook: Annotated[str, Meta(description="The entry in docs/runbook.md")]
    text: Annotated[str, Meta(description="The same in one sentence")]


_decoder = msgspec.json.Decoder(Alert)


def alert_id(signal: str, subject: str, segment: str, model: str, statistic: str, since: int) -> str:
    """Return the name of a cause, 16 hex digits."""
    return xxhash.xxh3_64_hexdigest("\0".join((signal, subject, segment, model, statistic, str(since))).encode())


def encode_alert(alert: Alert) -> bytes:
    """Return the alert as JSON."""
    return msgspec.json.encode(alert)


def decode_alert(value: bytes) -> Alert:
    """Return the alert this JSON holds; raises msgspec.MsgspecError or UnicodeDecodeError with what is wrong."""
    return _decoder.decode(value)
