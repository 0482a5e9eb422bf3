"""Records into columns by the JSON parser, a step over each column: the authority on what a transaction is.

Whatever the compiled reader (`stream.transaction_kernel`) leaves alone comes here. What breaks a rule is found over
columns too, so that good records do not pay for bad ones.

Duplicate names in one JSON object: the last one counts. Unknown fields are ignored, whatever they hold. An optional
field that is null or empty is missing. An id may be a text or a 64-bit integer; 42 and "42" are the same id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any, Final, cast

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from state.events import TRANSACTION_SEED, Events, hash_field
from stream.deadletter import MessageLike
from stream.diagnosis import LATEST_EVENT_TIME_MS
from stream.mapping import Limits, Mapping
from stream.money import AmountReader
from stream.telemetry_record import MISSING
from stream.times import TimeReader
from stream.transaction import MAX_NESTING, Layout, nested_too_deeply, valid_traceparents

__all__ = ["Rows", "TransactionRows"]

# Values of a field repeat (countries, merchants, devices), so their hashes and texts are remembered, this many of each.
_HASHES_KEPT: Final = 1 << 16

_hash_transaction = partial(xxhash.xxh3_64_intdigest, seed=TRANSACTION_SEED)


@dataclass(slots=True)
class Rows:
    """Transactions, n rows: events, and the texts of each row ("" where there is none), in TEXTS' order."""

    events: Events
    transaction_ids: list[str]
    user_ids: list[str]
    segments: list[str]
    traceparents: list[str]

    @property
    def texts(self) -> tuple[list[str], ...]:
        """The four columns of texts."""
        return self.transaction_ids, self.user_ids, self.segments, self.traceparents


class TransactionRows:
    """Reads records by a mapping. One thread at a time may use it: it remembers hashes."""

    def __init__(
        self, mapping: Mapping, limits: Limits, layout: Layout, times: TimeReader, amounts: AmountReader
    ) -> None:
        self._limits = limits
        self._parse: Callable[[bytes], Any] = msgspec.json.Decoder(layout.type).decode
        self._read = {ours: layout.column(ours) for ours in mapping.read}
        self._times, self._amounts = times, amounts
        self._kept = [(ours, _Hashes(index)) for index, ours in enumerate(mapping.kept)]
        self._segment, self._segment_texts = mapping.segment, _Segments()

    def read(self, messages: Sequence[MessageLike]) -> tuple[Rows, NDArray[np.int64]]:
        """Return the transactions among the records, and which records they are: int64[n], increasing."""
        places, parsed = self._parse_all(messages)
        rows, refused = self._columns([messages[place] for place in places], parsed)
        if refused.any():
            keep = ~refused
            places, parsed = list(compress(places, keep)), list(compress(parsed, keep))
            rows, _ = self._columns([messages[place] for place in places], parsed)
        return rows, np.array(places, np.int64)

    def _parse_all(self, messages: Sequence[MessageLike]) -> tuple[list[int], list[Any]]:
        """Return which records parse, and what they hold."""
        try:
            values: list[Any] = [message.value() for message in messages]
            if self._plain(values):
                return list(range(len(values))), list(map(self._parse, values))
        except Exception:  # noqa: BLE001, S110 - some record is bad; the loop below finds which
            pass
        places, parsed = [], []
        for place, message in enumerate(messages):
            try:
                parsed.append(self._parse_one(message.value()))
            except Exception:  # noqa: BLE001, S112 - nothing that arrives may stop the stream
                continue
            places.append(place)
        return places, parsed

    def _plain(self, values: Sequence[bytes]) -> bool:
        """Tell whether no value needs a closer look before it is parsed."""
        longest = max(map(len, values), default=0)
        return (
            longest <= self._limits.max_value_bytes
            and all(map(bytes.isascii, values))
            and (longest <= MAX_NESTING or not any(map(nested_too_deeply, values)))
        )

    def _parse_one(self, value: Any) -> Any:
        if len(value) > self._limits.max_value_bytes or nested_too_deeply(value):
            raise ValueError(value)
        value.decode()  # the parser passes over bad UTF-8 in fields it does not read
        return self._parse(value)

    def _columns(self, messages: list[MessageLike], parsed: list[Any]) -> tuple[Rows, NDArray[np.bool_]]:
        """Return all rows as columns, and which of them break a rule: bool[n]."""
        read, n = self._read, len(parsed)
        user_ids = _texts(read["user_id"](parsed))
        transaction_ids = _texts(read["transaction_id"](parsed))
        users = list(map(str.encode, user_ids))
        offsets = np.array([message.offset() for message in messages], np.int64)
        timestamps_ms = np.array([message.timestamp()[1] for message in messages], np.int64)
        time_ms = self._times.column(read["event_time"](parsed))
        amount_minor, currency = self._amounts.column(read["amount"](parsed), read["currency"](parsed))
        transaction = np.fromiter(map(_hash_transaction, map(str.encode, transaction_ids)), np.uint64, n)
        transaction[transaction == 0] = 1
        fields = np.empty((n, len(self._kept)), np.uint64)
        segment_column: list[Any] | None = None
        for index, (ours, hashes) in enumerate(self._kept):
            column = read[ours](parsed)
            fields[:, index] = np.fromiter(map(hashes.__getitem__, column), np.uint64, n)
            if ours == self._segment:
                segment_column = column
        traceparents = valid_traceparents(read["traceparent"](parsed))

        limits = self._limits
        refused = (time_ms < limits.min_event_time_ms) | (time_ms >= LATEST_EVENT_TIME_MS)
        refused |= time_ms - limits.max_ahead_ms > timestamps_ms
        refused |= (amount_minor < limits.amount_min) | (amount_minor > limits.amount_max) | (currency == 0)
        keys = [message.key() for message in messages]
        if keys != users:
            refused |= [key != user for key, user in zip(keys, users, strict=True)]
        if "" in transaction_ids or "" in user_ids:
            refused |= [not (one and other) for one, other in zip(transaction_ids, user_ids, strict=True)]

        events = Events(time_ms, offsets, transaction, amount_minor, currency, fields)
        segments = self._segments(parsed, segment_column)
        return Rows(events, transaction_ids, user_ids, segments, [text or "" for text in traceparents]), refused

    def _segments(self, parsed: list[Any], column: list[Any] | None) -> list[str]:
        """Return each transaction's segment. column: its values, where they were read already."""
        if not self._segment:
            return [""] * len(parsed)
        if column is None:
            column = self._read[self._segment](parsed)
        return list(map(self._segment_texts.__getitem__, column))


class _Hashes(dict[str | int | None, int]):
    """The hash of each value of one kept field; 0 where the field is missing."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self._index = index

    def __missing__(self, value: str | int | None) -> int:
        if len(self) >= _HASHES_KEPT:
            self.clear()
        self[value] = found = 0 if value is None or value == "" else hash_field(self._index, str(value))
        return found


class _Segments(dict[str | int | None, str]):
    """Each value of the segment's field as the text that stands in decisions."""

    def __missing__(self, value: str | int | None) -> str:
        if len(self) >= _HASHES_KEPT:
            self.clear()
        self[value] = found = MISSING if value is None or value == "" else str(value)
        return found


def _texts(column: list[str | int]) -> list[str]:
    return list(map(str, column)) if int in set(map(type, column)) else cast("list[str]", column)
