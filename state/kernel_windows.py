"""One user's events and the state of its windows, kept in step.

              t - W                        t
    ────●──────┼────●───────●─────────●────●──────▶ event time
        out    │    └───── in the window ──┘
               └ an event exactly here is out

The newest event's windows are kept as running integers: an event enters every window when it is appended and leaves
each when the newest event's time passes its own by that window's length. Events older than the retention, or the
oldest above the cap, are dropped, and the floor rises to the newest time dropped.
"""

from state.kernel_blocks import adopt, new_block
from state.kernel_jit import piece, section
from state.kernel_layout import (
    AGELESS,
    AMOUNT,
    CODES,
    COUNT,
    EVENTS,
    FLOOR,
    FRONT,
    HEAD_POS,
    HEAD_SEQ,
    HEADER_WORDS,
    HIGH_AT,
    HIGH_CAP,
    HIGH_SIZE,
    KEY_LENGTH,
    LOW_AT,
    LOW_CAP,
    LOW_SIZE,
    NONE,
    RING_CAP,
    SEQ_MASK,
    SQUARES_HIGH,
    SQUARES_LOW,
    SUM,
    TIME,
    TRANSACTION,
    VALUES,
    VALUES_CAP,
    VALUES_TOP,
    I64,
    Memory,
    Scratch,
    Users,
    event_at,
    next_seq,
    put,
    quarter,
    word,
)
from state.kernel_plan import Plan
from state.kernel_stacks import best, copy_stack, fill, pop_oldest, push, stack_size
from state.kernel_values import add_value, copy_values, find_value, hashes, lasts, link_transaction, remove_value

SMALLEST_SHRUNK = 16  # below it a step of the size class is too coarse to gain anything
LIMB = 22  # amounts have 43 bits: 21 above this, 22 below


@piece
def square(amount: int) -> tuple[int, int]:
    """Return amount² as high · 2⁴⁴ + low; 32,768 of either add up to less than 2⁶³."""
    size = abs(amount)
    upper, lower = size >> LIMB, size & ((1 << LIMB) - 1)
    middle = 2 * upper * lower
    return upper * upper + (middle >> LIMB), ((middle & ((1 << LIMB) - 1)) << LIMB) + lower * lower


@piece
def leave(memory: Memory, plan: Plan, block: int, window: int, event: int, seq: int) -> None:
    """Take a window's oldest event out of it."""
    place = block + plan.places[window]
    amount = word(memory, event + AMOUNT) >> 16
    memory.words[place + SUM] -= amount
    if plan.squares[window]:
        high, low = square(amount)
        memory.words[place + SQUARES_LOW] -= low
        memory.words[place + SQUARES_HIGH] -= high
    for pair in range(plan.distinct_from[window], plan.distinct_from[window + 1]):
        code = quarter(memory, 4 * event + CODES + plan.distinct_fields[pair])
        if code != NONE and quarter(memory, lasts(memory, block) + code) == seq:
            at = 4 * block + plan.distinct_places[pair]
            put(memory, at, quarter(memory, at) - 1)
    put(memory, 4 * place + FRONT, seq + 1)


@piece
def newest_time(memory: Memory, plan: Plan, block: int) -> int:
    """Return the newest kept event's time; there must be one."""
    return word(memory, event_at(memory, plan.stride, block, (next_seq(memory, block) - 1) & SEQ_MASK) + TIME)


@piece
def oldest_time(memory: Memory, plan: Plan, block: int) -> int:
    """Return the oldest kept event's time; there must be one."""
    return word(memory, event_at(memory, plan.stride, block, quarter(memory, 4 * block + HEAD_SEQ)) + TIME)


@section
def drop_oldest(memory: Memory, plan: Plan, book: I64, block: int) -> None:
    """Drop the user's oldest event out of every window, out of the ring, and raise the floor to it."""
    header = 4 * block
    seq = quarter(memory, header + HEAD_SEQ)
    event = event_at(memory, plan.stride, block, seq)
    for window in range(len(plan.spans)):
        if quarter(memory, 4 * (block + plan.places[window]) + FRONT) == seq:
            leave(memory, plan, block, window, event, seq)
    for field in range(plan.fields):
        code = quarter(memory, 4 * event + CODES + field)
        if code != NONE and quarter(memory, lasts(memory, block) + code) == seq:
            remove_value(memory, block, code)
    if plan.high:
        pop_oldest(memory, block, HIGH_AT, HIGH_CAP, seq)
    if plan.low:
        pop_oldest(memory, block, LOW_AT, LOW_CAP, seq)
    memory.words[block + FLOOR] = max(word(memory, block + FLOOR), word(memory, event + TIME))
    place = quarter(memory, header + HEAD_POS) + 1
    put(memory, header + HEAD_POS, 0 if place == quarter(memory, header + RING_CAP) else place)
    put(memory, header + HEAD_SEQ, seq + 1)
    put(memory, header + COUNT, quarter(memory, header + COUNT) - 1)
    book[EVENTS] -= 1


