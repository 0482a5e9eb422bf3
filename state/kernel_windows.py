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
    HEAD,
    HEADER_WORDS,
    HIGH_AT,
    HIGH_CAP,
    HIGH_SIZE,
    I64,
    INSIDE,
    KEY_LENGTH,
    LOW_AT,
    LOW_CAP,
    LOW_SIZE,
    NONE,
    R_COUNT,
    R_GAP,
    R_HIGH,
    R_LOW,
    R_SQUARES_HIGH,
    R_SQUARES_LOW,
    R_SUM,
    SQUARES_HIGH,
    SQUARES_LOW,
    SUM,
    TIME,
    TRANSACTION,
    VALUES,
    VALUES_CAP,
    WIDTH,
    Memory,
    Scratch,
    User,
    Users,
    age,
    get,
    later,
    mark,
    next_place,
    put,
    put_word,
    quarter,
    signed,
    unsigned,
    user_at,
    word,
)
from state.kernel_plan import W_PAIRS, W_PAIRS_END, W_SPAN, W_SQUARES, W_STATE, Plan
from state.kernel_stacks import copy_stack, fill, follow, note, pop_oldest, push, stack_size
from state.kernel_values import add_value, copy_values, find_value, remove_value

UNROLLED = 5  # windows; those of the default feature set
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
def window_number(plan: Plan, window: int, which: int) -> int:
    """Return one of the W_… numbers of a window."""
    return get(plan.windows, WIDTH * window + which)


@piece
def leave(memory: Memory, plan: Plan, user: User, window: int, event: int, place: int) -> tuple[int, int, int]:
    """Take a window's oldest event, at this place of the ring, out of its distinct counts; return what its sums lose.

    That is the amount and the two words of its square.
    """
    amount = word(memory, event + AMOUNT) >> 16
    pair, end = window_number(plan, window, W_PAIRS), window_number(plan, window, W_PAIRS_END)
    if pair < end:
        leave_pair(memory, plan, user, pair, event, place)
    if pair + 1 < end:
        leave_pair(memory, plan, user, pair + 1, event, place)
    for further in range(pair + 2, end):
        leave_pair(memory, plan, user, further, event, place)
    high, low = square(amount) if window_number(plan, window, W_SQUARES) else (0, 0)
    return amount, high, low


@piece
def leave_pair(memory: Memory, plan: Plan, user: User, pair: int, event: int, place: int) -> None:
    """Take an event that leaves a window out of one distinct count, if it was its value's last occurrence."""
    code = quarter(memory, 4 * event + CODES + get(plan.pairs, 2 * pair))
    last = quarter(memory, user.lasts + (0 if code == NONE else code)) == place
    at = user.header + get(plan.pairs, 2 * pair + 1)
    put(memory, at, quarter(memory, at) - signed((code != NONE) & last))


@section
def drop_oldest(memory: Memory, plan: Plan, book: I64, block: int) -> None:
    """Drop the user's oldest event out of every window, out of the ring, and raise the floor to it."""
    user = user_at(memory, block)
    place, count = quarter(memory, user.header + HEAD), quarter(memory, user.header + COUNT)
    event = user.ring + place * plan.stride
    # What the retention drops has mostly left the longest window, the last, and then no other holds it.
    longest = block + window_number(plan, plan.window_count - 1, W_STATE) if plan.window_count else 0
    held = plan.window_count and quarter(memory, 4 * longest + INSIDE) == count
    for window in range(plan.window_count if held else 0):
        state = block + window_number(plan, window, W_STATE)
        if quarter(memory, 4 * state + INSIDE) == count:
            amount, high, low = leave(memory, plan, user, window, event, place)
            put_word(memory, state + SUM, word(memory, state + SUM) - amount)
            if window_number(plan, window, W_SQUARES):
                put_word(memory, state + SQUARES_HIGH, word(memory, state + SQUARES_HIGH) - high)
                put_word(memory, state + SQUARES_LOW, word(memory, state + SQUARES_LOW) - low)
            put(memory, 4 * state + FRONT, later(user, place))
            put(memory, 4 * state + INSIDE, count - 1)
    for field in range(plan.fields):
        code = quarter(memory, 4 * event + CODES + field)
        if code != NONE and quarter(memory, user.lasts + code) == place:
            remove_value(memory, user, code)
    if plan.high:
        pop_oldest(memory, user, HIGH_AT, HIGH_CAP, place)
    if plan.low:
        pop_oldest(memory, user, LOW_AT, LOW_CAP, place)
    put_word(memory, block + FLOOR, max(word(memory, block + FLOOR), word(memory, event + TIME)))
    put(memory, user.header + HEAD, later(user, place))
    put(memory, user.header + COUNT, count - 1)
    book[EVENTS] -= 1


