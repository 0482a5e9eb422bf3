"""A disturbed row of features is the row that the window kernel makes of the disturbed payments."""

from dataclasses import replace

import numpy as np
import pytest

from state.disturbed import fields_of, with_amounts, without_field
from state.events import MISSING, Events, hash_field
from state.features import FIELD_AGGREGATES, StateSpec, default_feature_set, parse_feature_set
from state.history import compute

SPEC = StateSpec()
FEATURES = default_feature_set()
HOUR_MS = 3_600_000
USERS, PAYMENTS = 8, 40

#: Windows whose count only the sum and the mean say, whose mean only the ratio says, and such as say neither.
DECLARED = (
    *(("sum", "24h"), ("mean", "24h"), ("std", "24h"), ("ratio", "24h"), ("min", "24h"), ("max", "24h")),
    *(("count", "7d"), ("ratio", "7d"), ("std", "7d")),
    *(("count", "1h"), ("sum", "1h"), ("std", "1h")),
    *(("mean", "30d"), ("std", "30d"), ("ratio", "30d")),
)
ENTRY = '[[feature]]\nname = "{0}_{1}"\naggregate = "{0}"\nwindow = "{1}"\ntext = "x"\n'
SPARE = parse_feature_set(('name = "spare"\n' + "".join(ENTRY.format(*one) for one in DECLARED)).encode())


@pytest.fixture(scope="module")
def stream():
    """Payments of eight users, in turn, an hour or two apart, now and then without a field."""
    rng = np.random.default_rng(11)
    n = USERS * PAYMENTS
    known = np.array([[hash_field(at, f"v{value}") for at in range(len(SPEC.fields))] for value in range(4)], np.uint64)
    fields = np.take_along_axis(known, rng.integers(0, 4, (n, len(SPEC.fields))), axis=0)
    fields[rng.random(fields.shape) < 0.05] = MISSING
    events = Events(
        1_700_000_000_000 + np.cumsum(rng.integers(0, HOUR_MS // 3, n)),
        np.arange(n, dtype=np.int64),
        np.arange(1, n + 1, dtype=np.uint64),
        rng.integers(50, 60_000, n),
        np.zeros(n, np.uint16),
        fields,
    )
    return [f"u{row % USERS}".encode() for row in range(n)], events


def features_of(stream, feature_set=FEATURES, **other):
    users, events = stream
    return compute(SPEC, feature_set, users, replace_columns(events, **other))[0]


def replace_columns(events, **other):
    return Events(*(other.get(name, getattr(events, name)) for name in Events.__slots__))


def last_of_each(stream):
    """Each user's last payment: another one changes no later row."""
    return np.arange(len(stream[0]) - USERS, len(stream[0]))


def erased(stream, field, rows):
    fields = stream[1].fields.copy()
    fields[rows, SPEC.fields.index(field)] = MISSING
    return fields


@pytest.mark.parametrize("field", SPEC.fields)
def test_where_no_payment_has_a_field_the_rows_are_the_kernel_s_to_the_bit(stream, field):
    made = features_of(stream, fields=erased(stream, field, slice(None)))
    np.testing.assert_array_equal(without_field(FEATURES, field, features_of(stream), ever=True), made)


@pytest.mark.parametrize("field", SPEC.fields)
def test_of_one_payment_without_a_field_the_row_is_the_kernel_s_or_that_of_a_value_others_had(stream, field):
    found = without_field(FEATURES, field, features_of(stream), ever=False)
    exact = []
    for row in range(0, len(found), 7):
        made = features_of(stream, fields=erased(stream, field, row))[row]
        for column, feature in enumerate(FEATURES.features):
            same = np.array_equal(found[row, column], made[column], equal_nan=True)
            if feature.aggregate == "distinct" and feature.field == field:
                exact.append(same)
                assert same or found[row, column] == made[column] + 1, feature.name
            else:
                assert same, feature.name
    assert np.mean(exact) > 0.5


@pytest.mark.parametrize("feature_set", [FEATURES, SPARE], ids=lambda one: one.name)
def test_of_another_amount_the_row_is_the_kernel_s(stream, feature_set):
    rows, before = last_of_each(stream), stream[1].amount_minor
    after = before.copy()
    after[rows] = np.round(before[rows] * np.linspace(0.9, 1.2, USERS)).astype(np.int64)
    made = features_of(stream, feature_set, amount_minor=after)[rows]
    found = with_amounts(feature_set, features_of(stream, feature_set)[rows], before[rows], after[rows])
    for column, feature in enumerate(feature_set.features):
        if feature.window_ms == 30 * 24 * HOUR_MS and feature_set is SPARE:
            continue  # no feature says how many payments there are
        if feature.aggregate in ("min", "max"):
            continue
        np.testing.assert_allclose(found[:, column], made[:, column], rtol=1e-5, err_msg=feature.name)


def test_an_extreme_moves_with_the_payment_that_is_it_and_else_only_where_it_is_passed():
    feature_set = replace(SPARE, features=tuple(f for f in SPARE.features if f.aggregate in ("min", "max")))
    x = np.array([[100, 500], [100, 500], [100, 500], [100, 500]], np.float32)
    found = with_amounts(feature_set, x, np.array([100, 500, 300, 300]), np.array([110, 490, 90, 600]))
    np.testing.assert_array_equal(found, [[110, 500], [100, 490], [90, 500], [100, 600]])


def test_where_nothing_says_how_many_payments_there_are_all_amounts_are_off_alike(stream):
    feature_set = replace(SPARE, features=SPARE.features[-3:])
    before = stream[1].amount_minor
    found = with_amounts(feature_set, features_of(stream, feature_set), before, before * 2)
    np.testing.assert_allclose(found, features_of(stream, feature_set, amount_minor=before * 2), rtol=1e-6)


def test_the_same_amount_changes_nothing_but_by_rounding(stream):
    x, before = features_of(stream), stream[1].amount_minor
    np.testing.assert_allclose(with_amounts(FEATURES, x, before, before), x, rtol=1e-6)


def test_the_fields_are_those_that_features_read():
    assert fields_of(FEATURES) == ["merchant_id", "country", "device_id"]
    assert fields_of(SPARE) == []
    assert {f.field for f in FEATURES.features if f.aggregate in FIELD_AGGREGATES} == set(fields_of(FEATURES))
