"""Labelled payments with the features the stream would have given them: what a model is trained and judged on.

A file's rows need not be sorted: they are brought into order of event time before the windows see them, rows of the
same millisecond as they stand in the file. That is the order in which payments reach the stream; in any other, a window
would lack payments that had been made, or the payment itself be late. (`backfill` and `score` take a file's own order,
because they repeat what a log in that order would give.)

Rows outside a period fill the windows and are left out: a payment judged without the month before it would look like a
new user's.
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
from stream.codec import DeadLetter, Decoded, Decoder, MessageLike
from stream.errors import UsageError
from stream.files import read_records
from stream.mapping import Limits, Mapping
from stream.nearest import did_you_mean

__all__ = ["ALWAYS", "Labelled", "Period", "first_present", "label_of", "read_labelled"]

#: How files write a label, capitals aside.
LABELS: Final = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}
UNKNOWN: Final = ("", "nan", "none", "null")


@dataclass(frozen=True, slots=True)
class Period:
    """From one moment up to another, which is no longer in it; epoch milliseconds."""

    from_ms: int
    until_ms: int


#: Looks over times int64[n] (epoch ms, ascending) and labels int8[n], and raises where they will not do.
Check = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int8]], object]

#: As far as event times go (`state.events.TIME_LIMIT_MS`).
ALWAYS: Final = Period(-(1 << 53), 1 << 53)


@dataclass(frozen=True, slots=True)
class Labelled:
    """n payments in order of event time; every array and list has a row for each.

    features: float32[n, k]; labels: int8[n], 1 is fraud; times_ms: int64[n], epoch ms; amount_minor: int64[n], minor
    units; currency: uint16[n], its code, 0 where not known; countries and channels: "" where not known. outside: rows
    that only filled windows. repeated: rows left out because their id stands in an earlier one. refused: rows that are
    no transactions, by reason; first_refused: the number, from 0, of each reason's first row. source: where it came
    from, for the lineage.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    times_ms: npt.NDArray[np.int64]
    amount_minor: npt.NDArray[np.int64]
    currency: npt.NDArray[np.uint16]
    transaction_ids: list[str]
    user_ids: list[str]
    countries: list[str]
    channels: list[str]
    outside: int = 0
    repeated: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    first_refused: dict[str, int] = field(default_factory=dict)
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
    refused_path: Path | None = None,
    period: Period = ALWAYS,
    allow_repeats: bool = False,
    check: Check = lambda _times_ms, _labels: None,
    progress: Callable[[int], object] = lambda _: None,
) -> Labelled:
    """Read a file of transactions with a column `label`, and compute their features.

    Rows that are no transactions go, with the reason, to `refused_path`, if one is given. Only rows of the period need
    a label. allow_repeats: leave out a row whose id stands in an earlier one, rather than refuse the file. check:
    called before any feature is computed. progress: called with the rows read so far. Raises UsageError in one
    sentence: no such column, a label missing or neither 0 nor 1, an id that occurs twice.
    """
    if refused_path:
        refused_path.unlink(missing_ok=True)
    rows = _Rows(path, label, mapping, period)
    decoder = Decoder(mapping, limits)
    for records in read_records(path, mapping, now_ms):
        decoded, refused = decoder.decode(0, records)
        rows.add(decoded)
        rows.refuse(refused)
        if refused_path:
            refuse(refused_path, refused)
        progress(len(rows.user_ids) + rows.refused.total())
    rows.check_any(refused_path)
    if not allow_repeats:
        rows.check_ids()
    return rows.in_time_order(spec, feature_set, check)