@piece
def expire(memory: Memory, plan: Plan, book: I64, block: int, horizon: int) -> None:
    """Drop the user's events up to a time."""
    user = user_at(memory, block)
    while quarter(memory, user.header + COUNT) and oldest_time(memory, plan, user) <= horizon:
        drop_oldest(memory, plan, book, block)


@piece
def newest_time(memory: Memory, plan: Plan, user: User) -> int:
    """Return the newest kept event's time; there must be one."""
    end = next_place(memory, user)
    return word(memory, user.ring + (end - 1 if end else user.cap - 1) * plan.stride + TIME)


@piece
def oldest_time(memory: Memory, plan: Plan, user: User) -> int:
    """Return the oldest kept event's time; there must be one."""
    return word(memory, user.ring + quarter(memory, user.header + HEAD) * plan.stride + TIME)


@piece
def look_up(memory: Memory, plan: Plan, scratch: Scratch, user: User, end: int, values: I64, row: int) -> int:
    """Find the codes and ages of an arriving event's field values; return how many values are new to the user."""
    new = 0
    for field in range(plan.fields):
        code, years = NONE, 0
        value = values[unsigned(row), unsigned(field)]
        if value:
            code = find_value(memory, user, value)
            if code == NONE:
                new, years = new + 1, AGELESS
            else:
                years = age(user, quarter(memory, user.lasts + code), end)
        scratch.codes[unsigned(field)], scratch.ages[unsigned(field)] = code, years
    return new


@piece
def append(
    memory: Memory,
    plan: Plan,
    book: I64,
    scratch: Scratch,
    user: User,
    place: int,
    time: int,
    gap: int,
    transaction: int,
    packed_amount: int,
    values: I64,
    row: int,
) -> None:
    """Add the user's newest event at the next place, after `look_up`; there must be room.

    `gap`: ms since the event before it. Leaves the event's windows in `scratch`.
    """
    amount, event = packed_amount >> 16, user.ring + place * plan.stride
    put_word(memory, event + TIME, time)
    put_word(memory, event + TRANSACTION, transaction)
    put_word(memory, event + AMOUNT, packed_amount)
    for field in range(plan.fields):
        code, value = get(scratch.codes, field), values[unsigned(row), unsigned(field)]
        if value and code == NONE:
            code = add_value(memory, user, value, place)
            scratch.codes[unsigned(field)] = code
        put(memory, 4 * event + CODES + field, code)
    high, low = square(amount)
    # By hand, since LLVM does not unroll so long a body, and only then the plan's numbers fold into it.
    if plan.window_count > 0:
        enter(memory, plan, scratch, user, 0, time, amount, high, low, place, gap)
    if plan.window_count > 1:
        enter(memory, plan, scratch, user, 1, time, amount, high, low, place, gap)
    if plan.window_count > 2:
        enter(memory, plan, scratch, user, 2, time, amount, high, low, place, gap)
    if plan.window_count > 3:
        enter(memory, plan, scratch, user, 3, time, amount, high, low, place, gap)
    if plan.window_count > 4:
        enter(memory, plan, scratch, user, 4, time, amount, high, low, place, gap)
    for window in range(UNROLLED, plan.window_count):
        enter(memory, plan, scratch, user, window, time, amount, high, low, place, gap)
    for pair in range(plan.first_count):
        window, field = get(plan.firsts, 2 * pair), get(plan.firsts, 2 * pair + 1)
        new = signed(get(scratch.ages, field) >= get(scratch.results, WIDTH * window + R_COUNT))
        scratch.results[unsigned(plan.firsts_at + pair)] = -1 if get(scratch.codes, field) == NONE else new
    for field in range(plan.fields):
        code = get(scratch.codes, field)
        if code != NONE:
            put(memory, user.lasts + code, place)
    put(memory, user.marks + place, mark(transaction))
    put(memory, user.header + COUNT, quarter(memory, user.header + COUNT) + 1)
    book[EVENTS] += 1


