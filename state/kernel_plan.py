"""A feature set compiled into the small arrays that the one generic kernel runs over.

Only what the declared features need is kept for each window: squares for a standard deviation, a distinct count for
each (window, field) asked for, the stack of maxima or minima when some feature reads one.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from state.features import FeatureSet, StateSpec
from state.kernel_layout import DISTINCT, HEADER_WORDS, I64, Scratch

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
FIRST_DISTINCTS = 3  # distinct counts that share a word with the window's front


class Plan(NamedTuple):
    """What the kernel runs over.

    Scalars: kept fields, words an event, words before the key in a block, and whether maxima / minima are kept.
    Arrays, one element a window: span (ms), place of its state (words from the block), whether squares are kept, and
    where its pairs start in `distinct_*`; one a window whose maximum, whose minimum is read. One a distinct pair: field, place (quarters from the block). One a
    first-seen pair: window, field. Reads: column, window or pair, grouped by aggregate from `reads_from[aggregate]`.
    """

    fields: int
    stride: int
    fixed_words: int
    high: int
    low: int
    max_events: int
    retention_ms: int
    longest_ms: int
    spans: I64
    places: I64
    squares: I64
    distinct_from: I64
    distinct_fields: I64
    distinct_places: I64
    high_windows: I64
    low_windows: I64
    first_windows: I64
    first_fields: I64
    reads_from: I64
    read_columns: I64
    read_sources: I64


def compile_plan(spec: StateSpec, feature_set: FeatureSet) -> Plan:
    """Return the plan of a feature set over a state; raise FeatureSetError when the state does not keep what it reads."""
    spec.check(feature_set)
    features = feature_set.features
    spans = sorted({f.window_ms for f in features if f.window_ms})
    squares = [int(any(f.aggregate == "std" and f.window_ms == span for f in features)) for span in spans]
    distinct = _pairs(spec, feature_set, spans, "distinct")
    first = _pairs(spec, feature_set, spans, "first_seen")
    counts = [sum(window == w for window, _ in distinct) for w in range(len(spans))]
    places, distinct_places, fixed_words = _place_windows(squares, counts)

    reads_from, columns, sources = [0], [], []
    for aggregate in READS:
        for column, feature in enumerate(features):
            if feature.aggregate == aggregate:
                columns.append(column)
                sources.append(_source(spec, feature.field, feature.window_ms, aggregate, spans, distinct, first))
        reads_from.append(len(columns))
    return Plan(
        fields=len(spec.fields),
        stride=3 + (1 + len(spec.fields) + 3) // 4,
        fixed_words=fixed_words,
        high=int(any(f.aggregate == "max" for f in features)),
        low=int(any(f.aggregate == "min" for f in features)),
        max_events=spec.max_events,
        retention_ms=spec.retention_ms,
        longest_ms=max(spans, default=NO_WINDOW),
        spans=_array(spans),
        places=_array(places),
        squares=_array(squares),
        distinct_from=_array(np.cumsum([0, *counts])),
        distinct_fields=_array(field for _, field in distinct),
        distinct_places=_array(distinct_places),
        high_windows=_array(_windows_of(feature_set, spans, "max")),
        low_windows=_array(_windows_of(feature_set, spans, "min")),
        first_windows=_array(window for window, _ in first),
        first_fields=_array(field for _, field in first),
        reads_from=_array(reads_from),
        read_columns=_array(columns),
        read_sources=_array(sources),
    )


def new_scratch(plan: Plan) -> Scratch:
    """Return the working space for a plan."""
    windows, fields = len(plan.spans), plan.fields
    rows = plan.max_events + 1
    return Scratch(
        *(np.zeros(windows, np.int64) for _ in range(7)),
        distincts=np.zeros(len(plan.distinct_fields), np.int64),
        firsts=np.zeros(len(plan.first_fields), np.int64),
        codes=np.zeros(fields, np.int64),
        ages=np.zeros(fields, np.int64),
        stamps=np.zeros(0x10001, np.int64),
        times=np.empty(rows, np.int64),
        transactions=np.empty(rows, np.int64),
        amounts=np.empty(rows, np.int64),
        values=np.empty((rows, fields), np.int64),
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


def _source(
    spec: StateSpec,
    field: str,
    window_ms: int,
    aggregate: str,
    spans: list[int],
    distinct: list[tuple[int, int]],
    first: list[tuple[int, int]],
) -> int:
    if aggregate == "value":
        return 0
    window = spans.index(window_ms)
    if aggregate in ("distinct", "first_seen"):
        pairs = distinct if aggregate == "distinct" else first
        return pairs.index((window, spec.fields.index(field)))
    return window


def _array(numbers: Iterable[int]) -> I64:
    return np.array(list(numbers), np.int64)
