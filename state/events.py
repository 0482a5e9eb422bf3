"""The columns a batch of payments arrives in, and the stable hashes that stand for its ids.

Two ids are the same when their 64-bit hashes are: among a million ids of one user the chance of any two meeting is
below 3 in 10⁸. The hashes are part of the durable records, so their seeds never change within a record version.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

TRANSACTION_SEED = 0x66726175_6473_7472
FIELD_SEED = 0x65616D5F_6669_656C  # a field's own seed is this plus its index, so equal texts of two fields differ
MISSING = 0  # the hash that stands for "this payment has no such field"; a real hash of 0 becomes 1

AMOUNT_LIMIT_MINOR = 1 << 43  # amounts lie strictly between ± this (8.8 · 10¹²), so that no exact sum can overflow
TIME_LIMIT_MS = 1 << 53  # event times lie strictly between ± this


@dataclass(slots=True)
class Events:
    """One partition's payments in offset order, n rows, one column each.

    time_ms       int64[n]     event time, epoch milliseconds
    offset        int64[n]     offset in the partition, increasing
    transaction   uint64[n]    `hash_transaction`
    amount_minor  int64[n]     minor units, negative for a refund, |amount| < AMOUNT_LIMIT_MINOR
    currency      uint16[n]    `currency_code`
    fields        uint64[n, F] `hash_field` of each kept field, in the order of `StateSpec.fields`; MISSING where absent
    """

    time_ms: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    transaction: npt.NDArray[np.uint64]
    amount_minor: npt.NDArray[np.int64]
    currency: npt.NDArray[np.uint16]
    fields: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> "Events":
        """Return some rows; those of a slice share memory."""
        return Events(
            self.time_ms[rows],
            self.offset[rows],
            self.transaction[rows],
            self.amount_minor[rows],
            self.currency[rows],
            self.fields[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence["Events"]) -> "Events":
        """Return the rows of at least one part, one after another."""
        return cls(
            np.concatenate([part.time_ms for part in parts]),
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.transaction for part in parts]),
            np.concatenate([part.amount_minor for part in parts]),
            np.concatenate([part.currency for part in parts]),
            np.concatenate([part.fields for part in parts]),
        )


def hash_transaction(transaction_id: str) -> int:
    """Return the stable 64-bit hash of a transaction id; never 0."""
    return xxhash.xxh3_64_intdigest(transaction_id.encode(), seed=TRANSACTION_SEED) or 1


def hash_field(index: int, value: str) -> int:
    """Return the stable 64-bit hash of a kept field's value; `index` is the field's place in the spec. Never 0."""
    return xxhash.xxh3_64_intdigest(value.encode(), seed=FIELD_SEED + index) or 1


def currency_code(currency: str) -> int:
    """Return a currency's three capitals packed into 15 bits, five each, A = 1; never 0."""
    first, second, third = (ord(letter) - 64 for letter in currency)
    return first << 10 | second << 5 | third
