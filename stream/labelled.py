"""Labelled payments with the features the stream would have given them: what a model is trained on.

A file's rows need not be sorted: they are brought into order of event time before the windows see them, rows of the
same millisecond as they stand in the file. That is the order in which payments reach the stream; in any other, a window
would lack payments that had been made, or the payment itself be late. (`backfill` and `score` take a file's own order,
because they repeat what a log in that order would give.)
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from state.events import Events
from state.features import FeatureSet, StateSpec
from state.history import compute
from stream.backfill import none_is_a_transaction, refuse
from stream.codec import Decoded, Decoder, MessageLike
from stream.errors import UsageError
from stream.files import read_records
from stream.mapping import Limits, Mapping
from stream.nearest import did_you_mean

__all__ = ["Labelled", "first_present", "label_of", "read_labelled"]

#: How files write a label, capitals aside.
LABELS: Final = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}
UNKNOWN: Final = ("", "nan", "none", "null")


@dataclass(frozen=True, slots=True)
class Labelled:
    """n payments in order of event time; every array and list has a row for each.

    features: float32[n, k]; labels: int8[n], 1 is fraud; times_ms: int64[n], epoch ms; amount_minor: int64[n], minor
    units; countries and channels: "" where not known. refused: rows left out, by reason. source: where it came from,
    for the lineage.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    times_ms: npt.NDArray[np.int64]
    amount_minor: npt.NDArray[np.int64]
    transaction_ids: list[str]
    user_ids: list[str]
    countries: list[str]
    channels: list[str]
    refused: Counter[str] = field(default_factory=Counter)
    source: dict[str, Any] = field(default_factory=dict)


def read_labelled(
    path: Path,
    label: str,
    mapping: Mapping,
    limits: Limits,
    spec: StateSpec,
    feature_set: FeatureSet,
    *,
    now_ms: int,
    refused_path: Path,
    progress: Callable[[int], object] = lambda _: None,
) -> Labelled:
    """Read a file of transactions with a column `label`, and compute their features.

    Rows that are no transactions go, with the reason, to `refused_path`. progress: called with the rows read so far.
    Raises UsageError in one sentence: no such column, a label missing or neither 0 nor 1, an id that occurs twice.
    """
    refused_path.unlink(missing_ok=True)
    rows = _Rows(path, label, mapping)
    decoder = Decoder(mapping, limits)
    for records in read_records(path, mapping, now_ms):
        decoded, refused = decoder.decode(0, records)
        rows.add(decoded)
        refuse(refused_path, refused)
        rows.refused.update(letter.error for letter in refused)
        progress(len(rows.user_ids) + rows.refused.total())
    if not rows.user_ids:
        if not rows.refused:
            raise UsageError(f"{path} holds no rows: give a file with labelled transactions.")
        raise UsageError(none_is_a_transaction(path, rows.refused.total(), refused_path))
    rows.check_ids()
    return rows.in_time_order(spec, feature_set)


class _Rows:
    """Gathers the columns of a file, row by row."""

    def __init__(self, path: Path, label: str, mapping: Mapping) -> None:
        self._path, self._label = path, label
        self._country, self._channel = (first_present(mapping, ours) for ours in ("country", "channel"))
        self._seen: dict[str, None] = {}
        self._events: list[Events] = []
        self._rows: list[int] = []
        self.labels: list[int] = []
        self.transaction_ids: list[str] = []
        self.user_ids: list[str] = []
        self.countries: list[str] = []
        self.channels: list[str] = []
        self.refused: Counter[str] = Counter()

    def add(self, decoded: Decoded) -> None:
        """Take a chunk's transactions."""
        values = [orjson.loads(message.value() or b"{}") for message in decoded.messages]
        if not self.labels and not any(self._label in value for value in values):
            names = list(dict.fromkeys(name for value in values for name in value))
            if values:
                raise UsageError(
                    f"{self._path} has no column {self._label} with labels: name yours with --label"
                    f"{did_you_mean(self._label, names)}"
                )
        self.labels += map(self._read_label, values, decoded.messages, decoded.transaction_ids)
        self.countries += map(self._country, values)
        self.channels += map(self._channel, values)
        self.transaction_ids += decoded.transaction_ids
        self.user_ids += decoded.user_ids
        self._rows += decoded.events.offset.tolist()
        self._events.append(decoded.events)

    def _read_label(self, value: dict[str, Any], message: MessageLike, transaction_id: str) -> int:
        found = label_of(value.get(self._label))
        if found is None:
            text = str(value.get(self._label)).strip().lower()
            says = "has no label" if text in UNKNOWN else f"says {value[self._label]!r}, which is neither 0 nor 1,"
            raise UsageError(
                f"{self._path} row {message.offset()}, counted from 0 (transaction {transaction_id}), {says} in the "
                f"column {self._label}: correct it or leave the row out."
            )
        return found

    def check_ids(self) -> None:
        """Raise UsageError where a transaction id occurs twice: its payment would be learned from twice."""
        repeats = len(self.transaction_ids) - len(set(self.transaction_ids))
        if not repeats:
            return
        seen: set[str] = set()
        for row, transaction_id in zip(self._rows, self.transaction_ids, strict=True):
            if transaction_id in seen:
                raise UsageError(
                    f"{self._path} holds {repeats:,} {'row' if repeats == 1 else 'rows'} whose transaction id stands "
                    f"in an earlier row, the first of them {transaction_id} in row {row}, counted from 0: leave the "
                    f"repeated rows out."
                )
            seen.add(transaction_id)

    def in_time_order(self, spec: StateSpec, feature_set: FeatureSet) -> Labelled:
        """Return all rows with their features."""
        events = _joined(self._events)
        order = np.argsort(events.time_ms, kind="stable")
        rows = order.tolist()
        user_ids = _taken(self.user_ids, rows)
        sorted_events = _picked(events, order)
        return Labelled(
            features=compute(spec, feature_set, list(map(str.encode, user_ids)), sorted_events)[0],
            labels=np.array(self.labels, np.int8)[order],
            times_ms=sorted_events.time_ms,
            amount_minor=sorted_events.amount_minor,
            transaction_ids=_taken(self.transaction_ids, rows),
            user_ids=user_ids,
            countries=_taken(self.countries, rows),
            channels=_taken(self.channels, rows),
            refused=self.refused,
        )


def label_of(value: Any) -> int | None:
    """Return what a file's label says, 1 for fraud and 0 for none; None where it says neither."""
    return LABELS.get(str(value).strip().lower())


def first_present(mapping: Mapping, ours: str) -> Callable[[dict[str, Any]], str]:
    """Return what reads a field of ours from a JSON object: the first of the user's names present, "" without any."""
    names, default = mapping.names(ours), mapping.defaults.get(ours, "")

    def read(value: dict[str, Any]) -> str:
        for name in names:
            found = value.get(name)
            if found is not None and found != "":
                return str(found)
        return default

    return read


def _joined(parts: Iterable[Events]) -> Events:
    listed = list(parts)
    return Events(*(np.concatenate([getattr(part, name) for part in listed]) for name in Events.__slots__))


def _picked(events: Events, order: npt.NDArray[np.int64]) -> Events:
    """Return the events in another order, numbered anew: to the windows an offset says what came before what."""
    return Events(
        events.time_ms[order],
        np.arange(len(order), dtype=np.int64),
        events.transaction[order],
        events.amount_minor[order],
        events.currency[order],
        events.fields[order],
    )


def _taken(column: list[str], rows: list[int]) -> list[str]:
    return [column[row] for row in rows]
