"""From a user's key to its slot, and a slot's life: created, found, copied into a snapshot, acknowledged, evicted.

Keys are compared byte for byte; the hash only says where to look. It is seeded anew in each Windows, so nobody can
choose user ids that all fall into one place, and no result depends on it.
"""

import numpy as np

from state.kernel_blocks import is_clean, new_block, release
from state.kernel_jit import eight_bytes, entry, equal_bytes, lowest_bit, piece, prefetch, section
from state.kernel_layout import (
    APPLIED,
    CLEAN,
    COUNT,
    DEAD,
    EVENTS,
    FIRST_DIRTY,
    FREE,
    HAND,
    I64,
    KEY_LENGTH,
    LOOKED,
    PENDING,
    QUEUE_HEAD,
    QUEUE_SIZE,
    SEED,
    SIZE,
    SLOT,
    SLOTS_FREE,
    SLOTS_TOP,
    TOUCHED,
    U8,
    UNWRITTEN,
    USED,
    USERS,
    Memory,
    Users,
    get,
    half,
    put,
    quarter,
    signed,
    unsigned,
    user_at,
    word,
)
from state.kernel_plan import Plan
from state.kernel_windows import newest_time

MULTIPLIER, STEP = unsigned(0x9E37_79B9_7F4A_7C15), unsigned(32)
TAG_MASK = 0x7FFF_FFFF << 32
SLOT_MASK = 0xFFFF_FFFF
FIND_AHEAD = 8  # keys
BYTES_AT_ONCE = 64
FIRST_EVENTS, FIRST_VALUES = 0, 3  # room in the block of a user never seen, before what is added to spare


@piece
def key_word(keys: U8, start: int, end: int) -> int:
    """Return up to eight bytes as one little-endian word, zeros after the end."""
    if end - start >= 8:
        return eight_bytes(keys, start)
    if end >= 8:  # the bytes before these can be read: shifted out, that is one step instead of one a byte
        return signed(unsigned(eight_bytes(keys, end - 8)) >> unsigned(8 * (8 - (end - start))))
    result = unsigned(0)
    for at in range(end - start):
        result |= unsigned(keys[unsigned(start + at)]) << unsigned(8 * at)
    return signed(result)


@piece
def hash_key(keys: U8, start: int, end: int, seed: int) -> int:
    """Return a 63-bit hash of the bytes start … end - 1."""
    state = unsigned(seed) ^ unsigned(end - start)
    for at in range(start, end, 8):
        state = (state ^ unsigned(key_word(keys, at, end))) * MULTIPLIER
        state ^= state >> STEP
    state *= MULTIPLIER
    return signed((state ^ (state >> STEP)) >> unsigned(1))


@piece
def find_place(memory: Memory, plan: Plan, users: Users, keys: U8, start: int, end: int, code: int) -> int:
    """Return the table's place of a key: where it stands or, empty, where it would."""
    mask = len(users.table) - 1
    place = code & mask
    while get(users.table, place):
        entry_word = get(users.table, place)
        if not (entry_word ^ code) & TAG_MASK:
            block = get(users.blocks, (entry_word & SLOT_MASK) - 1)
            if has_key(memory, plan, block, keys, start, end):
                break
        place = (place + 1) & mask
    return place


@piece
def has_key(memory: Memory, plan: Plan, block: int, keys: U8, start: int, end: int) -> bool:
    """Whether a block belongs to this key."""
    if quarter(memory, 4 * block + KEY_LENGTH) != end - start:
        return False
    at = block + plan.fixed_words
    for first in range(start, end, 8):
        if word(memory, at) != key_word(keys, first, end):
            return False
        at += 1
    return True


@entry
def measure_keys(keys: U8, separator: int, lengths: I64) -> bool:
    """Fill in the lengths of the keys, each of which a separator follows; return whether there are that many."""
    found, start, rest = 0, 0, len(keys) & -BYTES_AT_ONCE
    for first in range(0, rest, BYTES_AT_ONCE):
        equal = equal_bytes(keys, first, separator)
        while equal:
            at = first + lowest_bit(equal)
            equal &= equal - 1
            if found < len(lengths):
                lengths[unsigned(found)] = at - start
            found, start = found + 1, at + 1
    for at in range(rest, len(keys)):
        if keys[unsigned(at)] == separator:
            if found < len(lengths):
                lengths[unsigned(found)] = at - start
            found, start = found + 1, at + 1
    return found == len(lengths)


