"""Where everything lies: the arena, a user's block in it, and the arrays that kernels are handed.

A user is one block of the arena, so that an event touches few cache lines and a block can be moved by copying it.
An event is known by its place in the user's ring; its age is 1 for the newest, one more for each event before it in
(event time, arrival) order.

    block = header | state of each window | user's key | 16-bit tables | hashes of field values | ring of events

The 16-bit tables: the mark of each place's transaction, the mark of each field value, each value's last occurrence
(place), and the two stacks of candidates for maximum and minimum (places). A mark is 16 bits of a hash: what looks a
hash up compares 32 marks at once and then the hashes of those that agree. Values, their codes and their last
occurrences are those of kept events only.
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
MARKS_AT = 10  # in quarters, as the rest; the marks of values and their last occurrences follow
HIGH_AT = 11
LOW_AT = 12
# quarters of 2 bytes from the block's start:
COUNT = 26  # events held
RING_CAP = 27
HEAD = 28  # place of the oldest event
VALUES = 29  # field values held
VALUES_CAP = 30
VALUES_TOP = 31  # codes below this one have been used
VALUES_FREE = 32  # first free code below it, or NONE
HIGH_CAP = 33
HIGH_HEAD = 34  # counts what left the stack at the front, modulo 2¹⁶
HIGH_SIZE = 35
LOW_CAP = 36
LOW_HEAD = 37
LOW_SIZE = 38
KEY_LENGTH = 39  # bytes
TOUCHED = 40  # 1: used since the eviction hand passed
PENDING = 41  # snapshots that hold this user and are not acknowledged
HEADER_WORDS = 11

# An event in the ring: three words, then 16-bit codes.
TIME = 0
TRANSACTION = 1
AMOUNT = 2  # amount_minor · 2¹⁶ + currency
CODES = 12  # in quarters: one code a kept field, NONE where missing

# A window's state: one word of four quarters, the sum, two words of squares where needed, further distinct counts.
FRONT = 0  # in quarters: place of the oldest event in the window, if there is one
INSIDE = 1  # in quarters: events in the window
DISTINCT = 2  # in quarters: the first two distinct counts
SUM = 1  # in words
SQUARES_LOW = 2  # squares = high · 2⁴⁴ + low
SQUARES_HIGH = 3

NEVER = -(1 << 62)
CLEAN = -1
FREE = -1
NONE = 0xFFFF

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
NEW_FLOOR = 14  # the floor of users that are new: NEVER unless payments of theirs may lie before what was replayed
LOOKED = 15  # the slot that the search for expired users goes on at
FREE_BLOCKS = 16  # one list head a size class: block + 1, or 0; the next stands in a block's first word
BOOK_WORDS = FREE_BLOCKS + 8 * 40


# The integers of one window in `Scratch.results`; a window has WIDTH of them, here and in `Plan.windows`.
WIDTH = 8
R_COUNT = 0
R_SUM = 1
R_SQUARES_LOW = 2
R_SQUARES_HIGH = 3
R_GAP = 4  # ms since the newest other event, -1 for none
R_HIGH = 5
R_LOW = 6


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
    """Working space of one Windows.

    `results` is what the features are read from: of each window the R_… below, then the distinct counts, then the
    first-seen flags (-1 for a missing field).
    """

    results: I64
    codes: I64  # a field: the arriving event's code
    ages: I64  # a field: age of the value's last occurrence, AGELESS for none, 0 for a missing value
    stamps: I64  # a code: the scan that met it last; the last element counts the scans
    renamed: I64  # a code: its new one while a user moves to another block
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
def put_word(memory: Memory, index: int, value: int) -> None:
    """Write 8 bytes."""
    memory.words[unsigned(index)] = value


@piece
def mark(value: int) -> int:
    """Return the mark of a hash."""
    return (value ^ value >> 48) & 0xFFFF


@piece
def get(array: I64, index: int) -> int:
    """Read an element at an index known not to be negative."""
    return signed(array[unsigned(index)])


class User(NamedTuple):
    """Where the parts of one block lie: read once an event."""

    block: int  # word
    header: int  # quarter
    ring: int  # word
    cap: int  # places
    hashes: int  # word
    marks: int  # quarter, one a place
    value_marks: int  # quarter
    lasts: int  # quarter


@piece
def user_at(memory: Memory, block: int) -> User:
    """Find the parts of a block."""
    header, halves = 4 * block, 2 * block
    cap, marks = quarter(memory, header + RING_CAP), header + half(memory, halves + MARKS_AT)
    return User(
        block,
        header,
        block + half(memory, halves + RING_AT),
        cap,
        block + half(memory, halves + HASHES_AT),
        marks,
        marks + cap,
        marks + cap + quarter(memory, header + VALUES_CAP),
    )


@piece
def next_place(memory: Memory, user: User) -> int:
    """Return the place the next newest event will have."""
    place = quarter(memory, user.header + HEAD) + quarter(memory, user.header + COUNT)
    return place - user.cap if place >= user.cap else place


@piece
def later(user: User, place: int) -> int:
    """Return the place after this one."""
    return 0 if place + 1 == user.cap else place + 1


@piece
def age(user: User, place: int, end: int) -> int:
    """Return an event's age, where `end` is the place after the newest event's."""
    distance = end - place
    return distance if distance > 0 else distance + user.cap
