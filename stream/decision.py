"""Decisions out: one JSON document for each scored transaction."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct
from numpy.typing import NDArray

__all__ = ["FLAG_NAMES", "Decision", "DecisionEncoder", "Reason", "Scored"]

#: Names of the flag bits, lowest first.
FLAG_NAMES: Final = ("late", "duplicate", "conflict", "truncated")


class Reason(Struct, frozen=True):
    """One feature that moved this score."""

    feature: Annotated[str, Meta(description="Name in the feature set")]
    contribution: Annotated[float, Meta(description="How far it moved the score, in log-odds; positive: towards fraud")]
    text: Annotated[str, Meta(description="The same in plain words")]


class Decision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the worker says about one transaction."""

    transaction_id: Annotated[str, Meta(description="As in the transaction; an integer id as decimal text")]
    user_id: Annotated[str, Meta(description="As in the transaction; also this record's key")]
    decision: Annotated[str, Meta(description="approve, review or decline")]
    score: Annotated[float, Meta(ge=0, le=1, description="Probability of fraud, a float32")]
    model: Annotated[str, Meta(description="Version of the model bundle")]
    engine: Annotated[str, Meta(description="What computed the score")]
    feature_set: Annotated[str, Meta(description="Hash of the feature set")]
    reasons: Annotated[list[Reason], Meta(description="Empty where approved")]
    flags: Annotated[
        list[Literal["late", "duplicate", "conflict", "truncated"]],
        Meta(description="What is unusual about its windows"),
    ]
    segment: Annotated[
        str,
        Meta(description="The field that telemetry.segment names; missing where the transaction has none of it"),
    ] = ""
    event_time: Annotated[int, Meta(description="When the payment was made, epoch milliseconds")]
    scored_at: Annotated[int, Meta(description="When it was scored, epoch milliseconds")]
    partition: Annotated[int, Meta(ge=0, description="Where the transaction was read: its partition")]
    offset: Annotated[int, Meta(ge=0, description="Where the transaction was read: its offset")]
    traceparent: Annotated[str, Meta(description="W3C trace context of the transaction, where it has one")] | None = (
        None
    )


class Scored(Protocol):
    """The columns of decoded transactions that a decision repeats."""

    partition: int
    user_ids: list[str]
    transaction_ids: list[str]
    event_times: list[int]
    segments: list[str]
    traceparents: list[str | None]

    @property
    def events(self) -> Any:
        """Columns of state; ``offset`` is int64[n]."""


class DecisionEncoder:
    """Encodes decisions of one model. ``outcomes`` name what a decision can be, by index."""

    def __init__(self, outcomes: Sequence[str], model: str, engine: str, feature_set: str) -> None:
        self._outcomes = list(outcomes)
        self._model, self._engine, self._feature_set = model, engine, feature_set
        self._flags = [[name for bit, name in enumerate(FLAG_NAMES) if flags >> bit & 1] for flags in range(256)]

    def encode(
        self,
        decoded: Scored,
        scores: NDArray[np.float32],
        outcomes: NDArray[np.uint8],
        flags: NDArray[np.uint8],
        reasons: Mapping[int, Sequence[Any]],
        scored_at_ms: int,
    ) -> list[bytes]:
        """Return one JSON document a row. Scores are written so that reading them back gives the same float32."""
        model, engine, feature_set, partition = self._model, self._engine, self._feature_set, decoded.partition
        dumps = orjson.dumps
        # One document lives at a time: two thousand at once would keep the garbage collector busy.
        values = [
            dumps(
                {
                    "transaction_id": transaction_id,
                    "user_id": user_id,
                    "decision": decision,
                    "score": score,
                    "model": model,
                    "engine": engine,
                    "feature_set": feature_set,
                    "reasons": why,
                    "flags": names,
                    "segment": segment,
                    "event_time": event_time,
                    "scored_at": scored_at_ms,
                    "partition": partition,
                    "offset": offset,
                },
                _plain,
                orjson.OPT_SERIALIZE_NUMPY,
            )
            for transaction_id, user_id, decision, score, why, names, segment, event_time, offset in zip(
                decoded.transaction_ids,
                decoded.user_ids,
                map(self._outcomes.__getitem__, outcomes.tolist()),
                scores,
                map(reasons.get, range(len(scores)), repeat(())),
                map(self._flags.__getitem__, flags.tolist()),
                decoded.segments,
                decoded.event_times,
                decoded.events.offset.tolist(),
                strict=True,
            )
        ]
        for row, traceparent in enumerate(decoded.traceparents):
            if traceparent is not None:
                values[row] = values[row][:-1] + b',"traceparent":' + dumps(traceparent) + b"}"
        return values


def _plain(reason: Any) -> Any:
    if isinstance(reason, Struct):
        return msgspec.structs.asdict(reason)
    raise TypeError(type(reason).__name__)