@piece
def enter(
    memory: Memory,
    plan: Plan,
    scratch: Scratch,
    user: User,
    window: int,
    time: int,
    amount: int,
    square_high: int,
    square_low: int,
    place: int,
    gap: int,
) -> None:
    """Move a window's start up to the newest event and let that event in."""
    state = user.block + window_number(plan, window, W_STATE)
    front, others = quarter(memory, 4 * state + FRONT), quarter(memory, 4 * state + INSIDE)
    start = time - window_number(plan, window, W_SPAN)
    total, gone_high, gone_low = word(memory, state + SUM) + amount, 0, 0
    while others:
        event = user.ring + front * plan.stride
        if word(memory, event + TIME) > start:
            break
        gone, high, low = leave(memory, plan, user, window, event, front)
        total, gone_high, gone_low = total - gone, gone_high + high, gone_low + low
        front = later(user, front)
        others -= 1
    put(memory, 4 * state + FRONT, front if others else place)
    put(memory, 4 * state + INSIDE, others + 1)
    put_word(memory, state + SUM, total)
    results, at = scratch.results, WIDTH * window
    results[unsigned(at + R_COUNT)] = others + 1
    results[unsigned(at + R_SUM)] = total
    results[unsigned(at + R_GAP)] = gap if others else -1
    if window_number(plan, window, W_SQUARES):
        high = word(memory, state + SQUARES_HIGH) + square_high - gone_high
        low = word(memory, state + SQUARES_LOW) + square_low - gone_low
        put_word(memory, state + SQUARES_HIGH, high)
        put_word(memory, state + SQUARES_LOW, low)
        results[unsigned(at + R_SQUARES_HIGH)] = high
        results[unsigned(at + R_SQUARES_LOW)] = low
    pair, end = window_number(plan, window, W_PAIRS), window_number(plan, window, W_PAIRS_END)
    if pair < end:
        enter_pair(memory, plan, scratch, user, pair, others)
    if pair + 1 < end:
        enter_pair(memory, plan, scratch, user, pair + 1, others)
    for further in range(pair + 2, end):
        enter_pair(memory, plan, scratch, user, further, others)


@piece
def enter_pair(memory: Memory, plan: Plan, scratch: Scratch, user: User, pair: int, others: int) -> None:
    """Let the newest event into one distinct count of a window, if none of the others in it has its value."""
    field, count = get(plan.pairs, 2 * pair), user.header + get(plan.pairs, 2 * pair + 1)
    distinct = quarter(memory, count) + signed(get(scratch.ages, field) > others)
    put(memory, count, distinct)
    scratch.results[unsigned(plan.distincts_at + pair)] = distinct


@piece
def push_newest(memory: Memory, plan: Plan, scratch: Scratch, user: User, place: int, amount: int) -> None:
    """Push the newest event, just appended, on the stacks; leave the extremes that are read in `scratch`."""
    if plan.high:
        push(memory, plan.stride, user, HIGH_AT, HIGH_CAP, place, amount, 1)
    for number in range(plan.high):
        at, extreme = WIDTH * get(plan.highs, 2 * number), user.block + get(plan.highs, 2 * number + 1)
        count = get(scratch.results, at + R_COUNT)
        highest = follow(memory, plan.stride, user, HIGH_AT, HIGH_CAP, extreme, place, count, amount, 1)
        scratch.results[unsigned(at + R_HIGH)] = highest
    if plan.low:
        push(memory, plan.stride, user, LOW_AT, LOW_CAP, place, amount, -1)
    for number in range(plan.low):
        at, extreme = WIDTH * get(plan.lows, 2 * number), user.block + get(plan.lows, 2 * number + 1)
        count = get(scratch.results, at + R_COUNT)
        lowest = follow(memory, plan.stride, user, LOW_AT, LOW_CAP, extreme, place, count, amount, -1)
        scratch.results[unsigned(at + R_LOW)] = lowest


@piece
def find_extremes(memory: Memory, plan: Plan, user: User) -> None:
    """Find every window's extreme anew; the user's ring starts with its oldest event."""
    end, events = next_place(memory, user), quarter(memory, user.header + COUNT)
    if events == 0:
        return
    for number in range(plan.high):
        state = user.block + window_number(plan, plan.highs[2 * number], W_STATE)
        extreme, inside = user.block + plan.highs[2 * number + 1], quarter(memory, 4 * state + INSIDE)
        note(memory, plan.stride, user, HIGH_AT, HIGH_CAP, extreme, end, inside)
    for number in range(plan.low):
        state = user.block + window_number(plan, plan.lows[2 * number], W_STATE)
        extreme, inside = user.block + plan.lows[2 * number + 1], quarter(memory, 4 * state + INSIDE)
        note(memory, plan.stride, user, LOW_AT, LOW_CAP, extreme, end, inside)


