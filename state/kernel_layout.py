"""Where everything lies: the arena, a user's block in it, and the arrays that kernels are handed.

A user is one block of the arena, so that an event touches few cache lines and a block can be moved by copying it.
An event is known by its sequence number within its user, modulo 2¹⁶: one more than the event before it in
(event time, arrival) order. At most 32,768 are kept, so the distance of two is never ambiguous.

    block = header | state of each window | user's key | hashes of field values | ring of events | 16-bit tables

The 16-bit tables: heads of the transaction chains (sequence numbers), heads of the value chains (codes), each value's
last occurrence (sequence number), the next value in its chain, and the two stacks of candidates for maximum and
minimum (sequence numbers). Values, their codes and their last occurrences are those of kept events only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from state.kernel_jit import piece

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

# Explicit widths, since Numba turns a mix of signed and unsigned into a float. An unsigned index needs no test for a
# negative one.
signed = cast(Callable[[Any], int], np.int64)
unsigned = cast(Callable[[Any], int], np.uint64)

# The header. Words of 8 bytes from the block's start:
APPLIED = 0  # offset of the last event applied, or -1
FLOOR = 1  # newest event time that was dropped, or NEVER
FIRST_DIRTY = 2  # offset of the first change since the last snapshot, or CLEAN
# halves of 4 bytes from the block's start:
SLOT = 6  # the user's slot, or FREE
SIZE = 7  # words of the block
HASHES_AT = 8  # in words
RING_AT = 9  # in words
CHAINS_AT = 10  # in quarters, as the rest
BUCKETS_AT = 11
LASTS_AT = 12
HIGH_AT = 13
LOW_AT = 14
# quarters of 2 bytes from the block's start:
COUNT = 32  # events held
RING_CAP = 33
HEAD_POS = 34  # place of the oldest event in the ring
HEAD_SEQ = 35  # its sequence number
VALUES = 36  # field values held
VALUES_CAP = 37
VALUES_TOP = 38  # codes below this one have been used
VALUES_FREE = 39  # first free code below it, or NONE
CHAINS_MASK = 40
BUCKETS_MASK = 41
HIGH_CAP = 42
HIGH_HEAD = 43  # counts what left the stack at the front, modulo 2¹⁶
HIGH_SIZE = 44
LOW_CAP = 45
LOW_HEAD = 46
LOW_SIZE = 47
KEY_LENGTH = 48  # bytes
TOUCHED = 49  # 1: used since the eviction hand passed
PENDING = 50  # snapshots that hold this user and are not acknowledged
HEADER_WORDS = 13

# An event in the ring: three words, then 16-bit codes.
TIME = 0
TRANSACTION = 1
AMOUNT = 2  # amount_minor · 2¹⁶ + currency
NEXT = 12  # in quarters: the event before it in its transaction chain
CODES = 13  # in quarters: one code a kept field, NONE where missing

# A window's state: one word of four quarters, the sum, two words of squares where needed, further distinct counts.
FRONT = 0  # in quarters: sequence number of the oldest event in the window
DISTINCT = 1  # in quarters: the first three distinct counts
SUM = 1  # in words
SQUARES_LOW = 2  # squares = high · 2⁴⁴ + low
SQUARES_HIGH = 3

NEVER = -(1 << 62)
CLEAN = -1
FREE = -1
NONE = 0xFFFF
SEQ_MASK = 0xFFFF

# The book: one array of counters and list heads.
USED = 0  # words of the arena handed out, dead ones included
DEAD = 1  # words in free blocks
USERS = 2
EVENTS = 3
SLOTS_TOP = 4  # slots below this one have been used
SLOTS_FREE = 5  # first free slot below it, or FREE
QUEUE_HEAD = 6
QUEUE_SIZE = 7
UNWRITTEN = 8  # words of users that are changed or in a snapshot not acknowledged
HAND = 9  # the slot the eviction hand stands at
SEED = 10
TOP_CLASS = 11  # the highest class that may have free blocks
SWEEP_SOURCE = 12  # the first block the sweep has not passed; 0 between sweeps
SWEEP_TARGET = 13  # the end of those it has moved together
FREE_BLOCKS = 16  # one list head a size class: block + 1, or 0; the next stands in a block's first word
BOOK_WORDS = FREE_BLOCKS + 8 * 40


class Memory(NamedTuple):
    """Three views of one arena."""

    words: I64
    halves: I32
    quarters: U16


class Users(NamedTuple):
    """What lies outside the blocks: the way from a user's key to its slot, and from a slot to its block.

    blocks  int64[slots]  word of the slot's block, or for a free slot -2 - the next free slot
    queue   int32[slots]  a ring: slots of changed users, oldest change first
    table   int64[2^k]    open addressing: upper half of the key's hash, slot + 1; 0 is empty
    book    int64[BOOK_WORDS]
    """

    blocks: I64
    queue: I32
    table: I64
    book: I64


class Scratch(NamedTuple):
    """Working space of one Windows. Per window unless said otherwise.

    What the features are read from: counts, sums, squares in two words, highest and lowest amount, gap (ms since the
    newest other event, -1 for none), distincts (one a distinct pair), firsts (one a first-seen pair; -1 missing).
    """

    counts: I64
    sums: I64
    squares_low: I64
    squares_high: I64
    highs: I64
    lows: I64
    gaps: I64
    distincts: I64
    firsts: I64
    codes: I64  # a field: the arriving event's code
    ages: I64  # a field: events since the value's last occurrence, AGELESS for none
    stamps: I64  # a code: the scan that met it last; the last element counts the scans
    times: I64  # events taken out of a block
    transactions: I64
    amounts: I64
    values: I64  # [event, field] hashes


AGELESS = 1 << 20


@piece
def half(memory: Memory, index: int) -> int:
    """Read 4 bytes."""
    return signed(memory.halves[unsigned(index)])


@piece
def quarter(memory: Memory, index: int) -> int:
    """Read 2 bytes as a number from 0 to 65535."""
    return signed(memory.quarters[unsigned(index)])


@piece
def put(memory: Memory, index: int, value: int) -> None:
    """Write the low 2 bytes of a number."""
    memory.quarters[unsigned(index)] = np.uint16(value & 0xFFFF)


@piece
def word(memory: Memory, index: int) -> int:
    """Read 8 bytes."""
    return signed(memory.words[unsigned(index)])


@piece
def event_at(memory: Memory, stride: int, block: int, seq: int) -> int:
    """Return the word where the user's event with this sequence number lies."""
    header = 4 * block
    place = quarter(memory, header + HEAD_POS) + ((seq - quarter(memory, header + HEAD_SEQ)) & SEQ_MASK)
    cap = quarter(memory, header + RING_CAP)
    if place >= cap:
        place -= cap
    return block + half(memory, 2 * block + RING_AT) + place * stride


@piece
def next_seq(memory: Memory, block: int) -> int:
    """Return the sequence number the next newest event will have."""
    return (quarter(memory, 4 * block + HEAD_SEQ) + quarter(memory, 4 * block + COUNT)) & SEQ_MASK
