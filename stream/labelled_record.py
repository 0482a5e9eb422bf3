"""The record the monitor writes to `labelled`: a label and the decision it is about.

One label gives one record. What a transaction was labelled before stands in `former`, so that figures can take a
contradicted label back: None for the first one.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

__all__ = ["LabelledDecision", "decode_labelled", "encode_labelled"]

Time = Annotated[int, Meta(ge=0, lt=1 << 53)]


class LabelledDecision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision whose truth is known."""

    transaction_id: Annotated[str, Meta(description="As in the decision")]
    user_id: Annotated[str, Meta(description="As in the decision; also this record's key")]
    score: Annotated[float, Meta(ge=0, le=1, description="Probability of fraud, a float32")]
    decision: Annotated[str, Meta(description="approve, review or decline")]
    model: Annotated[str, Meta(description="Version of the model that decided")]
    segment: Annotated[str, Meta(description="The decision's segment")]
    event_time: Annotated[Time, Meta(description="When the payment was made, epoch milliseconds")]
    partition: Annotated[int, Meta(ge=0, lt=1 << 62, description="Where the transaction was read: its partition")]
    offset: Annotated[int, Meta(ge=0, lt=1 << 62, description="Where the transaction was read: its offset")]
    is_fraud: Annotated[bool, Meta(description="What it turned out to be")]
    label_time: Annotated[Time, Meta(description="When that became known, epoch milliseconds")]
    delay_ms: Annotated[int, Meta(description="label_time less event_time")]
    weight: Annotated[
        float, Meta(gt=0, description="How many decisions it stands for: 1, or 1 / labels.sample_rate where sampled")
    ] = 1.0
    former: Annotated[bool | None, Meta(description="What it was labelled before, where this label says otherwise")] = (
        None
    )


_decoder = msgspec.json.Decoder(LabelledDecision)


def encode_labelled(record: LabelledDecision) -> bytes:
    """Return the record as JSON."""
    return msgspec.json.encode(record)


def decode_labelled(value: bytes) -> LabelledDecision:
    """Return the record this JSON holds; raises msgspec.MsgspecError or UnicodeDecodeError with what is wrong."""
    return _decoder.decode(value)