@piece
def look_up(memory: Memory, plan: Plan, scratch: Scratch, block: int, values: I64, row: int) -> int:
    """Find the codes and ages of an arriving event's field values; return how many values are new to the user."""
    end, new = next_seq(memory, block), 0
    for field in range(plan.fields):
        scratch.codes[field], scratch.ages[field] = NONE, AGELESS
        if values[row, field]:
            code = find_value(memory, block, values[row, field])
            scratch.codes[field] = code
            if code == NONE:
                new += 1
            else:
                scratch.ages[field] = (end - quarter(memory, lasts(memory, block) + code)) & SEQ_MASK
    return new


@piece
def append(
    memory: Memory,
    plan: Plan,
    book: I64,
    scratch: Scratch,
    block: int,
    time: int,
    transaction: int,
    packed_amount: int,
    values: I64,
    row: int,
) -> None:
    """Add the user's newest event, after `look_up`; there must be room. Leaves its windows in `scratch`."""
    header, seq, amount = 4 * block, next_seq(memory, block), packed_amount >> 16
    event = event_at(memory, plan.stride, block, seq)
    memory.words[event + TIME] = time
    memory.words[event + TRANSACTION] = transaction
    memory.words[event + AMOUNT] = packed_amount
    for field in range(plan.fields):
        if values[row, field] and scratch.codes[field] == NONE:
            scratch.codes[field] = add_value(memory, block, values[row, field])
        put(memory, 4 * event + CODES + field, scratch.codes[field])
    gap = -1
    if quarter(memory, header + COUNT):
        gap = time - word(memory, event_at(memory, plan.stride, block, (seq - 1) & SEQ_MASK) + TIME)
    for window in range(len(plan.spans)):
        enter(memory, plan, scratch, block, window, time, amount, seq, gap)
    for pair in range(len(plan.first_windows)):
        field = plan.first_fields[pair]
        new = scratch.ages[field] >= scratch.counts[plan.first_windows[pair]]
        scratch.firsts[pair] = -1 if scratch.codes[field] == NONE else new
    for field in range(plan.fields):
        if scratch.codes[field] != NONE:
            put(memory, lasts(memory, block) + scratch.codes[field], seq)
    link_transaction(memory, block, event, seq, transaction)
    put(memory, header + COUNT, quarter(memory, header + COUNT) + 1)
    book[EVENTS] += 1


@piece
def enter(
    memory: Memory,
    plan: Plan,
    scratch: Scratch,
    block: int,
    window: int,
    time: int,
    amount: int,
    seq: int,
    gap: int,
) -> None:
    """Move a window's start up to the newest event and let that event in."""
    place = block + plan.places[window]
    front = quarter(memory, 4 * place + FRONT)
    start = time - plan.spans[window]
    while front != seq:
        event = event_at(memory, plan.stride, block, front)
        if word(memory, event + TIME) > start:
            break
        leave(memory, plan, block, window, event, front)
        front = (front + 1) & SEQ_MASK
    others = (seq - front) & SEQ_MASK
    total = word(memory, place + SUM) + amount
    memory.words[place + SUM] = total
    scratch.counts[window] = others + 1
    scratch.sums[window] = total
    scratch.gaps[window] = gap if others else -1
    if plan.squares[window]:
        high, low = square(amount)
        high += word(memory, place + SQUARES_HIGH)
        low += word(memory, place + SQUARES_LOW)
        memory.words[place + SQUARES_HIGH] = high
        memory.words[place + SQUARES_LOW] = low
        scratch.squares_high[window] = high
        scratch.squares_low[window] = low
    for pair in range(plan.distinct_from[window], plan.distinct_from[window + 1]):
        at = 4 * block + plan.distinct_places[pair]
        field = plan.distinct_fields[pair]
        distinct = quarter(memory, at)
        if scratch.ages[field] > others and scratch.codes[field] != NONE:
            distinct += 1
            put(memory, at, distinct)
        scratch.distincts[pair] = distinct


@piece
def push_newest(memory: Memory, plan: Plan, scratch: Scratch, block: int, amount: int) -> None:
    """Push the newest event, just appended, on the stacks; leave each window's extremes in `scratch`."""
    end = next_seq(memory, block)
    if plan.high:
        push(memory, plan.stride, block, HIGH_AT, HIGH_CAP, (end - 1) & SEQ_MASK, amount, 1)
    if plan.low:
        push(memory, plan.stride, block, LOW_AT, LOW_CAP, (end - 1) & SEQ_MASK, amount, -1)
    for number in range(len(plan.high_windows)):
        window = plan.high_windows[number]
        count = scratch.counts[window]
        scratch.highs[window] = best(memory, plan.stride, block, HIGH_AT, HIGH_CAP, end, count)
    for number in range(len(plan.low_windows)):
        window = plan.low_windows[number]
        count = scratch.counts[window]
        scratch.lows[window] = best(memory, plan.stride, block, LOW_AT, LOW_CAP, end, count)


