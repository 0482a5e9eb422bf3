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
    HEAD_SEQ,
    NEVER,
    NONE,
    SEQ_MASK,
    TIME,
    I64,
    Memory,
    Scratch,
    event_at,
    quarter,
    unsigned,
    word,
)
from state.kernel_plan import READS, Plan
from state.kernel_values import find_value
from state.kernel_windows import square

VALUE, COUNTS, SUMS, MEAN, STD, MIN, MAX, RATIO, DISTINCTS, FIRST_SEEN, SINCE_LAST = range(len(READS))
LOW_HALF = unsigned(0xFFFF_FFFF)
HALF, LIMBS, WORD, ONE = unsigned(32), unsigned(44), unsigned(64), unsigned(1)
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
def deviation(scratch: Scratch, window: int) -> float:
    """Return a window's population standard deviation: √(n·Σa² - (Σa)²) / n, exact up to the root."""
    count, total = scratch.counts[window], scratch.sums[window]
    squares_high, squares_low = scratch.squares_high[window], scratch.squares_low[window]
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

    `itself` is the sequence number of the kept event that is this one, -1 for none: it counts, but is no "other" event.
    `count_itself`: the event is not kept and is counted on top.
    """
    begin_scan(plan, scratch)
    latest_other = NEVER
    for field in range(plan.fields):
        scratch.ages[field] = NEVER  # here: the newest time at which another event had the arriving value
        scratch.codes[field] = find_value(memory, block, values[row, field]) if values[row, field] else NONE
    head, count = quarter(memory, 4 * block + HEAD_SEQ), quarter(memory, 4 * block + COUNT)
    for back in range(1, count + 1):
        seq = (head + count - back) & SEQ_MASK
        event = event_at(memory, plan.stride, block, seq)
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
                if seq != itself and code == scratch.codes[field] and scratch.ages[field] == NEVER:
                    scratch.ages[field] = then
        if seq != itself and latest_other == NEVER:
            latest_other = then
    if count_itself:
        count_event(plan, scratch, 0, amount)
        for field in range(plan.fields):
            if values[row, field]:
                count_new(plan, scratch, time, field)
    end_scan(plan, scratch, time, latest_other, values, row)


@piece
def begin_scan(plan: Plan, scratch: Scratch) -> None:
    """Empty the windows in `scratch`."""
    for window in range(len(plan.spans)):
        scratch.counts[window] = scratch.sums[window] = 0
        scratch.squares_high[window] = scratch.squares_low[window] = 0
    scratch.distincts[:] = 0
    scratch.stamps[NONE + 1] += 1


@piece
def count_event(plan: Plan, scratch: Scratch, age_ms: int, amount: int) -> None:
    """Count an event in the windows it lies in."""
    high, low = square(amount)
    for window in range(len(plan.spans)):
        if age_ms < plan.spans[window]:
            alone = scratch.counts[window] == 0
            scratch.highs[window] = amount if alone else max(scratch.highs[window], amount)
            scratch.lows[window] = amount if alone else min(scratch.lows[window], amount)
            scratch.counts[window] += 1
            scratch.sums[window] += amount
            scratch.squares_high[window] += high
            scratch.squares_low[window] += low


@piece
def count_distinct(plan: Plan, scratch: Scratch, age_ms: int, field: int, code: int) -> None:
    """Count a value where the scan, which goes backwards, meets it first."""
    if scratch.stamps[code] == scratch.stamps[NONE + 1]:
        return
    scratch.stamps[code] = scratch.stamps[NONE + 1]
    for window in range(len(plan.spans)):
        for pair in range(plan.distinct_from[window], plan.distinct_from[window + 1]):
            if plan.distinct_fields[pair] == field and age_ms < plan.spans[window]:
                scratch.distincts[pair] += 1


@piece
def count_new(plan: Plan, scratch: Scratch, time: int, field: int) -> None:
    """Count the arriving value in the windows where no kept event has it."""
    for window in range(len(plan.spans)):
        for pair in range(plan.distinct_from[window], plan.distinct_from[window + 1]):
            if plan.distinct_fields[pair] == field and scratch.ages[field] <= time - plan.spans[window]:
                scratch.distincts[pair] += 1


@piece
def end_scan(plan: Plan, scratch: Scratch, time: int, latest_other: int, values: I64, row: int) -> None:
    """Turn what the scan met into gaps and first-seen flags."""
    for window in range(len(plan.spans)):
        scratch.gaps[window] = time - latest_other if latest_other > time - plan.spans[window] else -1
    for pair in range(len(plan.first_windows)):
        field = plan.first_fields[pair]
        new = scratch.ages[field] <= time - plan.spans[plan.first_windows[pair]]
        scratch.firsts[pair] = -1 if values[row, field] == 0 else int(new)


@piece
def read(plan: Plan, scratch: Scratch, amount: int, out: F32, row: int) -> None:
    """Write one row of features, all those of one aggregate at a time."""
    starts, columns, sources = plan.reads_from, plan.read_columns, plan.read_sources
    for at in range(starts[VALUE], starts[VALUE + 1]):
        out[row, columns[at]] = amount
    for at in range(starts[COUNTS], starts[COUNTS + 1]):
        out[row, columns[at]] = scratch.counts[sources[at]]
    for at in range(starts[SUMS], starts[SUMS + 1]):
        out[row, columns[at]] = float(scratch.sums[sources[at]])
    for at in range(starts[MEAN], starts[MEAN + 1]):
        window = sources[at]
        count = scratch.counts[window]
        out[row, columns[at]] = float(scratch.sums[window]) / float(count) if count else math.nan
    for at in range(starts[STD], starts[STD + 1]):
        window = sources[at]
        out[row, columns[at]] = deviation(scratch, window) if scratch.counts[window] else math.nan
    for at in range(starts[MIN], starts[MIN + 1]):
        window = sources[at]
        out[row, columns[at]] = float(scratch.lows[window]) if scratch.counts[window] else math.nan
    for at in range(starts[MAX], starts[MAX + 1]):
        window = sources[at]
        out[row, columns[at]] = float(scratch.highs[window]) if scratch.counts[window] else math.nan
    for at in range(starts[RATIO], starts[RATIO + 1]):
        window = sources[at]
        total = scratch.sums[window]
        out[row, columns[at]] = float(amount * scratch.counts[window]) / float(total) if total else math.nan
    for at in range(starts[DISTINCTS], starts[DISTINCTS + 1]):
        out[row, columns[at]] = scratch.distincts[sources[at]]
    for at in range(starts[FIRST_SEEN], starts[FIRST_SEEN + 1]):
        first = scratch.firsts[sources[at]]
        out[row, columns[at]] = float(first) if first >= 0 else math.nan
    for at in range(starts[SINCE_LAST], starts[SINCE_LAST + 1]):
        gap = scratch.gaps[sources[at]]
        out[row, columns[at]] = float(gap) / 1000.0 if gap >= 0 else math.nan