@entry
def find(memory: Memory, plan: Plan, users: Users, keys: U8, lengths: I64, slots: I64) -> None:
    """Fill in each key's slot, -1 where the user is not in memory.

    `keys` uint8: the keys one after another, a byte between them.

    Four stages, some keys apart, so that what one reads has been fetched when it comes: the key's hash, kept in `slots`
    for the while; its table entry; the slot's block; the key in the block.
    """
    rows, mask, seed = len(lengths), len(users.table) - 1, users.book[SEED]
    hashed_to = found_to = -1
    for row in range(rows + 3 * FIND_AHEAD):
        if row < rows:
            hashed_from, hashed_to = hashed_to + 1, hashed_to + 1 + get(lengths, row)
            code = hash_key(keys, hashed_from, hashed_to, seed)
            prefetch(users.table, code & mask)
            slots[unsigned(row)] = code
        if FIND_AHEAD <= row < rows + FIND_AHEAD:
            entry_word = get(users.table, get(slots, row - FIND_AHEAD) & mask)
            if entry_word:
                prefetch(users.blocks, (entry_word & SLOT_MASK) - 1)
        if 2 * FIND_AHEAD <= row < rows + 2 * FIND_AHEAD:
            entry_word = get(users.table, get(slots, row - 2 * FIND_AHEAD) & mask)
            if entry_word:
                block = get(users.blocks, (entry_word & SLOT_MASK) - 1)
                prefetch(memory.quarters, 4 * block + KEY_LENGTH)
                prefetch(memory.words, block + plan.fixed_words)
        if row >= 3 * FIND_AHEAD:
            done = row - 3 * FIND_AHEAD
            found_from, found_to = found_to + 1, found_to + 1 + get(lengths, done)
            place = find_place(memory, plan, users, keys, found_from, found_to, get(slots, done))
            slots[unsigned(done)] = (get(users.table, place) & SLOT_MASK) - 1


@entry
def create(memory: Memory, plan: Plan, users: Users, keys: U8, lengths: I64, start_row: int, start: int) -> int:
    """Give each key not in memory a slot and an empty block; return the row to go on at, short if the arena is full.

    There must be a free slot and a free half of the table for each.
    """
    end = start - 1
    for row in range(start_row, len(lengths)):
        start, end = end + 1, end + 1 + lengths[row]
        code = hash_key(keys, start, end, users.book[SEED])
        place = find_place(memory, plan, users, keys, start, end, code)
        if users.table[place]:
            continue
        block = new_block(memory, plan, users, lengths[row], FIRST_EVENTS, FIRST_VALUES, 1, 1)
        if block < 0:
            return row
        slot = take_slot(users)
        users.blocks[slot] = block
        users.table[place] = (code & TAG_MASK) | (slot + 1)
        users.book[USERS] += 1
        memory.halves[2 * block + SLOT] = slot
        put(memory, 4 * block + TOUCHED, 1)
        at = block + plan.fixed_words
        for first in range(start, end, 8):
            memory.words[at] = key_word(keys, first, end)
            at += 1
    return len(lengths)


@piece
def take_slot(users: Users) -> int:
    """Return a free slot."""
    book = users.book
    slot = book[SLOTS_FREE]
    if slot == FREE:
        slot = book[SLOTS_TOP]
        book[SLOTS_TOP] = slot + 1
    else:
        book[SLOTS_FREE] = -2 - users.blocks[slot]
    return slot


@section
def forget(memory: Memory, plan: Plan, users: Users, slot: int) -> None:
    """Drop a user: its table entry, its block, its slot."""
    book, block = users.book, users.blocks[slot]
    code = block_hash(memory, plan, book, block)
    mask = len(users.table) - 1
    place = code & mask
    while (users.table[place] & SLOT_MASK) - 1 != slot:
        place = (place + 1) & mask
    close_gap(memory, plan, users, place)
    book[USERS] -= 1
    book[EVENTS] -= quarter(memory, 4 * block + COUNT)
    release(memory, book, block)
    users.blocks[slot] = -2 - book[SLOTS_FREE]
    book[SLOTS_FREE] = slot


