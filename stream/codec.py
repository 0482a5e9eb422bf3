"""Transactions in: the bytes of records become columns, or dead letters. Nothing is raised.

Step 1  the usual record goes straight into columns (`transaction_columns`)
Step 2  what is unusual is parsed (`transaction_rows`), and its rows take their places among the others
Step 3  what is no transaction becomes a dead letter that says why (`diagnosis`)
"""

from collections.abc import Sequence
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from state.events import Events
from stream.deadletter import DeadLetter, MessageLike
from stream.decision import DecisionEncoder
from stream.decoded import Decoded, pack_texts
from stream.diagnosis import Diagnosis
from stream.mapping import Limits, Mapping
from stream.money import AmountReader
from stream.times import TimeReader
from stream.transaction import Layout
from stream.transaction_columns import Read, TransactionColumns
from stream.transaction_rows import Rows, TransactionRows

__all__ = ["DeadLetter", "DecisionEncoder", "Decoded", "Decoder", "MessageLike", "warm_codec"]


class Decoder:
    """Decodes records by a mapping. One thread at a time may use it: it remembers what it has met."""

    def __init__(self, mapping: Mapping, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        layout = Layout(mapping, limits)
        times = TimeReader(mapping.event_time_unit, mapping.naive_time_zone)
        amounts = AmountReader(mapping.base_currency, mapping.rates)
        self._columns = TransactionColumns(mapping, limits, amounts)
        self._rows = TransactionRows(mapping, limits, layout, times, amounts)
        self._diagnose = Diagnosis(mapping, limits, layout, times, amounts)

    def decode(self, partition: int, messages: Sequence[MessageLike]) -> tuple[Decoded, list[DeadLetter]]:
        """Return the transactions of one partition's records, and a dead letter for each other record, by offset."""
        ((decoded, letters),) = self.decode_each([(partition, messages)])
        return decoded, letters

    def decode_each(
        self, shares: Sequence[tuple[int, Sequence[MessageLike]]]
    ) -> list[tuple[Decoded, list[DeadLetter]]]:
        """Return what decode() does of each share, decoded at once: a call costs as much as reading some 100 records.

        shares: a partition and its records each. What is returned shares memory.
        """
        messages = list(chain.from_iterable(records for _, records in shares))
        lengths = [len(records) for _, records in shares]
        # Step 1
        read = self._columns.read(messages)
        whole = _decoded(np.repeat([number for number, _ in shares], lengths), messages, read, self._columns.plain)
        usual = read.columns.usual
        dead = np.empty(0, np.int64)
        if not usual.all():
            # Step 2
            left = np.flatnonzero(~usual)
            rows, places = self._rows.read([messages[row] for row in left.tolist()])
            _put(whole, left[places], rows)
            # Step 3
            dead = np.delete(left, places)
        if len(shares) == 1 and not dead.size:
            return [(whole, [])]
        ends = accumulate(lengths)
        return [self._share(whole, end - length, end, dead) for length, end in zip(lengths, ends, strict=True)]

    def _share(self, whole: Decoded, start: int, end: int, dead: NDArray[np.int64]) -> tuple[Decoded, list[DeadLetter]]:
        """Return the rows of one share without those at `dead`, and letters for these."""
        ours = dead[np.searchsorted(dead, start) : np.searchsorted(dead, end)] if dead.size else dead
        if not ours.size:
            return whole.rows(slice(start, end)), []
        letters = [self._diagnose(whole.messages[row]) for row in ours.tolist()]
        return whole.rows(np.setdiff1d(np.arange(start, end), ours, assume_unique=True)), letters


def warm_codec() -> None:
    """Compile the kernels that read and write, or load them from the cache: no transaction is to wait for that."""
    decoded, _ = Decoder(Mapping()).decode(0, [])
    none = np.empty(0, np.uint8)
    DecisionEncoder(["approve"], "", "", "").encode(decoded, np.empty(0, np.float32), none, none, {}, 0)


def _decoded(partitions: NDArray[np.int64], messages: list[MessageLike], read: Read, plain: bool) -> Decoded:
    columns = read.columns
    events = Events(
        columns.time_ms, read.offsets, columns.transaction, columns.amount_minor, columns.currency, columns.fields
    )
    return Decoded(
        partitions,
        messages,
        read.keys,
        events,
        read.timestamps_ms,
        read.text,
        columns.texts,
        np.full(len(messages), plain, np.bool_),
    )


def _put(decoded: Decoded, at: NDArray[np.int64], rows: Rows) -> None:
    """Put rows where they belong. The key of each is its user's id already."""
    ours, theirs = decoded.events, rows.events
    ours.time_ms[at], ours.transaction[at], ours.fields[at] = theirs.time_ms, theirs.transaction, theirs.fields
    ours.amount_minor[at], ours.currency[at] = theirs.amount_minor, theirs.currency
    text, decoded.spans[at], decoded.plain[at] = pack_texts(rows.texts, len(decoded.text))
    decoded.text += text
