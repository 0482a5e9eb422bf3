"""The path of one event through its user's state, and the loop over a batch of them.

Per event, in this order: expire, deduplicate, insert, truncate, read the features. Nothing here fails half-way: when
the arena is full the loop stops in front of the event and says so; repeating the event repeats nothing it did.
"""

from collections.abc import Callable
from typing import NamedTuple

from state.kernel_blocks import LINE_WORDS, is_clean
from state.kernel_jit import entry, piece, prefetch, section
from state.kernel_layout import (
    AMOUNT,
    APPLIED,
    CLEAN,
    CODES,
    COUNT,
    F32,
    FIRST_DIRTY,
    FLOOR,
    FRONT,
    I64,
    NONE,
    QUEUE_HEAD,
    QUEUE_SIZE,
    SIZE,
    SLOT,
    TIME,
    TOUCHED,
    U8,
    U16,
    UNWRITTEN,
    VALUES,
    Memory,
    Scratch,
    User,
    Users,
    get,
    half,
    next_place,
    put,
    quarter,
    signed,
    unsigned,
    user_at,
    word,
)
from state.kernel_plan import W_STATE, Plan
from state.kernel_read import read, scan
from state.kernel_values import find_transaction
from state.kernel_windows import (
    append,
    drop_oldest,
    expire,
    has_room,
    is_slack,
    look_up,
    move,
    newest_time,
    oldest_time,
    push_newest,
    put_back,
    take_out,
    window_number,
)

LATE, DUPLICATE, CONFLICT, TRUNCATED, SKIPPED = 1, 2, 4, 8, 16
NO_ROOM, IN_ORDER = -1, -2
EXPIRE_MASK = 15  # of the ring's places: one in 16 starts with what the retention drops
HEADER_AHEAD, EVENTS_AHEAD = 16, 8  # events; a fetch from memory takes about as long as one event
TABLE_WORDS = 44  # those of a user of some 40 events: key, marks, values


class Columns(NamedTuple):
    """A batch: the columns of `Events`, hashes as signed words; slots and offsets have one element an event."""

    slots: I64
    times: I64
    offsets: I64
    transactions: I64
    amounts: I64
    currencies: U16
    values: I64


Observe = Callable[[Memory, Users, Scratch, Columns, int, F32, U8], int]


@piece
def observe_rows(
    memory: Memory, plan: Plan, users: Users, scratch: Scratch, columns: Columns, start: int, out: F32, flags: U8
) -> int:
    """Apply events from row `start` on, in order; return the row to go on at, short of the end if the arena is full.

    `out` float32[n, K] and `flags` uint8[n] are filled for the rows done. With no rows in `out` none are read.
    """
    rows = len(columns.slots)
    for row in range(start, rows):
        fetch_ahead(memory, plan, users, columns, row, rows)
        block = get(users.blocks, get(columns.slots, row))
        if get(columns.offsets, row) <= word(memory, block + APPLIED):
            flags[unsigned(row)] = SKIPPED
            continue
        flag = apply(memory, plan, users, scratch, block, columns, row)
        if flag == NO_ROOM:
            return row
        block = get(users.blocks, get(columns.slots, row))
        if get(columns.times, row) - plan.longest_ms < word(memory, block + FLOOR):
            flag |= TRUNCATED
        flags[unsigned(row)] = flag
        if len(out):
            read(plan, scratch.results, get(columns.amounts, row), out[unsigned(row)])
        mark_changed(memory, users, block, get(columns.offsets, row))
    return rows


@entry
def observe(
    plan: Plan, memory: Memory, users: Users, scratch: Scratch, columns: Columns, start: int, out: F32, flags: U8
) -> int:
    """Apply events as `observe_rows` does, for any plan."""
    return observe_rows(memory, plan, users, scratch, columns, start, out, flags)


def observe_for(plan: Plan) -> Observe:
    """Return `observe` for one plan, whose numbers are constants in its machine code: about a fifth faster.

    Compiled at the first call, which takes about as long as all other kernels together, and cached on disk.
    """

    @entry
    def observe_plan(
        memory: Memory, users: Users, scratch: Scratch, columns: Columns, start: int, out: F32, flags: U8
    ) -> int:
        return observe_rows(memory, plan, users, scratch, columns, start, out, flags)

    return observe_plan