@section
def block_hash(memory: Memory, plan: Plan, book: I64, block: int) -> int:
    """Return the hash of the key a block belongs to."""
    length = quarter(memory, 4 * block + KEY_LENGTH)
    key = memory.words[block + plan.fixed_words : block + plan.fixed_words + (length + 7) // 8].view(np.uint8)
    return hash_key(key, 0, length, book[SEED])


@section
def close_gap(memory: Memory, plan: Plan, users: Users, gap: int) -> None:
    """Empty a place of the table and move up the entries that were pushed past it."""
    mask = len(users.table) - 1
    users.table[gap] = 0
    place = (gap + 1) & mask
    while users.table[place]:
        home = block_hash(memory, plan, users.book, users.blocks[(users.table[place] & SLOT_MASK) - 1]) & mask
        if ((place - home) & mask) >= ((place - gap) & mask):
            users.table[gap] = users.table[place]
            users.table[place] = 0
            gap = place
        place = (place + 1) & mask


@entry
def rehash(memory: Memory, plan: Plan, users: Users) -> None:
    """Fill the table, which is empty, from the blocks."""
    mask = len(users.table) - 1
    for slot in range(users.book[SLOTS_TOP]):
        block = users.blocks[slot]
        if block >= 0:
            code = block_hash(memory, plan, users.book, block)
            place = code & mask
            while users.table[place]:
                place = (place + 1) & mask
            users.table[place] = (code & TAG_MASK) | (slot + 1)


@entry
def take_changed(memory: Memory, users: Users, slots: I64) -> int:
    """Take that many users off the queue, oldest change first, as pending; return the next one's first change or -1."""
    book = users.book
    for row in range(len(slots)):
        slot = users.queue[book[QUEUE_HEAD]]
        block = users.blocks[slot]
        slots[row] = slot
        memory.words[block + FIRST_DIRTY] = CLEAN
        put(memory, 4 * block + PENDING, quarter(memory, 4 * block + PENDING) + 1)
        book[QUEUE_HEAD] = (book[QUEUE_HEAD] + 1) % len(users.queue)
        book[QUEUE_SIZE] -= 1
    if book[QUEUE_SIZE] == 0:
        return -1
    return word(memory, users.blocks[users.queue[book[QUEUE_HEAD]]] + FIRST_DIRTY)


@entry
def acknowledge(memory: Memory, users: Users, slots: I64) -> None:
    """Note that a snapshot of these users is stored."""
    for row in range(len(slots)):
        block = users.blocks[slots[row]]
        put(memory, 4 * block + PENDING, quarter(memory, 4 * block + PENDING) - 1)
        if is_clean(memory, block):
            users.book[UNWRITTEN] -= half(memory, 2 * block + SIZE)


@entry
def evict(memory: Memory, plan: Plan, users: Users, live_words: int) -> int:
    """Drop clean users until no more than that many words are in use; return how many.

    A hand goes round the slots: a user touched since it last passed is spared once.
    """
    book, dropped = users.book, 0
    for _ in range(2 * book[SLOTS_TOP]):
        if book[USED] - book[DEAD] <= live_words:
            break
        slot = book[HAND] % book[SLOTS_TOP]
        book[HAND] = slot + 1
        block = users.blocks[slot]
        if block < 0 or not is_clean(memory, block):
            continue
        if quarter(memory, 4 * block + TOUCHED):
            put(memory, 4 * block + TOUCHED, 0)
        else:
            forget(memory, plan, users, slot)
            dropped += 1
    return dropped


@entry
def forget_expired(memory: Memory, plan: Plan, users: Users, horizon_ms: int, slots: int) -> int:
    """Look at so many slots, round and round; drop clean users without an event after the horizon; return how many."""
    book, dropped = users.book, 0
    for _ in range(min(slots, book[SLOTS_TOP])):
        slot = book[LOOKED] % book[SLOTS_TOP]
        book[LOOKED] = slot + 1
        block = users.blocks[slot]
        if block < 0 or not is_clean(memory, block):
            continue
        if quarter(memory, 4 * block + COUNT) and newest_time(memory, plan, user_at(memory, block)) > horizon_ms:
            continue
        forget(memory, plan, users, slot)
        dropped += 1
    return dropped


@entry
def applied(memory: Memory, users: Users, slots: I64, offsets: I64) -> None:
    """Fill in each slot's last applied offset, -1 where none."""
    for row in range(len(slots)):
        offsets[row] = word(memory, users.blocks[slots[row]] + APPLIED)