@section
def take_out(memory: Memory, plan: Plan, scratch: Scratch, block: int) -> int:
    """Copy the user's events, oldest first, with the hashes of their field values; return how many."""
    user = user_at(memory, block)
    place, count = quarter(memory, user.header + HEAD), quarter(memory, user.header + COUNT)
    for row in range(count):
        event = user.ring + place * plan.stride
        scratch.times[row] = word(memory, event + TIME)
        scratch.transactions[row] = word(memory, event + TRANSACTION)
        scratch.amounts[row] = word(memory, event + AMOUNT)
        for field in range(plan.fields):
            code = quarter(memory, 4 * event + CODES + field)
            scratch.values[row, field] = 0 if code == NONE else word(memory, user.hashes + code)
        place = later(user, place)
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
    user = user_at(memory, new)
    for row in range(first, end):
        look_up(memory, plan, scratch, user, row - first, scratch.values, row)
        append(
            memory,
            plan,
            users.book,
            scratch,
            user,
            row - first,
            scratch.times[row],
            0,
            scratch.transactions[row],
            scratch.amounts[row],
            scratch.values,
            row,
        )
    if plan.high:
        fill(memory, user, HIGH_AT, HIGH_CAP, scratch.amounts, first, end, 1)
    if plan.low:
        fill(memory, user, LOW_AT, LOW_CAP, scratch.amounts, first, end, -1)
    find_extremes(memory, plan, user)
    return new


@section
def move(memory: Memory, plan: Plan, users: Users, scratch: Scratch, block: int, new_values: int) -> int:
    """Copy a user into a block that fits it, one event more and that many new values; return it, or -1 when full."""
    user, size = user_at(memory, block), quarter(memory, 4 * block + COUNT)
    values = quarter(memory, user.header + VALUES) + new_values
    high, low = quarter(memory, user.header + HIGH_SIZE) + 1, quarter(memory, user.header + LOW_SIZE) + 1
    key_length = quarter(memory, user.header + KEY_LENGTH)
    target = new_block(memory, plan, users, key_length, size + 1, values, high, low)
    if target < 0:
        return -1
    new, end = user_at(memory, target), next_place(memory, user)
    for at in range(HEADER_WORDS, plan.fixed_words):
        put_word(memory, target + at, word(memory, block + at))
    for window in range(plan.window_count):
        state = 4 * (target + window_number(plan, window, W_STATE))
        put(memory, state + FRONT, size - quarter(memory, state + INSIDE))
    copy_values(memory, user, new, end, scratch.renamed)
    scratch.renamed[NONE] = NONE
    place = quarter(memory, user.header + HEAD)
    for row in range(size):
        old_event, event = user.ring + place * plan.stride, new.ring + row * plan.stride
        for at in range(AMOUNT + 1):
            put_word(memory, event + at, word(memory, old_event + at))
        for field in range(plan.fields):
            code = quarter(memory, 4 * old_event + CODES + field)
            put(memory, 4 * event + CODES + field, get(scratch.renamed, code))
        put(memory, new.marks + row, quarter(memory, user.marks + place))
        place = later(user, place)
    put(memory, new.header + COUNT, size)
    if plan.high:
        copy_stack(memory, user, new, HIGH_AT, HIGH_CAP, end)
    if plan.low:
        copy_stack(memory, user, new, LOW_AT, LOW_CAP, end)
    find_extremes(memory, plan, new)
    adopt(memory, plan, users, block, target)
    return target


@piece
def has_room(memory: Memory, plan: Plan, user: User, new_values: int) -> bool:
    """Whether one more event with so many new field values fits into the block."""
    header = user.header
    return (
        quarter(memory, header + COUNT) < user.cap
        and quarter(memory, header + VALUES) + new_values <= quarter(memory, header + VALUES_CAP)
        and (not plan.high or quarter(memory, header + HIGH_SIZE) < quarter(memory, header + HIGH_CAP))
        and (not plan.low or quarter(memory, header + LOW_SIZE) < quarter(memory, header + LOW_CAP))
    )


@piece
def is_slack(memory: Memory, user: User) -> bool:
    """Whether a block is worth shrinking: over three tenths of its ring or of its values lie empty."""
    header = user.header
    ring, values = user.cap, quarter(memory, header + VALUES_CAP)
    return (ring >= SMALLEST_SHRUNK and 10 * quarter(memory, header + COUNT) < 7 * ring) or (
        values >= SMALLEST_SHRUNK and 10 * quarter(memory, header + VALUES) < 7 * values
    )
