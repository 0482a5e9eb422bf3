"""Features read from a window's integers, and the scan that finds those integers for an event out of line.

`scan` is the slow path: for an event that is not the user's newest (late, out of order, a duplicate) it goes through
the kept events, at most the cap. Both paths leave the same integers in `scratch`, and one function reads them.
"""

import math
from collections.abc import Callable

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
Reader = Callable[[I64, int, int], float]  # from the results, where in them, and the payment's amount
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
    read_all(read_value, VALUE, plan, results, amount, out)
    read_all(read_count, COUNTS, plan, results, amount, out)
    read_all(read_sum, SUMS, plan, results, amount, out)
    read_all(read_mean, MEAN, plan, results, amount, out)
    read_all(read_deviation, STD, plan, results, amount, out)
    read_all(read_low, MIN, plan, results, amount, out)
    read_all(read_high, MAX, plan, results, amount, out)
    read_all(read_ratio, RATIO, plan, results, amount, out)
    read_all(read_number, DISTINCTS, plan, results, amount, out)
    read_all(read_first_seen, FIRST_SEEN, plan, results, amount, out)
    read_all(read_since_last, SINCE_LAST, plan, results, amount, out)


@piece
def read_all(read_one: Reader, aggregate: int, plan: Plan, results: I64, amount: int, out: F32) -> None:
    """Write the features of one aggregate: six by hand, since only then the plan's numbers fold into them."""
    first, end = get(plan.reads_from, aggregate), get(plan.reads_from, aggregate + 1)
    if first < end:
        show(read_one, plan, results, amount, out, first)
    if first + 1 < end:
        show(read_one, plan, results, amount, out, first + 1)
    if first + 2 < end:
        show(read_one, plan, results, amount, out, first + 2)
    if first + 3 < end:
        show(read_one, plan, results, amount, out, first + 3)
    if first + 4 < end:
        show(read_one, plan, results, amount, out, first + 4)
    if first + 5 < end:
        show(read_one, plan, results, amount, out, first + 5)
    for read_at in range(first + 6, end):
        show(read_one, plan, results, amount, out, read_at)


@piece
def show(read_one: Reader, plan: Plan, results: I64, amount: int, out: F32, read_at: int) -> None:
    """Write a feature into its column."""
    column, at = get(plan.reads, 2 * read_at), get(plan.reads, 2 * read_at + 1)
    out[unsigned(column)] = read_one(results, at, amount)


@piece
def read_value(results: I64, at: int, amount: int) -> float:  # noqa: ARG001 - as all readers
    """Return the payment's own amount."""
    return float(amount)


@piece
def read_count(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return how many payments the window holds."""
    return float(get(results, at + R_COUNT))


@piece
def read_sum(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return the sum of their amounts."""
    return float(get(results, at + R_SUM))


@piece
def read_mean(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return their mean amount."""
    count = get(results, at + R_COUNT)
    return float(get(results, at + R_SUM)) / float(count) if count else math.nan


@piece
def read_deviation(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return the standard deviation of their amounts."""
    return deviation(results, at) if get(results, at + R_COUNT) else math.nan


@piece
def read_low(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return the smallest amount."""
    return float(get(results, at + R_LOW)) if get(results, at + R_COUNT) else math.nan


@piece
def read_high(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return the largest amount."""
    return float(get(results, at + R_HIGH)) if get(results, at + R_COUNT) else math.nan


@piece
def read_ratio(results: I64, at: int, amount: int) -> float:
    """Return the payment's amount over the window's mean."""
    scaled, total = float(amount * get(results, at + R_COUNT)), get(results, at + R_SUM)
    return scaled / float(total) if total else math.nan


@piece
def read_number(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return a distinct count."""
    return float(get(results, at))


@piece
def read_first_seen(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return a first-seen flag."""
    first = get(results, at)
    return float(first) if first >= 0 else math.nan


@piece
def read_since_last(results: I64, at: int, amount: int) -> float:  # noqa: ARG001
    """Return the seconds since the newest other payment."""
    gap = get(results, at + R_GAP)
    return float(gap) / 1000.0 if gap >= 0 else math.nan
