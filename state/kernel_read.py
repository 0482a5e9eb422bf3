"""Features read from a window's integers, and the scan that finds those integers for an event out of line.

`scan` is the slow path: for an event that is not the user's newest (late, out of order, a duplicate) it goes through
the kept events, at most the cap. Both paths leave the same integers in `scratch`, and one function reads them.
"""

import math

from state.kernel_jit import piece, section
from state.kernel_layout import (
    AMOUNT,
    CODES,
    COUNT,
    F32,
    I64,
    NEVER,
    NONE,
    R_COUNT,
    R_GAP,
    R_HIGH,
    R_LOW,
    R_SQUARES_HIGH,
    R_SQUARES_LOW,
    R_SUM,
    TIME,
    WIDTH,
    Memory,
    Scratch,
    get,
    next_place,
    quarter,
    signed,
    unsigned,
    user_at,
    word,
)
from state.kernel_plan import READS, W_PAIRS, W_PAIRS_END, W_SPAN, Plan
from state.kernel_values import find_value
from state.kernel_windows import square, window_number

VALUE, COUNTS, SUMS, MEAN, STD, MIN, MAX, RATIO, DISTINCTS, FIRST_SEEN, SINCE_LAST = range(len(READS))
LOW_HALF = unsigned(0xFFFF_FFFF)
HALF, LIMBS, WORD, ONE = unsigned(32), unsigned(44), unsigned(64), unsigned(1)
NO_LIMIT = 1 << 62
SAFE_SQUARES = 1 << 46  # n · Σa² stays below 2⁶³ for sums of squares below this and n ≤ 2¹⁵; (Σa)² is no larger


@piece
def product(left: int, right: int) -> tuple[int, int]:
    """Return the 128-bit product of two unsigned words as (high, low)."""
    a, b = unsigned(left), unsigned(right)
    a1, a0, b1, b0 = a >> HALF, a & LOW_HALF, b >> HALF, b & LOW_HALF
    low, first, second = a0 * b0, a1 * b0, a0 * b1
    middle = (low >> HALF) + (first & LOW_HALF) + (second & LOW_HALF)
    return a1 * b1 + (first >> HALF) + (second >> HALF) + (middle >> HALF), (middle << HALF) | (low & LOW_HALF)


@piece
def nearest_float(high: int, low: int) -> float:
    """Return the float64 nearest to a 128-bit unsigned number (ties to even); high < 2⁵³."""
    if high == 0:
        return float(low)
    shift = unsigned(math.frexp(float(high))[1])
    kept = (high << (WORD - shift)) | (low >> shift)
    if low << (WORD - shift):
        kept |= ONE  # what is cut off only ever decides a tie, which one bit records
    return float(kept) * float(ONE << shift)


@piece
def deviation(results: I64, at: int) -> float:
    """Return a window's population standard deviation: √(n·Σa² - (Σa)²) / n, exact up to the root."""
    count, total = get(results, at + R_COUNT), get(results, at + R_SUM)
    squares_high, squares_low = get(results, at + R_SQUARES_HIGH), get(results, at + R_SQUARES_LOW)
    if squares_high == 0 and squares_low < SAFE_SQUARES:
        return math.sqrt(float(count * squares_low - total * total)) / float(count)
    high, low = product(count, squares_high)
    high, low = (high << LIMBS) | (low >> (WORD - LIMBS)), low << LIMBS
    high_more, low_more = product(count, squares_low)
    low += low_more
    high += high_more + unsigned(low < low_more)
    high_less, low_less = product(abs(total), abs(total))
    high -= high_less + unsigned(low < low_less)
    low -= low_less
    return math.sqrt(nearest_float(high, low)) / float(count)


@section
def scan(
    memory: Memory,
    plan: Plan,
    scratch: Scratch,
    block: int,
    time: int,
    amount: int,
    values: I64,
    row: int,
    itself: int,
    count_itself: bool,
) -> None:
    """Find the windows of an event at `time` over the kept events.

    `itself` is the place of the kept event that is this one, -1 for none: it counts, but is no "other" event.
    `count_itself`: the event is not kept and is counted on top.
    """
    begin_scan(scratch)
    user, latest_other = user_at(memory, block), NEVER
    for field in range(plan.fields):
        scratch.ages[field] = NEVER  # here: the newest time at which another event had the arriving value
        scratch.codes[field] = find_value(memory, user, values[row, field]) if values[row, field] else NONE
    place = next_place(memory, user)
    for _ in range(quarter(memory, user.header + COUNT)):
        place = place - 1 if place else user.cap - 1
        event = user.ring + place * plan.stride
        then = word(memory, event + TIME)
        if then > time:
            continue
        if then <= time - plan.longest_ms:
            break
        count_event(plan, scratch, time - then, word(memory, event + AMOUNT) >> 16)
        for field in range(plan.fields):
            code = quarter(memory, 4 * event + CODES + field)
            if code != NONE:
                count_distinct(plan, scratch, time - then, field, code)
                if place != itself and code == scratch.codes[field] and scratch.ages[field] == NEVER:
                    scratch.ages[field] = then
        if place != itself and latest_other == NEVER:
            latest_other = then
    if count_itself:
        count_event(plan, scratch, 0, amount)
        for field in range(plan.fields):
            if values[row, field]:
                count_value(plan, scratch, 0, min(NO_LIMIT, time - scratch.ages[field]), field)
    end_scan(plan, scratch, time, latest_other, values, row)


