"""The stacks that give the largest and the smallest amount of every window at once.

An event can be the maximum of some window only while no later event is at least as large. Those that still can, oldest
first, have falling amounts: a window's maximum is the first of them that lies in the window. One such stack serves all
windows. The stack of minima is the same over negated amounts (`sign` = -1). The stack's own places wrap at its
capacity, a power of two. `at` and `cap` name a stack by its header fields; head and size follow `cap`.
"""

from state.kernel_jit import piece
from state.kernel_layout import AMOUNT, COUNT, I64, Memory, User, age, half, later, put, quarter, word


@piece
def stack_base(memory: Memory, user: User, at: int) -> int:
    """Return the quarter where a stack starts."""
    return user.header + half(memory, 2 * user.block + at)


@piece
def push(memory: Memory, stride: int, user: User, at: int, cap: int, place: int, amount: int, sign: int) -> None:
    """Add the newest event and drop those it outdoes; there must be room."""
    base, mask = stack_base(memory, user, at), quarter(memory, user.header + cap) - 1
    head, size = quarter(memory, user.header + cap + 1), quarter(memory, user.header + cap + 2)
    while size > 0:
        event = user.ring + quarter(memory, base + ((head + size - 1) & mask)) * stride
        if sign * (word(memory, event + AMOUNT) >> 16) > sign * amount:
            break
        size -= 1
    put(memory, base + ((head + size) & mask), place)
    put(memory, user.header + cap + 2, size + 1)


@piece
def pop_oldest(memory: Memory, user: User, at: int, cap: int, place: int) -> None:
    """Take the oldest event, which is being dropped, off the stack if it is still there."""
    base, mask = stack_base(memory, user, at), quarter(memory, user.header + cap) - 1
    head, size = quarter(memory, user.header + cap + 1), quarter(memory, user.header + cap + 2)
    if size > 0 and quarter(memory, base + (head & mask)) == place:
        put(memory, user.header + cap + 1, head + 1)
        put(memory, user.header + cap + 2, size - 1)


@piece
def best(memory: Memory, user: User, at: int, cap: int, end: int, count: int) -> int:
    """Return the place of the extreme among the newest `count` events; at most 16 comparisons.

    `end` is the place after the newest event's.
    """
    base, mask = stack_base(memory, user, at), quarter(memory, user.header + cap) - 1
    head, size = quarter(memory, user.header + cap + 1), quarter(memory, user.header + cap + 2)
    low, high = 0, size - 1
    while low < high:
        middle = (low + high) >> 1
        inside = age(user, quarter(memory, base + ((head + middle) & mask)), end) <= count
        high = middle if inside else high
        low = low if inside else middle + 1
    return quarter(memory, base + ((head + low) & mask))


@piece
def note(memory: Memory, stride: int, user: User, at: int, cap: int, extreme: int, end: int, count: int) -> None:
    """Find a window's extreme and note its amount and place in the two words at `extreme`."""
    place = best(memory, user, at, cap, end, count)
    memory.words[extreme] = word(memory, user.ring + place * stride + AMOUNT) >> 16
    memory.words[extreme + 1] = place


@piece
def follow(
    memory: Memory,
    stride: int,
    user: User,
    at: int,
    cap: int,
    extreme: int,
    place: int,
    count: int,
    amount: int,
    sign: int,
) -> int:
    """Return a window's extreme amount after the newest event, at `place`; search only when the noted one has left."""
    noted = word(memory, extreme + 1)
    if count == 1 or sign * amount >= sign * word(memory, extreme):
        memory.words[extreme], memory.words[extreme + 1] = amount, place
    elif noted == place or age(user, noted, later(user, place)) > count:  # its place may have been used again
        note(memory, stride, user, at, cap, extreme, later(user, place), count)
    return word(memory, extreme)


@piece
def stack_size(amounts: I64, first: int, end: int, sign: int) -> int:
    """Return how many of the events first … end - 1 the stack holds; `amounts` are packed with their currency."""
    size, extreme = 0, 0
    for row in range(end - 1, first - 1, -1):
        amount = sign * (amounts[row] >> 16)
        if size == 0 or amount > extreme:
            size, extreme = size + 1, amount
    return size


@piece
def fill(memory: Memory, user: User, at: int, cap: int, amounts: I64, first: int, end: int, sign: int) -> None:
    """Fill an empty stack with the events first … end - 1, whose places start at 0."""
    size = stack_size(amounts, first, end, sign)
    put(memory, user.header + cap + 2, size)
    base, place, extreme = stack_base(memory, user, at), size, 0
    for row in range(end - 1, first - 1, -1):
        amount = sign * (amounts[row] >> 16)
        if place == size or amount > extreme:
            place, extreme = place - 1, amount
            put(memory, base + place, row - first)


@piece
def copy_stack(memory: Memory, user: User, new: User, at: int, cap: int, end: int) -> None:
    """Copy a stack into an empty one that is large enough, of a block whose ring starts with the oldest event."""
    base, mask = stack_base(memory, user, at), quarter(memory, user.header + cap) - 1
    head, size = quarter(memory, user.header + cap + 1), quarter(memory, user.header + cap + 2)
    count = quarter(memory, user.header + COUNT)
    for number in range(size):
        place = quarter(memory, base + ((head + number) & mask))
        put(memory, stack_base(memory, new, at) + number, count - age(user, place, end))
    put(memory, new.header + cap + 2, size)
