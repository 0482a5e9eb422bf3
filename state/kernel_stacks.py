"""The stacks that give the largest and the smallest amount of every window at once.

An event can be the maximum of some window only while no later event is at least as large. Those that still can, oldest
first, have falling amounts: a window's maximum is the first of them that lies in the window. One such stack serves all
windows. The stack of minima is the same over negated amounts (`sign` = -1). Places wrap at the stack's capacity, a
power of two.
"""

from state.kernel_jit import piece
from state.kernel_layout import AMOUNT, I64, SEQ_MASK, Memory, event_at, half, put, quarter, word


@piece
def stacked(memory: Memory, block: int, at: int, cap: int, place: int) -> int:
    """Return the sequence number at a place of the stack (`at`, `cap`: header fields)."""
    mask = quarter(memory, 4 * block + cap) - 1
    return quarter(memory, 4 * block + half(memory, 2 * block + at) + (place & mask))


@piece
def push(memory: Memory, stride: int, block: int, at: int, cap: int, seq: int, amount: int, sign: int) -> None:
    """Add the newest event and drop those it outdoes. `at`, `cap` and the two fields after it name the stack."""
    header = 4 * block
    head, size = quarter(memory, header + cap + 1), quarter(memory, header + cap + 2)
    while size > 0:
        event = event_at(memory, stride, block, stacked(memory, block, at, cap, head + size - 1))
        if sign * (word(memory, event + AMOUNT) >> 16) > sign * amount:
            break
        size -= 1
    mask = quarter(memory, header + cap) - 1
    put(memory, header + half(memory, 2 * block + at) + ((head + size) & mask), seq)
    put(memory, header + cap + 2, size + 1)


@piece
def pop_oldest(memory: Memory, block: int, at: int, cap: int, seq: int) -> None:
    """Take the oldest event, which is being dropped, off the stack if it is still there."""
    header = 4 * block
    head, size = quarter(memory, header + cap + 1), quarter(memory, header + cap + 2)
    if size > 0 and stacked(memory, block, at, cap, head) == seq:
        put(memory, header + cap + 1, head + 1)
        put(memory, header + cap + 2, size - 1)


@piece
def best(memory: Memory, stride: int, block: int, at: int, cap: int, end: int, count: int) -> int:
    """Return the extreme amount of the newest `count` events before sequence number `end`; at most 16 comparisons."""
    header = 4 * block
    head, size = quarter(memory, header + cap + 1), quarter(memory, header + cap + 2)
    low, high = 0, size - 1
    while low < high:
        middle = (low + high) >> 1
        if ((end - stacked(memory, block, at, cap, head + middle)) & SEQ_MASK) <= count:
            high = middle
        else:
            low = middle + 1
    return word(memory, event_at(memory, stride, block, stacked(memory, block, at, cap, head + low)) + AMOUNT) >> 16


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
def fill(memory: Memory, block: int, at: int, cap: int, amounts: I64, first: int, end: int, sign: int) -> None:
    """Fill an empty stack with the events first … end - 1, whose sequence numbers start at 0."""
    size = stack_size(amounts, first, end, sign)
    put(memory, 4 * block + cap + 2, size)
    place, extreme = size, 0
    for row in range(end - 1, first - 1, -1):
        amount = sign * (amounts[row] >> 16)
        if place == size or amount > extreme:
            place, extreme = place - 1, amount
            put(memory, 4 * block + half(memory, 2 * block + at) + place, row - first)


@piece
def copy_stack(memory: Memory, block: int, new: int, at: int, cap: int) -> None:
    """Copy a stack into an empty one that is large enough."""
    head, size = quarter(memory, 4 * block + cap + 1), quarter(memory, 4 * block + cap + 2)
    for place in range(size):
        put(memory, 4 * new + half(memory, 2 * new + at) + place, stacked(memory, block, at, cap, head + place))
    put(memory, 4 * new + cap + 2, size)