@piece
def begin_scan(scratch: Scratch) -> None:
    """Empty the windows in `scratch`."""
    scratch.results[:] = 0
    scratch.stamps[NONE + 1] += 1


@piece
def count_event(plan: Plan, scratch: Scratch, age_ms: int, amount: int) -> None:
    """Count an event in the windows it lies in."""
    high, low = square(amount)
    results = scratch.results
    for window in range(plan.window_count):
        if age_ms < window_number(plan, window, W_SPAN):
            at = WIDTH * window
            alone = results[at + R_COUNT] == 0
            results[at + R_HIGH] = amount if alone else max(results[at + R_HIGH], amount)
            results[at + R_LOW] = amount if alone else min(results[at + R_LOW], amount)
            results[at + R_COUNT] += 1
            results[at + R_SUM] += amount
            results[at + R_SQUARES_HIGH] += high
            results[at + R_SQUARES_LOW] += low


@piece
def count_distinct(plan: Plan, scratch: Scratch, age_ms: int, field: int, code: int) -> None:
    """Count a value where the scan, which goes backwards, meets it first."""
    if scratch.stamps[code] == scratch.stamps[NONE + 1]:
        return
    scratch.stamps[code] = scratch.stamps[NONE + 1]
    count_value(plan, scratch, age_ms, NO_LIMIT, field)


@piece
def count_value(plan: Plan, scratch: Scratch, age_ms: int, last_ms: int, field: int) -> None:
    """Count a value of this age in the windows that hold it and not its last occurrence, which is older."""
    for window in range(plan.window_count):
        if age_ms < window_number(plan, window, W_SPAN) <= last_ms:
            for pair in range(window_number(plan, window, W_PAIRS), window_number(plan, window, W_PAIRS_END)):
                if plan.pairs[2 * pair] == field:
                    scratch.results[plan.distincts_at + pair] += 1


@piece
def end_scan(plan: Plan, scratch: Scratch, time: int, latest_other: int, values: I64, row: int) -> None:
    """Turn what the scan met into gaps and first-seen flags."""
    for window in range(plan.window_count):
        inside = latest_other > time - window_number(plan, window, W_SPAN)
        scratch.results[WIDTH * window + R_GAP] = time - latest_other if inside else -1
    for pair in range(plan.first_count):
        window, field = plan.firsts[2 * pair], plan.firsts[2 * pair + 1]
        new = signed(scratch.ages[field] <= time - window_number(plan, window, W_SPAN))
        scratch.results[plan.firsts_at + pair] = -1 if values[row, field] == 0 else new


@piece
def read(plan: Plan, results: I64, amount: int, out: F32) -> None:
    """Write one row of features, all those of one aggregate at a time."""
    starts = plan.reads_from
    for read_at in range(get(starts, VALUE), get(starts, COUNTS)):
        show(plan, out, read_at, float(amount))
    for read_at in range(get(starts, COUNTS), get(starts, SUMS)):
        show(plan, out, read_at, float(get(results, source(plan, read_at) + R_COUNT)))
    for read_at in range(get(starts, SUMS), get(starts, MEAN)):
        show(plan, out, read_at, float(get(results, source(plan, read_at) + R_SUM)))
    for read_at in range(get(starts, MEAN), get(starts, STD)):
        at = source(plan, read_at)
        count = get(results, at + R_COUNT)
        show(plan, out, read_at, float(get(results, at + R_SUM)) / float(count) if count else math.nan)
    for read_at in range(get(starts, STD), get(starts, MIN)):
        at = source(plan, read_at)
        show(plan, out, read_at, deviation(results, at) if get(results, at + R_COUNT) else math.nan)
    for read_at in range(get(starts, MIN), get(starts, MAX)):
        at = source(plan, read_at)
        show(plan, out, read_at, float(get(results, at + R_LOW)) if get(results, at + R_COUNT) else math.nan)
    for read_at in range(get(starts, MAX), get(starts, RATIO)):
        at = source(plan, read_at)
        show(plan, out, read_at, float(get(results, at + R_HIGH)) if get(results, at + R_COUNT) else math.nan)
    for read_at in range(get(starts, RATIO), get(starts, DISTINCTS)):
        at = source(plan, read_at)
        scaled, total = float(amount * get(results, at + R_COUNT)), get(results, at + R_SUM)
        show(plan, out, read_at, scaled / float(total) if total else math.nan)
    for read_at in range(get(starts, DISTINCTS), get(starts, FIRST_SEEN)):
        show(plan, out, read_at, float(get(results, source(plan, read_at))))
    for read_at in range(get(starts, FIRST_SEEN), get(starts, SINCE_LAST)):
        first = get(results, source(plan, read_at))
        show(plan, out, read_at, float(first) if first >= 0 else math.nan)
    for read_at in range(get(starts, SINCE_LAST), get(starts, SINCE_LAST + 1)):
        gap = get(results, source(plan, read_at) + R_GAP)
        show(plan, out, read_at, float(gap) / 1000.0 if gap >= 0 else math.nan)


@piece
def source(plan: Plan, read_at: int) -> int:
    """Return where in the results a feature reads."""
    return get(plan.reads, 2 * read_at + 1)


@piece
def show(plan: Plan, out: F32, read_at: int, value: float) -> None:
    """Write a feature into its column."""
    out[unsigned(get(plan.reads, 2 * read_at))] = value
