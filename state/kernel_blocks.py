"""Blocks of the arena: handing them out, sizing a user's, and moving them together.

Free blocks hang in lists by size, each an eighth or less above the one before. A block is cut from the first free one
that is large enough, else from the arena's untouched end.
"""

from state.kernel_jit import entry, move_words, piece, section
from state.kernel_layout import (
    APPLIED,
    CLEAN,
    DEAD,
    FIRST_DIRTY,
    FLOOR,
    FREE,
    FREE_BLOCKS,
    HASHES_AT,
    HIGH_AT,
    HIGH_CAP,
    I64,
    KEY_LENGTH,
    LOW_AT,
    LOW_CAP,
    MARKS_AT,
    NEW_FLOOR,
    NONE,
    PENDING,
    RING_AT,
    RING_CAP,
    SIZE,
    SLOT,
    SWEEP_SOURCE,
    SWEEP_TARGET,
    TOP_CLASS,
    UNWRITTEN,
    USED,
    VALUES_CAP,
    VALUES_FREE,
    Memory,
    Users,
    get,
    half,
    put,
    put_word,
    quarter,
    word,
)
from state.kernel_plan import Plan

SMALLEST_STACK = 4  # entries
SMALLEST_REST = 64  # words; what is cut off a block must still serve a user
SPARE_STACK = 3  # entries beyond those in use, for a stack's size wanders more than it grows
LINE_WORDS = 8  # a block starts on a cache line


@piece
def size_class(words: int) -> int:
    """Return the number of the largest class of at most this size; classes are 8 to 15 units of a power of two."""
    shift = 0
    while words >> shift >= 16:
        shift += 1
    return shift * 8 + (words >> shift) - 8


@piece
def power_of_two(least: int) -> int:
    """Return the smallest power of two that is at least this and at least SMALLEST_STACK."""
    size = SMALLEST_STACK
    while size < least:
        size *= 2
    return size


@section
def allocate(memory: Memory, book: I64, words: int) -> int:
    """Return a block of so many words, a multiple of LINE_WORDS, or few more; or -1 when the arena is full."""
    for number in range(size_class(words - LINE_WORDS) + 1, book[TOP_CLASS] + 1):
        block = get(book, FREE_BLOCKS + number) - 1
        if block >= 0 and half(memory, 2 * block + SIZE) >= words:
            book[FREE_BLOCKS + number] = word(memory, block)
            size = half(memory, 2 * block + SIZE)
            book[DEAD] -= size
            if size - words >= SMALLEST_REST:
                memory.halves[2 * (block + words) + SIZE] = size - words
                release(memory, book, block + words)
                memory.halves[2 * block + SIZE] = words
            return block
    block = book[USED]
    if block + words + LINE_WORDS > len(memory.words):  # a comparison of marks may read so far beyond the block
        return -1
    book[USED] += words
    memory.halves[2 * block + SIZE] = words
    return block


@piece
def release(memory: Memory, book: I64, block: int) -> None:
    """Take a block back; its size must stand in it."""
    size = half(memory, 2 * block + SIZE)
    memory.halves[2 * block + SLOT] = FREE
    book[DEAD] += size
    if 0 < book[SWEEP_SOURCE] <= block:
        return  # the sweep will pass it
    number = size_class(size)
    memory.words[block] = book[FREE_BLOCKS + number]
    book[FREE_BLOCKS + number] = block + 1
    book[TOP_CLASS] = max(book[TOP_CLASS], number)


@piece
def ring_at(marks_at: int, quarters: int, values: int, events: int) -> int:
    """Return the word of a block where the ring of so many events starts."""
    tables_end = marks_at + (events + quarters + 3) // 4
    return (tables_end + values + 3) & ~3  # an event of four words then never lies on two lines


@piece
def fits(plan: Plan, marks_at: int, quarters: int, values: int, events: int, size: int) -> bool:
    """Whether a block of this size has room for so many events."""
    return ring_at(marks_at, quarters, values, events) + events * plan.stride <= size


