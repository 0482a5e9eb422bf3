"""Users written as the bodies of durable records, many at a time, and read back. Their format: `state.record`."""

import numpy as np

from state.kernel_jit import entry, piece
from state.kernel_layout import (
    AMOUNT,
    APPLIED,
    CODES,
    COUNT,
    FLOOR,
    HEAD,
    I64,
    KEY_LENGTH,
    NEVER,
    NONE,
    TIME,
    TRANSACTION,
    U8,
    U16,
    VALUES,
    Memory,
    Scratch,
    Users,
    later,
    quarter,
    signed,
    user_at,
    word,
)
from state.kernel_plan import Plan
from state.kernel_windows import expire, newest_time, put_back

HEADER_WORDS = 5
START_WORDS = 2


@piece
def body_words(memory: Memory, plan: Plan, block: int) -> int:
    """Return the length of a user's record without its checksum."""
    count = quarter(memory, 4 * block + COUNT)
    return HEADER_WORDS + quarter(memory, 4 * block + VALUES) + 3 * count + (count * plan.fields + 3) // 4


@entry
def measure(memory: Memory, plan: Plan, users: Users, slots: I64, words: I64, key_bytes: I64) -> None:
    """Drop what has expired; fill in each user's body length in words and key length in bytes."""
    for row in range(len(slots)):
        block = users.blocks[slots[row]]
        if quarter(memory, 4 * block + COUNT):
            newest = newest_time(memory, plan, user_at(memory, block))
            expire(memory, plan, users.book, block, newest - plan.retention_ms)
        words[row] = body_words(memory, plan, block)
        key_bytes[row] = quarter(memory, 4 * block + KEY_LENGTH)


@entry
def dump(
    memory: Memory,
    plan: Plan,
    users: Users,
    scratch: Scratch,
    slots: I64,
    start: I64,
    bodies: I64,
    keys: U8,
    applied: I64,
    newest: I64,
) -> None:
    """Write the users' bodies and keys one after another; `start` int64[2] is what every body starts with."""
    quarters, key_at, at = bodies.view(np.uint16), 0, 0
    for row in range(len(slots)):
        block = users.blocks[slots[row]]
        for byte in range(quarter(memory, 4 * block + KEY_LENGTH)):
            source = word(memory, block + plan.fixed_words + byte // 8)
            keys[key_at] = (source >> (8 * (byte % 8))) & 0xFF
            key_at += 1
        applied[row] = word(memory, block + APPLIED)
        newest[row] = newest_time(memory, plan, user_at(memory, block)) if quarter(memory, 4 * block + COUNT) else NEVER
        bodies[at], bodies[at + 1] = start[0], start[1]
        dump_user(memory, plan, scratch, block, bodies, quarters, at)
        at += body_words(memory, plan, block)


@piece
def dump_user(memory: Memory, plan: Plan, scratch: Scratch, block: int, bodies: I64, quarters: U16, start: int) -> None:
    """Write one body from its third word on. Values are numbered in the order the events first mention them."""
    user = user_at(memory, block)
    count, values = quarter(memory, user.header + COUNT), quarter(memory, user.header + VALUES)
    place = quarter(memory, user.header + HEAD)
    bodies[start + 2] = word(memory, block + APPLIED)
    bodies[start + 3] = word(memory, block + FLOOR)
    bodies[start + 4] = count | values << 32
    hashes_at = start + HEADER_WORDS
    times_at = hashes_at + values
    codes_at = 4 * (times_at + 3 * count)
    bodies[codes_at // 4 : codes_at // 4 + (count * plan.fields + 3) // 4] = 0
    numbered, before = 0, scratch.stamps[NONE + 1]
    scratch.stamps[NONE + 1] += values  # stamps above `before` are this user's numbers
    for row in range(count):
        event = user.ring + place * plan.stride
        place = later(user, place)
        bodies[times_at + row] = word(memory, event + TIME)
        bodies[times_at + count + row] = word(memory, event + TRANSACTION)
        bodies[times_at + 2 * count + row] = word(memory, event + AMOUNT)
        for field in range(plan.fields):
            code = quarter(memory, 4 * event + CODES + field)
            if code == NONE:
                continue
            if scratch.stamps[code] <= before:
                bodies[hashes_at + numbered] = word(memory, user.hashes + code)
                numbered += 1
                scratch.stamps[code] = before + numbered
            quarters[codes_at + row * plan.fields + field] = scratch.stamps[code] - before


@entry
def load(
    memory: Memory, plan: Plan, users: Users, scratch: Scratch, slots: I64, bodies: I64, words: I64, start_row: int
) -> int:
    """Rebuild users, who hold nothing, from bodies; return the row to go on at, short of the end if the arena is full.

    `bodies`: one after another, `words` their lengths. A slot of -1 is passed over.
    """
    quarters, end = bodies.view(np.uint16), 0
    for row in range(len(slots)):
        at, end = end, end + words[row]
        if row < start_row or slots[row] < 0:
            continue
        block = users.blocks[slots[row]]
        count, values = bodies[at + 4] & 0xFFFF_FFFF, bodies[at + 4] >> 32
        hashes_at = at + HEADER_WORDS
        times_at = hashes_at + values
        codes_at = 4 * (times_at + 3 * count)
        for event in range(count):
            scratch.times[event] = bodies[times_at + event]
            scratch.transactions[event] = bodies[times_at + count + event]
            scratch.amounts[event] = bodies[times_at + 2 * count + event]
            for field in range(plan.fields):
                code = signed(quarters[codes_at + event * plan.fields + field])
                scratch.values[event, field] = bodies[hashes_at + code - 1] if code else 0
        block = put_back(memory, plan, users, scratch, block, 0, count, values, 1)
        if block < 0:
            return row
        memory.words[block + APPLIED] = bodies[at + 2]
        memory.words[block + FLOOR] = bodies[at + 3]
    return len(slots)
