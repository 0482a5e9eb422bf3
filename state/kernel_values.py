"""A user's lookups: the transactions and the field values of its kept events.

Both are chains: heads in a table whose size is a power of two, links beside the elements. A transaction chain runs
from its newest event to ever older ones and ends at the first that is no longer kept, so dropping an event need not
touch it. A value leaves its chain when the last event that has it is dropped; its code is then used again.
"""

from state.kernel_jit import piece
from state.kernel_layout import (
    BUCKETS_AT,
    BUCKETS_MASK,
    CHAINS_AT,
    CHAINS_MASK,
    COUNT,
    HASHES_AT,
    LASTS_AT,
    NEXT,
    NONE,
    SEQ_MASK,
    TRANSACTION,
    VALUES,
    VALUES_CAP,
    VALUES_FREE,
    VALUES_TOP,
    Memory,
    event_at,
    half,
    next_seq,
    put,
    quarter,
    word,
)


@piece
def chain_head(memory: Memory, block: int, transaction: int) -> int:
    """Return the quarter that heads a transaction's chain."""
    return 4 * block + half(memory, 2 * block + CHAINS_AT) + (transaction & quarter(memory, 4 * block + CHAINS_MASK))


@piece
def find_transaction(memory: Memory, stride: int, block: int, transaction: int) -> int:
    """Return the sequence number of the kept event with this transaction hash, or -1."""
    end, count = next_seq(memory, block), quarter(memory, 4 * block + COUNT)
    seq = quarter(memory, chain_head(memory, block, transaction))
    age, older_than = (end - seq) & SEQ_MASK, 0
    while older_than < age <= count:
        event = event_at(memory, stride, block, seq)
        if word(memory, event + TRANSACTION) == transaction:
            return seq
        seq = quarter(memory, 4 * event + NEXT)
        older_than, age = age, (end - seq) & SEQ_MASK
    return -1


@piece
def link_transaction(memory: Memory, block: int, event: int, seq: int, transaction: int) -> None:
    """Put the newest event at the head of its transaction chain."""
    head = chain_head(memory, block, transaction)
    put(memory, 4 * event + NEXT, quarter(memory, head))
    put(memory, head, seq)


@piece
def bucket(memory: Memory, block: int, value: int) -> int:
    """Return the quarter that heads a value's chain."""
    header = 4 * block
    return header + half(memory, 2 * block + BUCKETS_AT) + (value & quarter(memory, header + BUCKETS_MASK))


@piece
def lasts(memory: Memory, block: int) -> int:
    """Return the quarter where the values' last occurrences start; the links follow them."""
    return 4 * block + half(memory, 2 * block + LASTS_AT)


@piece
def links(memory: Memory, block: int) -> int:
    """Return the quarter where the values' chain links start."""
    return lasts(memory, block) + quarter(memory, 4 * block + VALUES_CAP)


@piece
def hashes(memory: Memory, block: int) -> int:
    """Return the word where the values' hashes start."""
    return block + half(memory, 2 * block + HASHES_AT)


@piece
def find_value(memory: Memory, block: int, value: int) -> int:
    """Return the code of a field value, or NONE where no kept event has it."""
    code = quarter(memory, bucket(memory, block, value))
    while code != NONE and word(memory, hashes(memory, block) + code) != value:
        code = quarter(memory, links(memory, block) + code)
    return code


@piece
def add_value(memory: Memory, block: int, value: int) -> int:
    """Give a new value a code; there must be room for it."""
    header = 4 * block
    code = quarter(memory, header + VALUES_FREE)
    if code == NONE:
        code = quarter(memory, header + VALUES_TOP)
        put(memory, header + VALUES_TOP, code + 1)
    else:
        put(memory, header + VALUES_FREE, quarter(memory, links(memory, block) + code))
    put(memory, header + VALUES, quarter(memory, header + VALUES) + 1)
    memory.words[hashes(memory, block) + code] = value
    head = bucket(memory, block, value)
    put(memory, links(memory, block) + code, quarter(memory, head))
    put(memory, head, code)
    return code


@piece
def remove_value(memory: Memory, block: int, code: int) -> None:
    """Forget a value that no kept event has any more."""
    header = 4 * block
    first_link = links(memory, block)
    at = bucket(memory, block, word(memory, hashes(memory, block) + code))
    while quarter(memory, at) != code:
        at = first_link + quarter(memory, at)
    put(memory, at, quarter(memory, first_link + code))
    put(memory, first_link + code, quarter(memory, header + VALUES_FREE))
    put(memory, header + VALUES_FREE, code)
    put(memory, header + VALUES, quarter(memory, header + VALUES) - 1)


@piece
def copy_values(memory: Memory, block: int, new: int) -> None:
    """Copy the values into a block that has none and is large enough; they keep their codes."""
    header, old = 4 * new, 4 * block
    top = quarter(memory, old + VALUES_TOP)
    for at in range(VALUES, VALUES_FREE + 1):
        if at != VALUES_CAP:
            put(memory, header + at, quarter(memory, old + at))
    for code in range(top):
        memory.words[hashes(memory, new) + code] = word(memory, hashes(memory, block) + code)
        put(memory, lasts(memory, new) + code, quarter(memory, lasts(memory, block) + code))
        put(memory, links(memory, new) + code, quarter(memory, links(memory, block) + code))  # of the free codes
    first = old + half(memory, 2 * block + BUCKETS_AT)
    for head in range(first, first + quarter(memory, old + BUCKETS_MASK) + 1):
        code = quarter(memory, head)
        while code != NONE:
            at = bucket(memory, new, word(memory, hashes(memory, new) + code))
            put(memory, links(memory, new) + code, quarter(memory, at))
            put(memory, at, code)
            code = quarter(memory, links(memory, block) + code)
