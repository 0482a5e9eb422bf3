"""A user's lookups: the transactions and the field values of its kept events.

Both go through a table of marks, from its start. That is as long as the user has events or values, but 32 marks are one
comparison, nothing has to be taken out when an event is dropped, and none of it hangs on what a read before it found.
A value is forgotten when the last event that has it is dropped; its code is then used again, and until then the word of
its hash holds the next free code.
"""

from state.kernel_jit import equal_quarters, lowest_bit, piece
from state.kernel_layout import (
    COUNT,
    I64,
    NONE,
    TRANSACTION,
    VALUES,
    VALUES_FREE,
    VALUES_TOP,
    Memory,
    User,
    age,
    mark,
    put,
    put_word,
    quarter,
    unsigned,
    word,
)

AT_ONCE = 32  # marks


@piece
def find_transaction(memory: Memory, stride: int, user: User, end: int, transaction: int) -> int:
    """Return the place of the kept event with this transaction hash, or -1; `end` is the place after the newest."""
    count = quarter(memory, user.header + COUNT)
    for first in range(0, user.cap, AT_ONCE):
        equal = equal_quarters(memory.quarters, user.marks + first, mark(transaction))
        while equal:
            place = first + lowest_bit(equal)
            equal &= equal - 1
            # A mark stands until its place is used again, and behind the last lies another table.
            event = user.ring + place * stride
            if place < user.cap and age(user, place, end) <= count and word(memory, event + TRANSACTION) == transaction:
                return place
    return -1


@piece
def find_value(memory: Memory, user: User, value: int) -> int:
    """Return the code of a field value, or NONE where no kept event has it."""
    top = quarter(memory, user.header + VALUES_TOP)
    for first in range(0, top, AT_ONCE):
        equal = equal_quarters(memory.quarters, user.value_marks + first, mark(value))
        while equal:
            code = first + lowest_bit(equal)
            equal &= equal - 1
            if code < top and word(memory, user.hashes + code) == value and quarter(memory, user.lasts + code) != NONE:
                return code
    return NONE


@piece
def add_value(memory: Memory, user: User, value: int, place: int) -> int:
    """Give a new value, that of the event at this place, a code; there must be room for it."""
    header = user.header
    code = quarter(memory, header + VALUES_FREE)
    if code == NONE:
        code = quarter(memory, header + VALUES_TOP)
        put(memory, header + VALUES_TOP, code + 1)
    else:
        put(memory, header + VALUES_FREE, word(memory, user.hashes + code))
    put(memory, header + VALUES, quarter(memory, header + VALUES) + 1)
    set_value(memory, user, code, value, place)
    return code


@piece
def set_value(memory: Memory, user: User, code: int, value: int, place: int) -> None:
    """Write a value and the place of its last occurrence."""
    put_word(memory, user.hashes + code, value)
    put(memory, user.value_marks + code, mark(value))
    put(memory, user.lasts + code, place)


@piece
def remove_value(memory: Memory, user: User, code: int) -> None:
    """Forget a value that no kept event has any more."""
    header = user.header
    put(memory, user.lasts + code, NONE)  # nobody's: should two fields have met in one hash, it is removed once
    put_word(memory, user.hashes + code, quarter(memory, header + VALUES_FREE))
    put(memory, header + VALUES_FREE, code)
    put(memory, header + VALUES, quarter(memory, header + VALUES) - 1)


@piece
def copy_values(memory: Memory, user: User, new: User, end: int, renamed: I64) -> None:
    """Copy the values into a block that has none and is large enough; leave their new codes in `renamed`.

    The ring of the new block starts with the oldest event; `end` is the place after the newest in the old one.
    """
    count, fresh = quarter(memory, user.header + COUNT), 0
    for code in range(quarter(memory, user.header + VALUES_TOP)):
        place = quarter(memory, user.lasts + code)
        if place != NONE:
            set_value(memory, new, fresh, word(memory, user.hashes + code), count - age(user, place, end))
            renamed[unsigned(code)] = fresh
            fresh += 1
    put(memory, new.header + VALUES, fresh)
    put(memory, new.header + VALUES_TOP, fresh)
