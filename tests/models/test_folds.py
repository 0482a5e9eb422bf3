"""Folds run forward in time, with the label delay between what is learned from and what is judged on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TrainingError
from models.folds import DAY_MS, split_history


def split(times, **plan):
    labels = np.arange(len(times)) % 2
    return split_history(np.asarray(times, np.int64), labels.astype(np.int8), **plan)


def test_the_documented_timeline():
    """100 days of 10 payments: 7 held out, 7 of gap, then 85 days 9 h in four pieces for two folds."""
    times = np.arange(1000) * DAY_MS // 10
    found = split(times, holdout_ms=7 * DAY_MS, label_delay_ms=7 * DAY_MS, folds=2)
    assert (found.holdout.train_end, found.holdout.start, found.holdout.end) == (860, 930, 1000)
    assert [(f.train_end, f.start, f.end) for f in found.folds] == [(360, 430, 645), (575, 645, 860)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 400), min_size=600, max_size=900),
    st.integers(1, 40),
    st.integers(0, 25),
    st.integers(1, 4),
)
def test_nothing_younger_than_the_delay_is_learned_from_and_no_moment_is_on_two_sides(days, holdout, delay, folds):
    times = np.sort(np.array(days)) * DAY_MS
    try:
        found = split(times, holdout_ms=holdout * DAY_MS, label_delay_ms=delay * DAY_MS, folds=folds)
    except TrainingError:
        return
    newest = times[-1]
    in_holdout = times > newest - holdout * DAY_MS
    assert in_holdout.sum() == found.holdout.end - found.holdout.start
    for fold in (*found.folds, found.holdout):
        first = times[fold.start] if fold is not found.holdout else newest - holdout * DAY_MS + 1
        known = times < first - delay * DAY_MS  # naively: the labels that were out when the validation part began
        assert known.sum() == fold.train_end
    for before, after in zip(found.folds, found.folds[1:], strict=False):
        assert before.end == after.start
        assert before.train_end <= after.train_end
    assert found.folds[-1].end == found.holdout.train_end
    for fold in found.folds:
        assert times[fold.start] > times[fold.start - 1]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"folds": 0}, "at least one fold"),
        ({"holdout_ms": 0}, "at least one fold, a holdout"),
        ({"label_delay_ms": -1}, "not negative"),
        ({"holdout_ms": 99 * DAY_MS}, "comes after|trains on"),
        ({"label_delay_ms": 90 * DAY_MS}, "a shorter label delay"),
        ({"folds": 200}, "Fold 1 of 200 .* trains on 4 frauds among 9 events, and needs at least 20"),
        ({"folds": 100}, "Fold 1 of 100 .* trains on 9 frauds"),
    ],
)
def test_a_plan_that_does_not_fit_the_history_gets_a_sentence(plan, words):
    times = np.arange(1000) * DAY_MS // 10
    with pytest.raises(TrainingError, match=words):
        split(times, **{"holdout_ms": 7 * DAY_MS, "label_delay_ms": 0, "folds": 3, **plan})
