"""A feature set compiled into the small arrays that the one generic kernel runs over.

Only what the declared features need is kept for each window: squares for a standard deviation, a distinct count for
each (window, field) asked for, the stack of maxima or minima when some feature reads one.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from state.features import FeatureSet, StateSpec
from state.kernel_layout import DISTINCT, HEADER_WORDS, I64, NONE, WIDTH, Scratch

# The order in which features are read; all of one aggregate at a time, so that nothing is decided per feature.
READS = (
    "value",
    "count",
    "sum",
    "mean",
    "std",
    "min",
    "max",
    "ratio",
    "distinct",
    "first_seen",
    "seconds_since_last",
)
NO_WINDOW = -(1 << 60)  # the longest of no windows: starts above every floor
FIRST_DISTINCTS = 2  # distinct counts that share a word with the window's front and count


# The numbers of one window in `Plan.windows`.
W_SPAN = 0  # ms
W_STATE = 1  # words from the block
W_SQUARES = 2  # 1: squares are kept
W_PAIRS = 3  # its first distinct pair
W_PAIRS_END = 4


class Plan(NamedTuple):
    """What the kernel runs over.

    fields: kept fields. stride: words an event. fixed_words: words before the key in a block. high, low: number of
    windows whose maximum, minimum is read. distincts_at, firsts_at: where these stand in `Scratch.results`.

    windows   WIDTH numbers a window, the W_… above
    pairs     two a distinct pair: field, place of the count (quarters from the block)
    highs     two a window whose maximum is read: window, place of the noted extreme (words from the block); lows alike
    firsts    two a first-seen pair: window, field
    reads     two a feature: column, place in `Scratch.results`; grouped by aggregate from `reads_from[aggregate]` on
    """

    fields: int
    stride: int
    fixed_words: int
    max_events: int
    retention_ms: int
    longest_ms: int
    high: int
    low: int
    window_count: int
    first_count: int
    distincts_at: int
    firsts_at: int
    windows: I64
    pairs: I64
    highs: I64
    lows: I64
    firsts: I64
    reads_from: I64
    reads: I64


def compile_plan(spec: StateSpec, feature_set: FeatureSet) -> Plan:
    """Return the plan of a feature set over a state; raise FeatureSetError when the state keeps too little for it."""
    spec.check(feature_set)
    features = feature_set.features
    spans = sorted({f.window_ms for f in features if f.window_ms})
    squares = [int(any(f.aggregate == "std" and f.window_ms == span for f in features)) for span in spans]
    distinct = _pairs(spec, feature_set, spans, "distinct")
    first = _pairs(spec, feature_set, spans, "first_seen")
    highs, lows = (_windows_of(feature_set, spans, aggregate) for aggregate in ("max", "min"))
    counts = [sum(window == w for window, _ in distinct) for w in range(len(spans))]
    states, distinct_places, at = _place_windows(squares, counts)
    pair_ends = np.cumsum([0, *counts]).tolist()
    distincts_at = WIDTH * len(spans)
    firsts_at = distincts_at + len(distinct)

    windows = np.zeros((len(spans), WIDTH), np.int64)
    for window, span in enumerate(spans):
        windows[window, : W_PAIRS_END + 1] = (
            span,
            states[window],
            squares[window],
            pair_ends[window],
            pair_ends[window + 1],
        )
    reads_from, reads = [0], list[tuple[int, int]]()
    for aggregate in READS:
        for column, feature in enumerate(features):
            if feature.aggregate != aggregate:
                continue
            source = 0
            if feature.window_ms:
                window = spans.index(feature.window_ms)
                source = WIDTH * window
            if aggregate == "distinct":
                source = distincts_at + distinct.index((window, spec.fields.index(feature.field)))
            if aggregate == "first_seen":
                source = firsts_at + first.index((window, spec.fields.index(feature.field)))
            reads.append((column, source))
        reads_from.append(len(reads))
    return Plan(
        fields=len(spec.fields),
        stride=3 + (len(spec.fields) + 3) // 4,
        fixed_words=at + 2 * (len(highs) + len(lows)),
        max_events=spec.max_events,
        retention_ms=spec.retention_ms,
        longest_ms=max(spans, default=NO_WINDOW),
        high=len(highs),
        low=len(lows),
        window_count=len(spans),
        first_count=len(first),
        distincts_at=distincts_at,
        firsts_at=firsts_at,
        windows=windows.ravel(),
        pairs=_flat((field, place) for (_, field), place in zip(distinct, distinct_places, strict=True)),
        highs=_flat((window, at + 2 * number) for number, window in enumerate(highs)),
        lows=_flat((window, at + 2 * (len(highs) + number)) for number, window in enumerate(lows)),
        firsts=_flat(first),
        reads_from=np.array(reads_from, np.int64),
        reads=_flat(reads),
    )


def key(plan: Plan) -> tuple[bytes, ...]:
    """Return what is equal for equal plans alone, and can be a key."""
    return tuple(np.asarray(part, np.int64).tobytes() for part in plan)


def new_scratch(plan: Plan) -> Scratch:
    """Return the working space for a plan."""
    rows = plan.max_events + 1
    return Scratch(
        results=np.zeros(plan.firsts_at + plan.first_count, np.int64),
        codes=np.zeros(plan.fields, np.int64),
        ages=np.zeros(plan.fields, np.int64),
        stamps=np.zeros(0x10001, np.int64),
        renamed=np.zeros(NONE + 1, np.int64),
        times=np.empty(rows, np.int64),
        transactions=np.empty(rows, np.int64),
        amounts=np.empty(rows, np.int64),
        values=np.empty((rows, plan.fields), np.int64),
    )


def _windows_of(feature_set: FeatureSet, spans: list[int], aggregate: str) -> list[int]:
    return sorted({spans.index(f.window_ms) for f in feature_set.features if f.aggregate == aggregate})


def _pairs(spec: StateSpec, feature_set: FeatureSet, spans: list[int], aggregate: str) -> list[tuple[int, int]]:
    wanted = {
        (spans.index(f.window_ms), spec.fields.index(f.field)) for f in feature_set.features if f.aggregate == aggregate
    }
    return sorted(wanted)


def _place_windows(squares: list[int], counts: list[int]) -> tuple[list[int], list[int], int]:
    """Return each window's place in words, each distinct count's in quarters, and the words up to the user's key."""
    places, distinct_places = [], []
    at = HEADER_WORDS
    for has_squares, count in zip(squares, counts, strict=True):
        places.append(at)
        further = 4 * (at + 2 + 2 * has_squares)
        for number in range(count):
            near = number < FIRST_DISTINCTS
            distinct_places.append(4 * at + DISTINCT + number if near else further + number - FIRST_DISTINCTS)
        at += 2 + 2 * has_squares + (max(0, count - FIRST_DISTINCTS) + 3) // 4
    return places, distinct_places, at


def _flat(pairs: Iterable[tuple[int, int]]) -> I64:
    return np.array(list(pairs), np.int64).ravel()
