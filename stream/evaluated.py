"""A file of labelled transactions as the columns an evaluation reads, features by the stream's own code.

A transaction counts once: a row that repeats a transaction id is left out and counted. Rows that are no transactions
are counted by reason, with the number of the first. Rows outside the period fill the windows and are not judged: a
payment judged without the month before it would look like a new user's.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from state.events import currency_code
from state.features import FeatureSet, StateSpec
from state.windows import Flag
from stream.backfill import feature_rows
from stream.currencies import EXPONENTS
from stream.errors import UsageError
from stream.files import read_records
from stream.labelled import first_present, label_of
from stream.mapping import Limits, Mapping
from stream.nearest import did_you_mean

__all__ = ["ALWAYS", "Labelled", "Period", "read_labelled"]

#: Columns by which figures are split, as our mapping names them.
DIMENSIONS: Final = ("country", "channel")


@dataclass(frozen=True, slots=True)
class Period:
    """From one moment up to another, which is no longer in it; epoch milliseconds."""

    from_ms: int
    until_ms: int


#: As far as event times go (`state.events.TIME_LIMIT_MS`).
ALWAYS: Final = Period(-(1 << 53), 1 << 53)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Transactions in the file's order, one row each, and what became of the other rows.

    features float32[n, k], labels int8[n] (1: fraud), times_ms int64[n], amounts float64[n] in major units; currencies
    are those that occur (one, where a base currency is set). dimensions: each row's country and channel, "" where it
    has none. outside: rows that only filled windows. refused: rows by reason; first_refused: the number, from 0, of
    each reason's first row.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    times_ms: npt.NDArray[np.int64]
    user_ids: list[str]
    amounts: npt.NDArray[np.float64]
    currencies: tuple[str, ...]
    dimensions: dict[str, list[str]]
    outside: int
    duplicates: int
    late: int
    refused: Counter[str]
    first_refused: dict[str, int]


def read_labelled(
    path: Path,
    label: str,
    mapping: Mapping,
    limits: Limits,
    spec: StateSpec,
    feature_set: FeatureSet,
    *,
    now_ms: int,
    period: Period = ALWAYS,
    progress: Callable[[int], object] = lambda _: None,
) -> Labelled:
    """Read the file and compute its features; progress is told the rows read so far. Raises UsageError.

    Only rows of the period need a label.
    """
    columns = _Columns(path, label, mapping)
    for decoded, features, flags, refused in feature_rows(
        read_records(path, mapping, now_ms), mapping, limits, spec, feature_set
    ):
        for letter in refused:
            columns.refuse(letter.error, letter.message.offset() or 0)
        rows = [orjson.loads(message.value() or b"{}") for message in decoded.messages]
        times = decoded.events.time_ms
        inside = (times >= period.from_ms) & (times < period.until_ms)
        kept = inside & ((flags & Flag.DUPLICATE) == 0)
        numbers = decoded.events.offset[kept].tolist()
        columns.add(list(compress(decoded.user_ids, kept)), list(compress(rows, kept)), numbers)
        columns.features.append(features[kept])
        columns.times.append(times[kept])
        columns.minor.append(decoded.events.amount_minor[kept])
        columns.currency.append(decoded.events.currency[kept])
        columns.read += len(rows)
        columns.outside += int(np.count_nonzero(~inside))
        columns.duplicates += int(np.count_nonzero(inside & ~kept))
        columns.late += int(np.count_nonzero(inside & ((flags & Flag.LATE) != 0)))
        progress(columns.read)
    return columns.whole()


@dataclass
class _Columns:
    """What is gathered chunk by chunk."""

    path: Path
    label: str
    mapping: Mapping
    features: list[npt.NDArray[np.float32]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    times: list[npt.NDArray[np.int64]] = field(default_factory=list)
    minor: list[npt.NDArray[np.int64]] = field(default_factory=list)
    currency: list[npt.NDArray[np.uint16]] = field(default_factory=list)
    user_ids: list[str] = field(default_factory=list)
    dimensions: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in DIMENSIONS})
    refused: Counter[str] = field(default_factory=Counter)
    first_refused: dict[str, int] = field(default_factory=dict)
    outside: int = 0
    duplicates: int = 0
    late: int = 0
    read: int = 0

    def refuse(self, reason: str, row: int) -> None:
        self.refused[reason] += 1
        self.first_refused.setdefault(reason, row)
        self.read += 1

    def add(self, user_ids: list[str], rows: list[dict[str, Any]], numbers: list[int]) -> None:
        """Take rows to be judged; numbers are theirs in the file, from 0."""
        if rows and not self.labels and not any(self.label in row for row in rows):
            known = {name for row in rows for name in row}
            raise UsageError(
                f"{self.path} has no column {self.label}: name the one that says which transactions are frauds with "
                f"--label{did_you_mean(self.label, known)}"
            )
        for number, row in zip(numbers, rows, strict=True):
            fraud = label_of(row.get(self.label))
            if fraud is None:
                said = row.get(self.label)
                what = "no label" if said is None else f"the label {said!r}"
                raise UsageError(
                    f"Row {number + 1:,} of {self.path} has {what} in column {self.label}: every row must say 0 or 1 "
                    f"(or true or false); leave out what nobody has judged yet."
                )
            self.labels.append(fraud)
        self.user_ids += user_ids
        for name, values in self.dimensions.items():
            values.extend(map(first_present(self.mapping, name), rows))

    def whole(self) -> Labelled:
        if not self.read:
            raise UsageError(f"{self.path} holds no rows: give a file with labelled transactions.")
        if not self.labels and self.outside:
            raise UsageError(f"No row of {self.path} lies between the dates given: choose other ones.")
        if not self.labels:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in self.refused.most_common())
            raise UsageError(
                f"No row of {self.path} is a transaction ({reasons}): name your columns under codec.fields; "
                f"`fraudstream backfill` writes down what is wrong with each row."
            )
        amounts, currencies = _major(np.concatenate(self.minor), np.concatenate(self.currency))
        return Labelled(
            np.concatenate(self.features),
            np.array(self.labels, np.int8),
            np.concatenate(self.times),
            self.user_ids,
            amounts,
            currencies,
            self.dimensions,
            self.outside,
            self.duplicates,
            self.late,
            self.refused,
            self.first_refused,
        )


def _major(
    minor: npt.NDArray[np.int64], codes: npt.NDArray[np.uint16]
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """Return amounts in major units, and the currencies they are in."""
    names = {currency_code(currency): currency for currency in EXPONENTS}
    met, place = np.unique(codes, return_inverse=True)
    currencies = [names[int(code)] for code in met]
    scales = np.array([10.0 ** EXPONENTS[currency] for currency in currencies])
    return minor / scales[place], tuple(sorted(set(currencies)))
