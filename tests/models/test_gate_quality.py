"""The gates on quality and calibration refuse a model that is wrong in just the way they look for."""

from dataclasses import replace

import numpy as np
import pytest

from gate_cases import BOUNDS, failed, rows
from models.gate import Scored
from models.gate_quality import calibration_gates, calibration_line, quality_gates, recall_at_rate


@pytest.fixture(scope="module")
def scored():
    """Log-odds that are right by construction, of 6,000 events by 300 users."""
    rng = np.random.default_rng(3)
    n = 6_000
    log_odds = rng.normal(-4, 2.5, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    users = rng.integers(0, 300, n)
    return labels, users, log_odds


def held(log_odds, rate=0.05, declined=0.005):
    return Scored(log_odds, *(log_odds >= np.quantile(log_odds, 1 - share) for share in (rate, declined)))


def test_the_same_scores_as_the_champion_s_are_no_worse(scored):
    labels, users, log_odds = scored
    gates = rows(quality_gates(labels, users, held(log_odds), held(log_odds), BOUNDS))
    assert not failed(gates.values())
    assert gates["average precision less the champion's"].value == 0.0
    assert gates["recall at rate 0.02 less the champion's"].value == 0.0


def test_a_worse_ranking_than_the_champion_s_fails_on_both_figures(scored):
    labels, users, log_odds = scored
    blurred = held(log_odds + np.random.default_rng(4).normal(0, 3, len(log_odds)))
    wide = replace(BOUNDS, max_honest_held_gain=1.0, max_honest_declined_gain=1.0, min_decline_precision=0.0)
    gates = rows(quality_gates(labels, users, blurred, held(log_odds), wide))
    assert failed(gates.values()) == [
        "average precision less the champion's",
        "recall at rate 0.02 less the champion's",
    ]
    assert "against" in gates["average precision less the champion's"].note


def test_a_holdout_too_small_to_show_that_a_model_is_not_worse_does_not_pass(scored):
    labels, users, log_odds = scored
    rng = np.random.default_rng(5)
    some = np.concatenate([np.flatnonzero(labels)[:12], np.flatnonzero(labels == 0)[:600]])
    alike = log_odds + rng.normal(0, 0.5, len(log_odds))
    gates = quality_gates(labels[some], users[some], held(alike[some]), held(log_odds[some]), BOUNDS)
    assert "average precision less the champion's" in failed(gates)


def test_the_first_version_is_held_to_a_floor(scored):
    labels, users, log_odds = scored
    assert not failed(quality_gates(labels, users, held(log_odds), None, BOUNDS))
    blind = held(np.random.default_rng(6).normal(size=len(log_odds)))
    strict = replace(BOUNDS, min_average_precision=0.2)
    failing = {"average precision", "recall at rate 0.02", "frauds held", "declined that are fraud"}
    assert set(failed(quality_gates(labels, users, blind, None, strict))) == failing


def test_thresholds_that_hold_too_much_or_too_little_fail_however_good_the_ranking_is(scored):
    labels, users, log_odds = scored
    champion = held(log_odds)
    wide = replace(BOUNDS, max_honest_held_gain=1.0)
    assert failed(quality_gates(labels, users, held(log_odds, 0.4), champion, wide)) == ["events held"]
    assert failed(quality_gates(labels, users, held(log_odds, 0.0005), champion, BOUNDS)) == ["frauds held"]


def test_declining_more_than_is_allowed_fails_though_no_more_is_held(scored):
    labels, users, log_odds = scored
    wide = replace(BOUNDS, max_honest_declined_gain=1.0)
    gates = quality_gates(labels, users, held(log_odds, 0.05, 0.03), held(log_odds), wide)
    assert failed(gates) == ["events declined"]


def test_declines_that_are_mostly_honest_fail_though_as_many_are_held_and_declined(scored):
    labels, users, log_odds = scored
    sound = held(log_odds)
    rank = np.argsort(-log_odds)
    honest = rank[labels[rank] == 0][: int(sound.declined.sum())]
    declined = np.zeros(len(labels), np.bool_)
    declined[honest] = True
    gates = rows(quality_gates(labels, users, replace(sound, declined=declined), None, BOUNDS))
    assert failed(gates.values()) == ["declined that are fraud"]
    assert gates["declined that are fraud"].value == 0.0


@pytest.mark.parametrize("what", ["held", "declined"])
def test_honest_payments_held_or_declined_more_often_than_by_the_champion_fail(scored, what):
    labels, users, log_odds = scored
    bounds = replace(BOUNDS, min_decline_precision=0.0, max_decline_rate=1.0, max_held_rate=1.0)
    more = held(log_odds, 0.09) if what == "held" else held(log_odds, 0.05, 0.03)
    gates = rows(quality_gates(labels, users, more, held(log_odds), bounds))
    assert failed(gates.values()) == [f"honest {what} less the champion's"]
    assert "of honest events" in gates[f"honest {what} less the champion's"].note


def test_a_version_that_declines_nothing_has_no_precision_of_declines(scored):
    labels, users, log_odds = scored
    none = replace(held(log_odds), declined=np.zeros(len(labels), np.bool_))
    gates = rows(quality_gates(labels, users, none, held(log_odds), BOUNDS))
    assert "declined that are fraud" not in gates
    assert not failed(gates.values())


def test_recall_at_a_rate_takes_equal_scores_in_proportion():
    labels = np.array([1, 0, 1, 0], np.int8)
    assert recall_at_rate(0.25)(np.array([4.0, 3.0, 2.0, 1.0]), labels) == 0.5
    assert recall_at_rate(0.5)(np.array([4.0, 3.0, 2.0, 1.0]), labels) == 0.5
    assert recall_at_rate(0.25)(np.zeros(4), labels) == pytest.approx(0.25)


def test_recall_at_a_rate_is_the_share_among_the_most_suspicious(scored):
    labels, _, log_odds = scored
    top = np.argsort(-log_odds)[:300]
    assert recall_at_rate(300 / len(labels))(log_odds, labels) == pytest.approx(labels[top].sum() / labels.sum())


def test_right_log_odds_pass_the_calibration_gates(scored):
    labels, _, log_odds = scored
    assert not failed(calibration_gates(labels, held(log_odds), held(log_odds), BOUNDS))
    assert not failed(calibration_gates(labels, held(log_odds), None, BOUNDS))


@pytest.mark.parametrize("slope", [0.4, 2.0])
def test_log_odds_too_bold_or_too_timid_fail_by_their_slope(scored, slope):
    labels, _, log_odds = scored
    gates = rows(calibration_gates(labels, held(log_odds / slope), None, BOUNDS))
    assert gates["calibration slope"].value == pytest.approx(slope, rel=0.1)
    assert not gates["calibration slope"].passed


@pytest.mark.parametrize("shift", [-2.0, -1.5, 1.5, 2.0])
def test_shifted_log_odds_fail_by_their_mean_with_and_without_a_champion(scored, shift):
    labels, _, log_odds = scored
    shifted = held(log_odds + shift)
    assert "mean score over fraud rate" in failed(calibration_gates(labels, shifted, held(log_odds), BOUNDS))
    gates = rows(calibration_gates(labels, shifted, None, BOUNDS))
    gate = gates["mean score over fraud rate"]
    assert not gate.passed
    assert (gate.value > 1.0) == (shift > 0.0)
    assert gate.value == pytest.approx(shifted.chances.mean() / labels.mean())


def test_strongly_shifted_log_odds_fail_by_the_brier_score_too(scored):
    labels, _, log_odds = scored
    both = ["mean score over fraud rate", "Brier score over the champion's"]
    assert failed(calibration_gates(labels, held(log_odds + 2.0), held(log_odds), BOUNDS)) == both
    both[1] = "Brier score over a constant's"
    assert failed(calibration_gates(labels, held(log_odds + 3.0), None, BOUNDS)) == both


def test_the_calibration_line_undoes_an_affine_change(scored):
    labels, _, log_odds = scored
    intercept, slope = calibration_line(log_odds, labels)
    assert (intercept, slope) == pytest.approx((0.0, 1.0), abs=0.15)
    other = calibration_line(3 * (intercept + slope * log_odds) + 7, labels)
    assert other == pytest.approx((-7 / 3, 1 / 3), rel=1e-3)


def test_scores_that_separate_the_classes_have_no_slope_within_bounds(scored):
    labels, _, _ = scored
    gates = rows(calibration_gates(labels, held(labels * 0.02 - 0.01), None, BOUNDS))
    assert not gates["calibration slope"].passed
