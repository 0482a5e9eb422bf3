"""Records into columns by the compiled reader: what it is told of the mapping, and the buffers it runs over."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from state.events import FIELD_SEED, TRANSACTION_SEED, currency_code, hash_field
from stream import transaction_kernel as kernel
from stream.deadletter import MessageLike
from stream.decoded import is_plain
from stream.diagnosis import LATEST_EVENT_TIME_MS
from stream.jit import PADDING
from stream.mapping import Limits, Mapping
from stream.money import AmountReader
from stream.telemetry_record import MISSING
from stream.times import UNITS_US
from stream.transaction import LONGEST_NUMBER, is_required

__all__ = ["Read", "TransactionColumns"]

_KINDS: Final = {
    "transaction_id": kernel.ID,
    "user_id": kernel.ID,
    "amount": kernel.AMOUNT,
    "currency": kernel.CURRENCY,
    "event_time": kernel.TIME,
    "traceparent": kernel.TRACE,
}
_CODES: Final = 1 << 15


@dataclass(slots=True)
class Read:
    """n records as columns: keys, timestamps_ms (int64[n]), the buffer the texts stand in, and the kernel's columns."""

    keys: list[bytes]
    timestamps_ms: NDArray[np.int64]
    offsets: NDArray[np.int64]
    text: bytes
    columns: kernel.Columns


class TransactionColumns:
    """Reads usual records by a mapping. One thread at a time may use it: it remembers the order of fields."""

    def __init__(self, mapping: Mapping, limits: Limits, amounts: AmountReader) -> None:
        self._kept = len(mapping.kept)
        self._tail, defaults = _tail(mapping)
        #: Whether the defaults stand in JSON as they are.
        self.plain = is_plain(self._tail)
        self._plan = _plan(mapping, limits, amounts, defaults)
        names = len(self._plan.kinds)
        expected = np.minimum(np.arange(names + 1), names - 1)
        self._scratch = kernel.Scratch(np.zeros(names, np.uint8), np.zeros((names, 2), np.int64), expected)

    def read(self, messages: Sequence[MessageLike]) -> Read:
        """Read every record that is usual; the rows of the others hold anything."""
        n = len(messages)
        values = [message.value() or b"" for message in messages]
        keys = [message.key() or b"" for message in messages]
        text = b"".join(values)
        if not text.isascii() and not _is_utf8(text):
            values = [value if _is_utf8(value) else b"" for value in values]
            text = b"".join(values)
        tail = len(text)
        text = b"".join((text, self._tail, PADDING))
        timestamps_ms = np.array([message.timestamp()[1] for message in messages], np.int64)
        out = kernel.Columns(
            np.empty(n, np.int64),
            np.empty(n, np.uint64),
            np.empty(n, np.int64),
            np.empty(n, np.uint16),
            np.empty((n, self._kept), np.uint64),
            np.zeros((n, len(kernel.TEXTS), 2), np.int64),
            np.empty(n, np.bool_),
        )
        kernel.read_transactions(
            np.frombuffer(text, np.uint8),
            _starts(values),
            tail,
            np.frombuffer(b"".join((*keys, PADDING)), np.uint8),
            _starts(keys),
            timestamps_ms,
            self._plan,
            self._scratch,
            out,
        )
        offsets = np.array([message.offset() for message in messages], np.int64)
        return Read(keys, timestamps_ms, offsets, text, out)


def _starts(texts: Sequence[bytes]) -> NDArray[np.int64]:
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=starts[1:])
    return starts


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _tail(mapping: Mapping) -> tuple[bytes, NDArray[np.int64]]:
    """Return the defaults of TEXTS one after another, and where each stands: int64[4, 2]."""
    texts = [b""] * len(kernel.TEXTS)
    if mapping.segment:
        texts[kernel.TEXTS.index("segment")] = (mapping.defaults.get(mapping.segment) or MISSING).encode()
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return b"".join(texts), np.stack((ends[:-1], ends[1:]), axis=1)


def _plan(mapping: Mapping, limits: Limits, amounts: AmountReader, defaults: NDArray[np.int64]) -> kernel.Plan:
    fields = ["transaction_id", "user_id", mapping.segment, "traceparent", "amount", "currency", "event_time"]
    fields += mapping.kept
    names = list(dict.fromkeys(theirs for ours in mapping.read for theirs in mapping.names(ours)))
    place = {theirs: at for at, theirs in enumerate(names)}
    encoded = [f'{theirs}"'.encode() for theirs in names]
    readers = {theirs: [ours for ours in mapping.read if theirs in mapping.names(ours)] for theirs in names}
    choices = [[place[theirs] for theirs in mapping.names(ours)] if ours else [] for ours in fields]
    wanted = np.full((len(fields), max(map(len, choices)) + 1), -1, np.int64)
    for row, chosen in enumerate(choices):
        wanted[row, : len(chosen)] = chosen
    exponents, codes = _currencies(amounts)
    default_currency = mapping.defaults.get("currency", "")
    fallbacks = [(index, mapping.defaults.get(ours, "")) for index, ours in enumerate(mapping.kept)]
    return kernel.Plan(
        names=np.frombuffer(b"".join(encoded), np.uint8),
        starts=_starts(encoded),
        kinds=np.array([_KINDS.get(readers[theirs][0], kernel.FIELD) for theirs in names], np.uint8),
        longest=np.array([min(_longest(ours, limits) for ours in readers[theirs]) for theirs in names], np.int64),
        required=np.array([any(is_required(ours, mapping) for ours in readers[theirs]) for theirs in names], np.bool_),
        wanted=wanted,
        defaults=defaults,
        fallback=np.array([hash_field(index, text) if text else 0 for index, text in fallbacks], np.uint64),
        seeds=np.array([TRANSACTION_SEED, *(FIELD_SEED + index for index in range(len(mapping.kept)))], np.uint64),
        exponents=exponents,
        codes=codes,
        default_code=currency_code(default_currency) if default_currency else 0,
        unit=UNITS_US[mapping.event_time_unit],
        naive=mapping.naive_time_zone == "UTC",
        limits=np.array(
            [
                limits.amount_min,
                limits.amount_max,
                limits.min_event_time_ms,
                LATEST_EVENT_TIME_MS,
                limits.max_ahead_ms,
                limits.max_value_bytes,
            ],
            np.int64,
        ),
    )


def _currencies(amounts: AmountReader) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Return decimals and code of each currency by its code; those that are converted are left to the other reader."""
    exponents, codes = np.full(_CODES, kernel.UNKNOWN, np.uint8), np.zeros(_CODES, np.uint16)
    for currency, exponent in amounts.unconverted.items():
        exponents[currency_code(currency)] = exponent
        codes[currency_code(currency)] = currency_code(currency)
    return exponents, codes


def _longest(ours: str, limits: Limits) -> int:
    """Return the most characters of a field's text, as `stream.transaction` has it."""
    if ours in ("amount", "event_time"):
        return LONGEST_NUMBER
    return limits.max_id_length if ours in ("transaction_id", "user_id") else limits.max_field_length
