"""Decisions out: one JSON document for each scored transaction."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct
from numpy.typing import NDArray

from stream.decision_kernel import NUMBERS, SCORED, Template, write_decisions
from stream.decoded import Decoded

__all__ = ["FLAG_NAMES", "Decision", "DecisionEncoder", "Reason"]

#: Names of the flag bits, lowest first.
FLAG_NAMES: Final = ("late", "duplicate", "conflict", "truncated")


#: How a document without any begins to say its reasons.
NO_REASONS: Final = b'"reasons":[]'

#: Writes reasons as they are: the encoder of the rest would first make a mapping of each.
_said: Final = msgspec.json.Encoder().encode


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


class DecisionEncoder:
    """Encodes decisions of one model. ``outcomes`` name what a decision can be, by index."""

    def __init__(self, outcomes: Sequence[str], model: str, engine: str, feature_set: str) -> None:
        self._outcomes = list(outcomes)
        self._model, self._engine, self._feature_set = model, engine, feature_set
        self._flags = [[name for bit, name in enumerate(FLAG_NAMES) if flags >> bit & 1] for flags in range(16)]
        self._shared = self._make_shared()

    def encode(
        self,
        decoded: Decoded,
        scores: NDArray[np.float32],
        outcomes: NDArray[np.uint8],
        flags: NDArray[np.uint8],
        reasons: Mapping[int, Sequence[Any]],
        scored_at_ms: int,
    ) -> list[bytes]:
        """Return one JSON document a row. Scores are written so that reading them back gives the same float32.

        Compiled code writes what is usual, and reasons take the place of none in it; a row with texts to escape or with
        a score that is written with an exponent is encoded by itself, to the same form.
        """
        values = self._write(decoded, scores, outcomes, flags, scored_at_ms)
        rest = {row for row, value in enumerate(values) if not value}
        rest.update(np.flatnonzero(~decoded.plain).tolist())
        for row in reasons.keys() - rest:
            # The texts before it need no escape, so none holds a quote: its first place is the only one.
            values[row] = values[row].replace(NO_REASONS, NO_REASONS[:-2] + _said(reasons[row]), 1)
        for row in sorted(rest):
            alone, why = decoded.rows(slice(row, row + 1)), reasons.get(row, ())
            values[row] = self._one(alone, scores[row], outcomes[row], flags[row], why, scored_at_ms)
        return values

    def _write(
        self,
        decoded: Decoded,
        scores: NDArray[np.float32],
        outcomes: NDArray[np.uint8],
        flags: NDArray[np.uint8],
        scored_at_ms: int,
    ) -> list[bytes]:
        """Return the documents without reasons; an empty one where a row is to be encoded by itself."""
        template, longest = self._template(scored_at_ms)
        n = len(decoded)
        texts = int((decoded.spans[:, :, 1] - decoded.spans[:, :, 0]).sum())
        out = np.empty(n * (longest + NUMBERS) + texts, np.uint8), np.empty(n, np.int64)
        end = write_decisions(
            np.frombuffer(decoded.text, np.uint8),
            decoded.spans,
            scores,
            outcomes,
            flags,
            decoded.events.time_ms,
            decoded.partitions,
            decoded.events.offset,
            template,
            out,
        )
        whole, ends = out[0][:end].tobytes(), out[1].tolist()
        return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _template(self, scored_at_ms: int) -> tuple[Template, int]:
        """Return what the documents of a batch share, and the most bytes it takes of one."""
        text, template, longest = self._shared
        scored = b',"scored_at":%d,"partition":' % scored_at_ms
        parts = template.parts.copy()
        parts[SCORED] = len(text), len(text) + len(scored)
        return template._replace(text=np.frombuffer(text + scored, np.uint8), parts=parts), longest + len(scored)

    def _make_shared(self) -> tuple[bytes, Template, int]:
        """Return what all documents share, as bytes and as a template that lacks its text, and the most it takes."""
        model, engine, feature_set = (orjson.dumps(x) for x in (self._model, self._engine, self._feature_set))
        outcomes = [b'","decision":%b,"score":' % orjson.dumps(name) for name in self._outcomes]
        flags = [orjson.dumps(names) for names in self._flags]
        parts = [
            b'{"transaction_id":"',
            b'","user_id":"',
            b',"model":%b,"engine":%b,"feature_set":%b,"reasons":[],"flags":' % (model, engine, feature_set),
            b',"segment":"',
            b'","event_time":',
            b"",  # SCORED, other for each batch
            b',"offset":',
            b',"traceparent":"',
            b'"}',
            b"}",
        ]
        pieces = [*outcomes, *flags, *parts]
        ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        places = np.stack((ends[:-1], ends[1:]), axis=1)
        first, second = len(outcomes), len(outcomes) + len(flags)
        longest = max(map(len, outcomes)) + max(map(len, flags)) + sum(map(len, parts))
        none = np.empty(0, np.uint8)
        return b"".join(pieces), Template(none, places[:first], places[first:second], places[second:]), longest

    def _one(
        self, decoded: Decoded, score: Any, outcome: Any, flags: Any, reasons: Sequence[Any], scored_at_ms: int
    ) -> bytes:
        """Encode the one row of `decoded`."""
        document = {
            "transaction_id": decoded.transaction_ids[0],
            "user_id": decoded.user_ids[0],
            "decision": self._outcomes[outcome],
            "score": score,
            "model": self._model,
            "engine": self._engine,
            "feature_set": self._feature_set,
            "reasons": orjson.Fragment(_said(reasons)),
            "flags": self._flags[flags & 15],
            "segment": decoded.segments[0],
            "event_time": int(decoded.events.time_ms[0]),
            "scored_at": scored_at_ms,
            "partition": int(decoded.partitions[0]),
            "offset": int(decoded.events.offset[0]),
        }
        if traceparent := decoded.traceparents[0]:
            document["traceparent"] = traceparent
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
