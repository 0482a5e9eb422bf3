"""Thresholds decide from their very value on."""

import numpy as np
import pytest

from models.errors import ModelError
from models.policy import APPROVE, DECLINE, OUTCOMES, REVIEW, Thresholds


def below(score):
    return np.nextafter(np.float32(score), np.float32(0))


@pytest.mark.parametrize(
    ("score", "outcome"),
    [
        (0.0, APPROVE),
        (below(0.1), APPROVE),
        (0.1, REVIEW),
        (below(0.7), REVIEW),
        (0.7, DECLINE),
        (1.0, DECLINE),
        (np.nan, REVIEW),
    ],
)
def test_a_threshold_belongs_to_the_outcome_above_it(score, outcome):
    assert Thresholds(0.1, 0.7).decide(np.array([score], np.float32)).tolist() == [outcome]


def test_outcomes_are_indices_into_their_names():
    assert [OUTCOMES[code] for code in (APPROVE, REVIEW, DECLINE)] == ["approve", "review", "decline"]


def test_a_batch_keeps_its_order_and_type():
    outcomes = Thresholds(0.1, 0.7).decide(np.array([0.9, 0.0, 0.2], np.float32))
    assert outcomes.dtype == np.uint8
    assert outcomes.tolist() == [DECLINE, APPROVE, REVIEW]
    assert Thresholds(0.1, 0.7).decide(np.empty(0, np.float32)).tolist() == []


def test_equal_thresholds_leave_nothing_to_review():
    scores = np.array([below(0.5), 0.5], np.float32)
    assert Thresholds(0.5, 0.5).decide(scores).tolist() == [APPROVE, DECLINE]


@pytest.mark.parametrize(
    ("review", "decline"),
    [(0.0, 0.5), (-0.1, 0.5), (0.6, 0.5), (0.5, 1.1), (np.nan, 0.5), (0.5, np.nan), (1e-60, 0.5)],
)
def test_thresholds_out_of_order_are_refused(review, decline):
    with pytest.raises(ModelError, match="0 < review <= decline <= 1"):
        Thresholds(review, decline)