@piece
def fetch_ahead(memory: Memory, plan: Plan, users: Users, columns: Columns, row: int, rows: int) -> None:
    """Have the cache lines of events to come fetched, in two steps: the second needs what the first one fetched.

    A block that moves meanwhile costs a useless fetch, nothing more.
    """
    if row + HEADER_AHEAD < rows:
        block = get(users.blocks, get(columns.slots, row + HEADER_AHEAD))
        for at in range(0, plan.fixed_words + TABLE_WORDS, LINE_WORDS):
            prefetch(memory.words, block + at)
    if row + EVENTS_AHEAD < rows:
        fetch_events(memory, plan, users, columns, row + EVENTS_AHEAD)


@piece
def fetch_events(memory: Memory, plan: Plan, users: Users, columns: Columns, row: int) -> None:
    """Fetch the place of the newest event to come, and the events that may leave a window for it."""
    block = get(users.blocks, get(columns.slots, row))
    user = user_at(memory, block)
    end = next_place(memory, user)
    prefetch(memory.words, user.ring + end * plan.stride)
    prefetch(memory.words, user.ring + (end - 1) * plan.stride)
    for window in range(plan.window_count):
        front = quarter(memory, 4 * (block + window_number(plan, window, W_STATE)) + FRONT)
        prefetch(memory.words, user.ring + front * plan.stride)
        prefetch(memory.words, user.ring + (front + 1) * plan.stride)


@piece
def apply(memory: Memory, plan: Plan, users: Users, scratch: Scratch, block: int, columns: Columns, row: int) -> int:
    """Take one event into its user's state; leave its windows in `scratch`. Returns its flags, or NO_ROOM.

    For a new transaction in order, with room for it, only the windows have to move on: what the retention drops lies
    before all of them, so expiring may wait some events.
    """
    user, time = user_at(memory, block), get(columns.times, row)
    end, newest = next_place(memory, user), newest_time(memory, plan, user)
    same = find_transaction(memory, plan.stride, user, end, get(columns.transactions, row))
    new_values = look_up(memory, plan, scratch, user, end, columns.values, row)
    plain = (
        (same < 0)
        & (time >= newest)
        & (quarter(memory, user.header + COUNT) > 0)
        & (end & EXPIRE_MASK != 0)
        & has_room(memory, plan, user, new_values)
    )
    if not plain:
        flag = settle(memory, plan, users, scratch, block, columns, row)
        if flag != IN_ORDER:
            return flag
        user = user_at(memory, get(users.blocks, get(columns.slots, row)))
        end = next_place(memory, user)
        look_up(memory, plan, scratch, user, end, columns.values, row)
    append(
        memory,
        plan,
        users.book,
        scratch,
        user,
        end,
        time,
        time - newest,
        get(columns.transactions, row),
        pack(columns, row),
        columns.values,
        row,
    )
    push_newest(memory, plan, scratch, user, end, get(columns.amounts, row))
    return 0


@section
def settle(memory: Memory, plan: Plan, users: Users, scratch: Scratch, block: int, columns: Columns, row: int) -> int:
    """Do all that may be to do before an event is appended, step by step; return IN_ORDER when it remains to append it.

    Otherwise the event is done: its windows are in `scratch` and its flags are returned, or NO_ROOM.
    """
    user, time = user_at(memory, block), columns.times[row]
    newest = newest_time(memory, plan, user) if quarter(memory, user.header + COUNT) else time

    # Step 1: expire.
    horizon = max(time, newest) - plan.retention_ms
    expire(memory, plan, users.book, block, horizon)
    count, end = quarter(memory, user.header + COUNT), next_place(memory, user)

    # Step 2: deduplicate.
    same = find_transaction(memory, plan.stride, user, end, columns.transactions[row])
    if same >= 0:
        scan(memory, plan, scratch, block, time, columns.amounts[row], columns.values, row, same, False)
        return DUPLICATE if is_equal(memory, plan, user, same, columns, row) else DUPLICATE | CONFLICT

    # Steps 3 and 4: insert and truncate, or leave out what could not be kept.
    if time <= word(memory, block + FLOOR) or time <= horizon:
        return leave_out(memory, plan, scratch, block, columns, row)
    if count and time < newest:
        if count == plan.max_events and time < oldest_time(memory, plan, user):
            return leave_out(memory, plan, scratch, block, columns, row)
        return insert(memory, plan, users, scratch, block, columns, row)
    if count == plan.max_events:
        drop_oldest(memory, plan, users.book, block)
    new_values = look_up(memory, plan, scratch, user, end, columns.values, row)
    room = has_room(memory, plan, user, new_values)
    if room and not is_slack(memory, user):
        return IN_ORDER
    moved = move(memory, plan, users, scratch, block, new_values)
    return IN_ORDER if moved >= 0 or room else NO_ROOM