class _Rows:
    """Gathers the columns of a file, row by row."""

    def __init__(self, path: Path, label: str, mapping: Mapping, period: Period) -> None:
        self._path, self._label, self._period = path, label, period
        self._country, self._channel = (first_present(mapping, ours) for ours in ("country", "channel"))
        self._events: list[Events] = []
        self._inside: list[npt.NDArray[np.bool_]] = []
        self._labelled = False
        self.labels: list[int] = []
        self.transaction_ids: list[str] = []
        self.user_ids: list[str] = []
        self.countries: list[str] = []
        self.channels: list[str] = []
        self.refused: Counter[str] = Counter()
        self.first_refused: dict[str, int] = {}

    def add(self, decoded: Decoded) -> None:
        """Take a chunk's transactions."""
        values = [orjson.loads(message.value() or b"{}") for message in decoded.messages]
        times = decoded.events.time_ms
        inside = (times >= self._period.from_ms) & (times < self._period.until_ms)
        self._check_column([value for value, kept in zip(values, inside.tolist(), strict=True) if kept])
        self.labels += [
            self._read_label(value, message, transaction_id) if kept else 0
            for value, message, transaction_id, kept in zip(
                values, decoded.messages, decoded.transaction_ids, inside.tolist(), strict=True
            )
        ]
        self.countries += map(self._country, values)
        self.channels += map(self._channel, values)
        self.transaction_ids += decoded.transaction_ids
        self.user_ids += decoded.user_ids
        self._inside.append(inside)
        self._events.append(decoded.events)

    def refuse(self, letters: list[DeadLetter]) -> None:
        """Count a chunk's rows that are no transactions."""
        for letter in letters:
            self.refused[letter.error] += 1
            self.first_refused.setdefault(letter.error, letter.message.offset() or 0)

    def _check_column(self, values: list[dict[str, Any]]) -> None:
        """Raise UsageError where the first rows that need a label show no such column."""
        if self._labelled or not values:
            return
        self._labelled = True
        if not any(self._label in value for value in values):
            names = list(dict.fromkeys(name for value in values for name in value))
            raise UsageError(
                f"{self._path} has no column {self._label} with labels: name yours with --label"
                f"{did_you_mean(self._label, names)}"
            )

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

    def check_any(self, refused_path: Path | None) -> None:
        """Raise UsageError where no row is left."""
        if not self.user_ids and not self.refused:
            raise UsageError(f"{self._path} holds no rows: give a file with labelled transactions.")
        if not self.user_ids:
            raise UsageError(none_is_a_transaction(self._path, self.refused, refused_path))
        if not any(inside.any() for inside in self._inside):
            raise UsageError(f"No row of {self._path} lies between the dates given: choose other ones.")

    def check_ids(self) -> None:
        """Raise UsageError where a transaction id occurs twice: its payment would be learned from twice."""
        repeats = len(self.transaction_ids) - len(set(self.transaction_ids))
        if not repeats:
            return
        numbers = np.concatenate([part.offset for part in self._events]).tolist()
        seen: set[str] = set()
        for row, transaction_id in zip(numbers, self.transaction_ids, strict=True):
            if transaction_id in seen:
                raise UsageError(
                    f"{self._path} holds {repeats:,} {'row' if repeats == 1 else 'rows'} whose transaction id stands "
                    f"in an earlier row, the first of them {transaction_id} in row {row}, counted from 0: leave the "
                    f"repeated rows out."
                )
            seen.add(transaction_id)

    def in_time_order(self, spec: StateSpec, feature_set: FeatureSet, check: Check) -> Labelled:
        """Return the rows of the period with their features, each transaction once."""
        events, inside = _joined(self._events), np.concatenate(self._inside)
        order = np.argsort(events.time_ms, kind="stable")
        events, inside, rows = _picked(events, order), inside[order], order.tolist()
        kept = inside & _first_of_each(_taken(self.transaction_ids, rows))
        check(events.time_ms[kept], np.array(self.labels, np.int8)[order[kept]])
        users = [self.user_ids[row].encode() for row in rows]
        features = compute(spec, feature_set, users, events)[0]
        if not kept.all():
            features, rows = features[kept], order[kept].tolist()
        return Labelled(
            features=features,
            labels=np.array(self.labels, np.int8)[rows],
            times_ms=events.time_ms[kept],
            amount_minor=events.amount_minor[kept],
            currency=events.currency[kept],
            transaction_ids=_taken(self.transaction_ids, rows),
            user_ids=_taken(self.user_ids, rows),
            countries=_taken(self.countries, rows),
            channels=_taken(self.channels, rows),
            outside=int(np.count_nonzero(~inside)),
            repeated=int(np.count_nonzero(inside & ~kept)),
            refused=self.refused,
            first_refused=self.first_refused,
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


def _first_of_each(transaction_ids: list[str]) -> npt.NDArray[np.bool_]:
    """Return whether each row is the first with its id, bool[n]."""
    first = dict(zip(reversed(transaction_ids), range(len(transaction_ids) - 1, -1, -1), strict=True))
    found = np.zeros(len(transaction_ids), np.bool_)
    found[list(first.values())] = True
    return found


def _taken(column: list[str], rows: list[int]) -> list[str]:
    return [column[row] for row in rows]
