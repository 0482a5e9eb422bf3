"""Transactions as columns: numbers as arrays, texts as places in one buffer, so that no row is an object."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from state.events import Events
from stream.deadletter import MessageLike
from stream.transaction_kernel import TEXTS

__all__ = ["Decoded", "is_plain", "pack_texts"]

_ESCAPED: Final = re.compile(rb'[\x00-\x1f"\\]')


@dataclass(slots=True)
class Decoded:
    """The transactions among some records, n rows; those of one partition together and in offset order.

    partitions: int64[n], where each was read. users: the records' keys. timestamps_ms: int64[n], of the records.
    text: UTF-8 with all texts of the batch; spans: int64[n, 4, 2], start and end in it of each of TEXTS, empty where
    there is none. plain: bool[n], whether a row's texts stand in JSON as they are.
    """

    partitions: NDArray[np.int64]
    messages: list[MessageLike]
    users: list[bytes]
    events: Events
    timestamps_ms: NDArray[np.int64]
    text: bytes
    spans: NDArray[np.int64]
    plain: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.users)

    def rows(self, chosen: slice | NDArray[np.int64]) -> "Decoded":
        """Return some rows; a slice shares memory."""
        if isinstance(chosen, slice):
            messages, users = self.messages[chosen], self.users[chosen]
        else:
            places = chosen.tolist()
            messages, users = [self.messages[i] for i in places], [self.users[i] for i in places]
        return Decoded(
            self.partitions[chosen],
            messages,
            users,
            self.events[chosen],
            self.timestamps_ms[chosen],
            self.text,
            self.spans[chosen],
            self.plain[chosen],
        )

    @classmethod
    def joined(cls, parts: Sequence["Decoded"]) -> "Decoded":
        """Return the rows of at least one part, one after another. Parts of one batch share its text."""
        first = parts[0]
        if len(parts) == 1:
            return first
        texts = {id(part.text): part.text for part in parts}
        starts = dict(zip(texts, np.cumsum([0, *map(len, texts.values())]).tolist(), strict=False))
        spans = [part.spans + start if (start := starts[id(part.text)]) else part.spans for part in parts]
        return cls(
            np.concatenate([part.partitions for part in parts]),
            list(chain.from_iterable(part.messages for part in parts)),
            list(chain.from_iterable(part.users for part in parts)),
            Events.joined([part.events for part in parts]),
            np.concatenate([part.timestamps_ms for part in parts]),
            b"".join(texts.values()) if len(texts) > 1 else first.text,
            np.concatenate(spans),
            np.concatenate([part.plain for part in parts]),
        )

    @property
    def transaction_ids(self) -> list[str]:
        """The ids as text."""
        return self._texts("transaction_id")

    @property
    def user_ids(self) -> list[str]:
        """The ids as text."""
        return self._texts("user_id")

    @property
    def segments(self) -> list[str]:
        """What decisions are told apart by; all empty where nothing is."""
        return self._texts("segment")

    @property
    def traceparents(self) -> list[str]:
        """W3C trace contexts, empty where there is none."""
        return self._texts("traceparent")

    @property
    def time_ms(self) -> NDArray[np.int64]:
        """Event times, epoch milliseconds, int64[n]."""
        return self.events.time_ms

    def transaction_column(self) -> pa.StringArray:
        """Return the ids as an Arrow column."""
        starts, ends = self._places("transaction_id")
        taken = np.frombuffer(self.text, np.uint8)
        lengths = ends - starts
        offsets = np.zeros(len(self) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        places = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return pa.StringArray.from_buffers(len(self), pa.py_buffer(offsets), pa.py_buffer(taken[places]))

    def _places(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        spans = self.spans[:, TEXTS.index(name)]
        return spans[:, 0], spans[:, 1]

    def _texts(self, name: str) -> list[str]:
        starts, ends = self._places(name)
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        if self.text.isascii():
            text = self.text.decode("ascii")
            return [text[start:end] for start, end in pairs]
        return [self.text[start:end].decode() for start, end in pairs]


def pack_texts(columns: Sequence[Sequence[str]], base: int = 0) -> tuple[bytes, NDArray[np.int64], NDArray[np.bool_]]:
    """Return the texts of four columns, in TEXTS' order, one after another; their spans from `base` on; `plain`."""
    rows = [text.encode() for row in zip(*columns, strict=True) for text in row]
    ends = base + np.cumsum([0, *map(len, rows)], dtype=np.int64)
    plain: NDArray[np.bool_] = np.all(np.array([is_plain(text) for text in rows]).reshape(-1, len(TEXTS)), axis=1)
    return b"".join(rows), np.stack((ends[:-1], ends[1:]), axis=1).reshape(-1, len(TEXTS), 2), plain


def is_plain(text: bytes) -> bool:
    """Whether UTF-8 stands between quotation marks in JSON as it is."""
    return _ESCAPED.search(text) is None
