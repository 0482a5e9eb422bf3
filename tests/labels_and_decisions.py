"""Decisions and labels for tests, and what joining them gives, computed naively over whole logs."""

import json
import sys
from dataclasses import dataclass

import msgspec

from stream.label_index import identify
from stream.labelled_record import LabelledDecision, encode_labelled

DAY_MS = 86_400_000
RETENTION_MS = 120 * DAY_MS

#: What a labelled decision repeats of its decision.
REPEATED = ("score", "decision", "model", "segment", "event_time", "partition", "offset")


@dataclass(frozen=True)
class Sent:
    """A record with the methods of a Kafka message."""

    name: str
    number: int
    at: int
    what: bytes | None

    def topic(self):
        return self.name

    def partition(self):
        return self.number

    def offset(self):
        return self.at

    def value(self):
        return self.what

    def key(self):
        return None

    def timestamp(self):
        return 1, 0


# Encoded by msgspec: each value of orjson.dumps keeps 4 KB while it lives, and a million of them are kept.


def decision(user, transaction, *, score=0.5, event_time, offset=0, outcome="review", flags=(), **more):
    """Return a decision as the worker writes it, with all that the joiner does not read."""
    return msgspec.json.encode(
        {
            "transaction_id": transaction,
            "user_id": user,
            "decision": outcome,
            "score": score,
            "model": "3f0c9a",
            "engine": "forest",
            "feature_set": "9d1e",
            "reasons": [{"feature": "count_5m", "contribution": 1.72, "text": "7 payments in 5 minutes"}],
            "flags": list(flags),
            "event_time": event_time,
            "scored_at": event_time + 31,
            "partition": 0,
            "offset": offset,
            "segment": "DE",
            **more,
        }
    )


def label(user, transaction, is_fraud, label_time):
    """Return a label."""
    return msgspec.json.encode(
        {"transaction_id": transaction, "user_id": user, "is_fraud": is_fraud, "label_time": label_time}
    )


def oracle(decisions, labels, sample_rate=1.0, retention_ms=RETENTION_MS):
    """Return the sorted values of `labelled` for whole logs: first decision, labels in order, by plain dictionaries."""
    first, last, written = {}, {}, []
    for value in map(json.loads, decisions):
        pair = str(value["user_id"]), str(value["transaction_id"])
        kept = value["decision"] != "approve" or int.from_bytes(identify(*pair)[:8], "little") < sample_rate * 2**64
        if "duplicate" not in value["flags"] and kept:
            # Only what is repeated: whole documents of a million decisions would take gigabytes.
            first.setdefault(
                pair, {name: sys.intern(v) if isinstance(v := value[name], str) else v for name in REPEATED}
            )
    for told in map(json.loads, labels):
        pair = str(told["user_id"]), str(told["transaction_id"])
        found = first.get(pair)
        if found is None or abs(told["label_time"] - found["event_time"]) > retention_ms:
            continue
        former = last.get(pair)
        if former is told["is_fraud"]:
            continue
        last[pair] = told["is_fraud"]
        record = LabelledDecision(
            transaction_id=pair[1],
            user_id=pair[0],
            score=found["score"],
            decision=found["decision"],
            model=found["model"],
            segment=found["segment"],
            event_time=found["event_time"],
            partition=found["partition"],
            offset=found["offset"],
            is_fraud=told["is_fraud"],
            label_time=told["label_time"],
            delay_ms=told["label_time"] - found["event_time"],
            weight=1 / sample_rate if found["decision"] == "approve" else 1.0,
            former=former,
        )
        written.append(encode_labelled(record))
    return sorted(written)