@section
def new_block(
    memory: Memory, plan: Plan, users: Users, key_length: int, events: int, values: int, high: int, low: int
) -> int:
    """Hand out and lay out an empty block with room for so much and somewhat more, or return -1.

    What the block has beyond that goes to the ring. The caller fills in slot and key.
    """
    events, values = min(plan.max_events, events + min(events >> 3, 4 + (events >> 4)) + 1), values + (values >> 3) + 2
    high_cap = power_of_two(high + SPARE_STACK) if plan.high else 0
    low_cap = power_of_two(low + SPARE_STACK) if plan.low else 0
    marks_at = plan.fixed_words + (key_length + 7) // 8
    quarters = 2 * values + high_cap + low_cap  # beside the marks of the transactions
    size = ring_at(marks_at, quarters, values, events) + events * plan.stride
    block = allocate(memory, users.book, (size + LINE_WORDS - 1) & -LINE_WORDS)
    if block < 0:
        return -1
    size = half(memory, 2 * block + SIZE)
    while events < plan.max_events and fits(plan, marks_at, quarters, values, events + 1, size):
        events += 1
    ring = ring_at(marks_at, quarters, values, events)

    words, halves, header = memory.words, memory.halves, 4 * block
    words[block : block + plan.fixed_words] = 0
    words[block + APPLIED] = -1
    words[block + FLOOR] = users.book[NEW_FLOOR]
    words[block + FIRST_DIRTY] = CLEAN
    halves[2 * block + SIZE] = size
    halves[2 * block + MARKS_AT] = 4 * marks_at
    halves[2 * block + HIGH_AT] = 4 * marks_at + events + 2 * values
    halves[2 * block + LOW_AT] = 4 * marks_at + events + 2 * values + high_cap
    halves[2 * block + HASHES_AT] = marks_at + (events + quarters + 3) // 4
    halves[2 * block + RING_AT] = ring
    put(memory, header + RING_CAP, events)
    put(memory, header + VALUES_CAP, values)
    put(memory, header + VALUES_FREE, NONE)
    put(memory, header + HIGH_CAP, high_cap)
    put(memory, header + LOW_CAP, low_cap)
    put(memory, header + KEY_LENGTH, key_length)
    return block


@section
def adopt(memory: Memory, plan: Plan, users: Users, old: int, new: int) -> None:
    """Carry what a user is known by from its old block to its new one, and release the old."""
    halves = memory.halves
    for at in range(APPLIED, FIRST_DIRTY + 1):
        put_word(memory, new + at, word(memory, old + at))
    length = quarter(memory, 4 * old + KEY_LENGTH)
    for at in range(plan.fixed_words, plan.fixed_words + (length + 7) // 8):
        put_word(memory, new + at, word(memory, old + at))
    for at in range(KEY_LENGTH, PENDING + 1):
        put(memory, 4 * new + at, quarter(memory, 4 * old + at))
    slot = half(memory, 2 * old + SLOT)
    halves[2 * new + SLOT] = slot
    if not is_clean(memory, new):
        users.book[UNWRITTEN] += half(memory, 2 * new + SIZE) - half(memory, 2 * old + SIZE)
    users.blocks[slot] = new
    release(memory, users.book, old)


@piece
def is_clean(memory: Memory, block: int) -> bool:
    """Whether all that the user's block holds is stored and acknowledged."""
    return word(memory, block + FIRST_DIRTY) == CLEAN and quarter(memory, 4 * block + PENDING) == 0


@entry
def sweep(memory: Memory, users: Users, restart: bool, budget: int) -> None:
    """Slide blocks together towards the arena's start, about `budget` words of them; go on from where it stopped.

    Between two calls the gap that has opened is one dead block, and blocks above it that fall free are not listed.
    At the end all above the last block is untouched again.
    """
    words, halves, book = memory.words, memory.halves, users.book
    if restart:
        book[SWEEP_SOURCE] = book[SWEEP_TARGET] = book[TOP_CLASS] = 0
        book[FREE_BLOCKS:] = 0
    source, target = book[SWEEP_SOURCE], book[SWEEP_TARGET]
    stop = min(book[USED], source + budget)
    while source < stop:
        size = half(memory, 2 * source + SIZE)
        slot = half(memory, 2 * source + SLOT)
        if slot != FREE:
            if source != target:
                move_words(words, target, source, size)
                users.blocks[slot] = target
            target += size
        source += size
    if source >= book[USED]:
        book[DEAD] -= source - target
        book[USED] = target
        source = target = 0
    elif source > target:
        halves[2 * target + SLOT] = FREE
        halves[2 * target + SIZE] = source - target
    book[SWEEP_SOURCE], book[SWEEP_TARGET] = source, target