@section
def leave_out(memory: Memory, plan: Plan, scratch: Scratch, block: int, columns: Columns, row: int) -> int:
    """Score an event that comes too late to be kept, and raise the floor to it."""
    time = columns.times[row]
    scan(memory, plan, scratch, block, time, columns.amounts[row], columns.values, row, -1, True)
    memory.words[block + FLOOR] = max(word(memory, block + FLOOR), time)
    return LATE


@section
def insert(memory: Memory, plan: Plan, users: Users, scratch: Scratch, block: int, columns: Columns, row: int) -> int:
    """Insert an event that is out of order after all that are not later; a user at its cap drops the oldest for it."""
    time = columns.times[row]
    end = take_out(memory, plan, scratch, block)
    first = 1 if end == plan.max_events else 0
    dropped = scratch.times[0]
    place = end
    while place > 0 and scratch.times[place - 1] > time:
        move_row(plan, scratch, place - 1, place)
        place -= 1
    scratch.times[place] = time
    scratch.transactions[place] = columns.transactions[row]
    scratch.amounts[place] = pack(columns, row)
    for field in range(plan.fields):
        scratch.values[place, field] = columns.values[row, field]
    values = quarter(memory, 4 * block + VALUES) + plan.fields
    block = put_back(memory, plan, users, scratch, block, first, end + 1, values, 0)
    if block < 0:
        return NO_ROOM
    if first:
        memory.words[block + FLOOR] = max(word(memory, block + FLOOR), dropped)
    scan(memory, plan, scratch, block, time, columns.amounts[row], columns.values, row, place - first, False)
    return 0


@piece
def move_row(plan: Plan, scratch: Scratch, source: int, target: int) -> None:
    """Copy one event among those taken out."""
    scratch.times[target] = scratch.times[source]
    scratch.transactions[target] = scratch.transactions[source]
    scratch.amounts[target] = scratch.amounts[source]
    for field in range(plan.fields):
        scratch.values[target, field] = scratch.values[source, field]


@piece
def pack(columns: Columns, row: int) -> int:
    """Return the amount and its currency in one word."""
    return get(columns.amounts, row) << 16 | signed(columns.currencies[unsigned(row)])


@piece
def is_equal(memory: Memory, plan: Plan, user: User, place: int, columns: Columns, row: int) -> bool:
    """Whether a kept event says the same as the arriving one: time, amount, currency, kept fields."""
    event = user.ring + place * plan.stride
    if word(memory, event + TIME) != columns.times[row] or word(memory, event + AMOUNT) != pack(columns, row):
        return False
    for field in range(plan.fields):
        code = quarter(memory, 4 * event + CODES + field)
        kept = 0 if code == NONE else word(memory, user.hashes + code)
        if kept != columns.values[row, field]:
            return False
    return True


@piece
def mark_changed(memory: Memory, users: Users, block: int, offset: int) -> None:
    """Note that the event at `offset` is in the user's state, and queue the user for the next snapshot."""
    memory.words[block + APPLIED] = offset
    put(memory, 4 * block + TOUCHED, 1)
    if word(memory, block + FIRST_DIRTY) != CLEAN:
        return
    book = users.book
    if is_clean(memory, block):
        book[UNWRITTEN] += half(memory, 2 * block + SIZE)
    memory.words[block + FIRST_DIRTY] = offset
    users.queue[(book[QUEUE_HEAD] + book[QUEUE_SIZE]) % len(users.queue)] = half(memory, 2 * block + SLOT)
    book[QUEUE_SIZE] += 1


@entry
def first_wrong(users: Users, columns: Columns, time_limit: int, amount_limit: int) -> int:
    """Return the first row whose slot holds nobody or whose time or amount is out of bounds, or -1."""
    for row in range(len(columns.slots)):
        slot = columns.slots[row]
        if slot < 0 or slot >= len(users.blocks) or users.blocks[slot] < 0:
            return row
        if abs(columns.times[row]) >= time_limit or abs(columns.amounts[row]) >= amount_limit:
            return row
    return -1
