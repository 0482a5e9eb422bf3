"""A user's lookups: the transactions and the field values of its kept events.

Both are chains: heads in a table, links beside the elements. A transaction chain runs
from its newest event to ever older ones; where the next is no older it has been dropped and the chain is over, so
dropping an event need not touch its chain. A value leaves its chain when the last event that has it is dropped; its
code is then used again.
"""

from state.kernel_jit import piece
from state.kernel_layout import (
    BUCKETS,
    BUCKETS_AT,
    CHAINS,
    CHAINS_AT,
    COUNT,
    I64,
    NEXT,
    NONE,
    TRANSACTION,
    VALUES,
    VALUES_FREE,
    VALUES_TOP,
    Memory,
    User,
    age,
    half,
    put,
    quarter,
    spread,
    word,
)


@piece
def chain_head(memory: Memory, block: int, transaction: int) -> int:
    """Return the quarter that heads a transaction's chain."""
    chain = spread(transaction, quarter(memory, 4 * block + CHAINS))
    return 4 * block + half(memory, 2 * block + CHAINS_AT) + chain


@piece
def find_transaction(memory: Memory, stride: int, user: User, end: int, transaction: int) -> int:
    """Return the place of the kept event with this transaction hash, or -1; `end` is the place after the newest."""
    count = quarter(memory, user.header + COUNT)
    place, older_than = quarter(memory, chain_head(memory, user.block, transaction)), 0
    while True:
        # Whether a head is still kept cannot be foretold, so the event is read either way and one test decides all.
        years = age(user, place, end)
        kept = (place < user.cap) & (years > older_than) & (years <= count)
        event = user.ring + (place if kept else 0) * stride
        if kept & (word(memory, event + TRANSACTION) == transaction):
            return place
        place, older_than = quarter(memory, 4 * event + NEXT), years
        if not (kept & (place < user.cap)):
            return -1


@piece
def link_transaction(memory: Memory, block: int, event: int, place: int, transaction: int) -> None:
    """Put the newest event at the head of its transaction chain."""
    head = chain_head(memory, block, transaction)
    put(memory, 4 * event + NEXT, quarter(memory, head))
    put(memory, head, place)


@piece
def bucket(memory: Memory, block: int, value: int) -> int:
    """Return the quarter that heads a value's chain."""
    chain = spread(value, quarter(memory, 4 * block + BUCKETS))
    return 4 * block + half(memory, 2 * block + BUCKETS_AT) + chain


@piece
def find_value(memory: Memory, user: User, value: int) -> int:
    """Return the code of a field value, or NONE where no kept event has it."""
    code = quarter(memory, bucket(memory, user.block, value))
    while code != NONE and word(memory, user.hashes + code) != value:
        code = quarter(memory, user.links + code)
    return code


@piece
def add_value(memory: Memory, user: User, value: int) -> int:
    """Give a new value a code; there must be room for it."""
    header = user.header
    code = quarter(memory, header + VALUES_FREE)
    if code == NONE:
        code = quarter(memory, header + VALUES_TOP)
        put(memory, header + VALUES_TOP, code + 1)
    else:
        put(memory, header + VALUES_FREE, quarter(memory, user.links + code))
    put(memory, header + VALUES, quarter(memory, header + VALUES) + 1)
    memory.words[user.hashes + code] = value
    head = bucket(memory, user.block, value)
    put(memory, user.links + code, quarter(memory, head))
    put(memory, head, code)
    return code


@piece
def remove_value(memory: Memory, user: User, code: int) -> None:
    """Forget a value that no kept event has any more."""
    header = user.header
    at = bucket(memory, user.block, word(memory, user.hashes + code))
    while quarter(memory, at) != code:
        at = user.links + quarter(memory, at)
    put(memory, at, quarter(memory, user.links + code))
    put(memory, user.links + code, quarter(memory, header + VALUES_FREE))
    put(memory, user.lasts + code, NONE)  # nobody's: should two fields have met in one hash, it is removed once
    put(memory, header + VALUES_FREE, code)
    put(memory, header + VALUES, quarter(memory, header + VALUES) - 1)


@piece
def copy_values(memory: Memory, user: User, new: User, end: int, renamed: I64) -> None:
    """Copy the values into a block that has none and is large enough; leave their new codes in `renamed`.

    The ring of the new block starts with the oldest event; `end` is the place after the newest in the old one.
    """
    count = quarter(memory, user.header + COUNT)
    first = user.header + half(memory, 2 * user.block + BUCKETS_AT)
    for head in range(first, first + quarter(memory, user.header + BUCKETS)):
        code = quarter(memory, head)
        while code != NONE:
            fresh = add_value(memory, new, word(memory, user.hashes + code))
            put(memory, new.lasts + fresh, count - age(user, quarter(memory, user.lasts + code), end))
            renamed[code] = fresh
            code = quarter(memory, user.links + code)
