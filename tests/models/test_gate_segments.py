"""The gates on segments fail where honest payments are surely held more often, and name what they cannot judge."""

from dataclasses import replace

import numpy as np
import pytest

from gate_cases import BOUNDS, events, failed, rows
from models.gate_segments import _ratio, segment_gates


def test_false_positives_spread_evenly_pass():
    holdout = events()
    gates = segment_gates(holdout, np.random.default_rng(9).random(6_000) < 0.05, BOUNDS)
    assert [gate.name for gate in gates] == [
        "false positives by country",
        "false positives by channel",
        "false positives by amount band",
    ]
    assert not failed(gates)


@pytest.mark.parametrize("dimension", ["country", "channel", "amount band"])
def test_a_segment_whose_honest_payments_are_held_far_more_often_fails(dimension):
    holdout = events(
        countries=["FR"] * 1_000 + ["DE"] * 5_000,
        channels=["web"] * 1_000 + ["pos"] * 5_000,
        amount_minor=np.arange(6_000)[::-1].copy(),
    )
    place = np.arange(6_000) < (1_000 if dimension != "amount band" else 1_500)
    ratio = 3.0 if dimension != "amount band" else 3.5
    bounds = replace(BOUNDS, max_amount_false_positive_ratio=3.0)
    gates = rows(segment_gates(holdout, place & (np.arange(6_000) % 5 == 0), bounds))
    gate = gates[f"false positives by {dimension}"]
    assert not gate.passed
    assert gate.value > ratio
    assert gate.note.startswith("highest: " + {"country": "FR", "channel": "web", "amount band": "above"}[dimension])


def test_small_segments_are_named_as_not_judged_and_unknown_ones_have_a_name():
    holdout = events(countries=["FR"] * 100 + [""] * 5_900)
    gates = rows(segment_gates(holdout, np.arange(6_000) % 20 == 0, BOUNDS))
    country = gates["false positives by country"]
    assert country.note.startswith("highest: unknown, 1.00 times as often, 95 % interval ")
    assert country.note.endswith("; not judged, too small: FR")
    assert country.passed


def test_where_nothing_is_held_no_segment_can_be_judged_which_is_no_pass():
    gates = segment_gates(events(), np.zeros(6_000, np.bool_), BOUNDS)
    assert {gate.verdict for gate in gates} == {"not judged"}
    assert not any(gate.passed for gate in gates)
    assert all(gate.value is None and gate.unjudged for gate in gates)
    assert all(gate.note.startswith("no segment is large enough") for gate in gates)


def one_country_more(held_by):
    """20,000 honest payments, 1 % of them held, and 600 of FR by 100 users, of which those of `held_by` are held."""
    base = np.arange(20_000) % 100 == 0
    holdout = events(
        20_600,
        labels=np.zeros(20_600, np.int8),
        countries=["DE"] * 20_000 + ["FR"] * 600,
        user_ids=[f"d{at % 4_000}" for at in range(20_000)] + [f"f{at % 100}" for at in range(600)],
    )
    return rows(segment_gates(holdout, np.concatenate([base, held_by]), BOUNDS))["false positives by country"]


def test_a_ratio_that_chance_explains_fails_nobody_and_its_interval_is_said():
    gate = one_country_more(np.arange(600) < 24)  # 4 % held against 1.1 %
    assert gate.passed
    assert gate.value < BOUNDS.max_false_positive_ratio
    assert gate.note.startswith("highest: FR, 3.68 times as often, 95 % interval 2.")


def test_the_same_ratio_of_more_payments_fails():
    gate = one_country_more(np.arange(600) < 60)
    assert gate.verdict == "FAIL"
    assert gate.value > BOUNDS.max_false_positive_ratio


def test_payments_of_one_user_that_are_held_together_prove_less_than_as_many_of_different_users():
    spread, together = np.arange(600) < 36, np.arange(600) % 100 < 6
    assert spread.sum() == together.sum()
    assert one_country_more(spread).value > 1.2 * one_country_more(together).value


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    rng = np.random.default_rng(12)
    truth, inside, users = 2.0, np.arange(6_000) < 1_000, np.arange(6_000) % 1_500
    rate = np.where(inside, 0.04, 0.016)  # 0.02 over all
    covered = 0
    for _ in range(200):
        found = _ratio(inside, rng.random(6_000) < rate, users)
        covered += found.low <= truth <= found.high
    assert 0.9 <= covered / 200 <= 0.99