@section
def take_out(memory: Memory, plan: Plan, scratch: Scratch, block: int) -> int:
    """Copy the user's events, oldest first, with the hashes of their field values; return how many."""
    seq, count = quarter(memory, 4 * block + HEAD_SEQ), quarter(memory, 4 * block + COUNT)
    for row in range(count):
        event = event_at(memory, plan.stride, block, (seq + row) & SEQ_MASK)
        scratch.times[row] = word(memory, event + TIME)
        scratch.transactions[row] = word(memory, event + TRANSACTION)
        scratch.amounts[row] = word(memory, event + AMOUNT)
        for field in range(plan.fields):
            code = quarter(memory, 4 * event + CODES + field)
            scratch.values[row, field] = 0 if code == NONE else word(memory, hashes(memory, block) + code)
    return count


@section
def put_back(
    memory: Memory, plan: Plan, users: Users, scratch: Scratch, block: int, first: int, end: int, values: int, more: int
) -> int:
    """Rebuild a user from the rows first … end - 1 of `scratch` in a new block with room for `more` events.

    `values` bounds the different field values. Returns the new block, or -1 when the arena is full: then nothing has
    changed. Everything derived is rebuilt by appending the events again, so a rebuilt user equals one never rebuilt.
    """
    high = stack_size(scratch.amounts, first, end, 1) + 1 if plan.high else 0
    low = stack_size(scratch.amounts, first, end, -1) + 1 if plan.low else 0
    key_length, count = quarter(memory, 4 * block + KEY_LENGTH), end - first + more
    new = new_block(memory, plan, users, key_length, count, values, high, low)
    if new < 0:
        return -1
    users.book[EVENTS] -= quarter(memory, 4 * block + COUNT)
    adopt(memory, plan, users, block, new)
    for row in range(first, end):
        look_up(memory, plan, scratch, new, scratch.values, row)
        append(
            memory,
            plan,
            users.book,
            scratch,
            new,
            scratch.times[row],
            scratch.transactions[row],
            scratch.amounts[row],
            scratch.values,
            row,
        )
    if plan.high:
        fill(memory, new, HIGH_AT, HIGH_CAP, scratch.amounts, first, end, 1)
    if plan.low:
        fill(memory, new, LOW_AT, LOW_CAP, scratch.amounts, first, end, -1)
    return new


@section
def move(memory: Memory, plan: Plan, users: Users, block: int, new_values: int) -> int:
    """Copy a user into a block with room for one event more and that many new values; return it, or -1 when full.

    Sequence numbers and codes stay, so only what depends on a table's size is made anew.
    """
    words, old, size = memory.words, 4 * block, quarter(memory, 4 * block + COUNT)
    top = quarter(memory, old + VALUES_TOP)
    values = max(top, quarter(memory, old + VALUES) + new_values)
    high, low = quarter(memory, old + HIGH_SIZE) + 1, quarter(memory, old + LOW_SIZE) + 1
    new = new_block(memory, plan, users, quarter(memory, old + KEY_LENGTH), size + 1, values, high, low)
    if new < 0:
        return -1
    for at in range(HEADER_WORDS, plan.fixed_words):
        words[new + at] = words[block + at]
    header, first = 4 * new, quarter(memory, old + HEAD_SEQ)
    put(memory, header + HEAD_SEQ, first)
    for row in range(size):
        seq = (first + row) & SEQ_MASK
        source = event_at(memory, plan.stride, block, seq)
        target = event_at(memory, plan.stride, new, seq)
        for at in range(plan.stride):
            words[target + at] = words[source + at]
        put(memory, header + COUNT, row + 1)
        link_transaction(memory, new, target, seq, word(memory, target + TRANSACTION))
    copy_values(memory, block, new)
    if plan.high:
        copy_stack(memory, block, new, HIGH_AT, HIGH_CAP)
    if plan.low:
        copy_stack(memory, block, new, LOW_AT, LOW_CAP)
    adopt(memory, plan, users, block, new)
    return new


@piece
def has_room(memory: Memory, plan: Plan, block: int, new_values: int) -> bool:
    """Whether one more event with so many new field values fits into the block."""
    header = 4 * block
    return (
        quarter(memory, header + COUNT) < quarter(memory, header + RING_CAP)
        and quarter(memory, header + VALUES) + new_values <= quarter(memory, header + VALUES_CAP)
        and (not plan.high or quarter(memory, header + HIGH_SIZE) < quarter(memory, header + HIGH_CAP))
        and (not plan.low or quarter(memory, header + LOW_SIZE) < quarter(memory, header + LOW_CAP))
    )


@piece
def is_slack(memory: Memory, block: int) -> bool:
    """Whether a block is worth shrinking: over three eighths of its ring or of its values lie empty."""
    header = 4 * block
    ring, values = quarter(memory, header + RING_CAP), quarter(memory, header + VALUES_CAP)
    return (ring >= SMALLEST_SHRUNK and 8 * quarter(memory, header + COUNT) < 5 * ring) or (
        values >= SMALLEST_SHRUNK and 8 * quarter(memory, header + VALUES) < 5 * values
    )
