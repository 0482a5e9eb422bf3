"""Each figure of an evaluation equals its definition, computed naively; counting users equals repeating their rows."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bootstrap import group_codes, intervals
from models.errors import EvaluationError
from models.evaluation import CostFigures, Plan, Sample, ThresholdFigures, evaluate
from models.evaluation_calibration import (
    LineOfGroups,
    ReliabilityOfGroups,
    brier,
    calibration_line,
    reliability,
)
from models.evaluation_cards import CardPrecision
from models.evaluation_curves import curve, histogram
from models.evaluation_policy import PolicySums, Prices
from models.evaluation_ranking import Ranking
from models.evaluation_segments import LEAST, MOST_SEGMENTS, OTHERS, SegmentFigures, amount_bands
from models.folds import DAY_MS
from models.policy import Thresholds

THRESHOLDS = Thresholds(0.5, 0.8)
USERS = 6


def events(least=4, most=40):
    one = st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, USERS - 1), st.integers(0, 3))
    return st.lists(one, min_size=least, max_size=most).map(columns)


def columns(rows):
    scores = np.array([score / 4 for score, *_ in rows], np.float32)
    labels = np.array([fraud for _, fraud, *_ in rows], np.int8)
    users = np.array([user for _, _, user, _ in rows], np.int32)
    times = np.array([day * DAY_MS + place for place, (*_, day) in enumerate(rows)], np.int64)
    return scores, labels, users, times


def counts():
    return st.lists(st.integers(0, 3), min_size=USERS, max_size=USERS).map(np.array)


def repeated(counts, users, *arrays):
    """The rows as a draw has them, each user's as often as it was drawn."""
    rows = np.repeat(np.arange(len(users)), counts[users])
    return [array[rows] for array in arrays]


# --- ranking ---------------------------------------------------------------------------------------------------------


@given(events(), counts())
def test_weighted_ranking_figures_equal_those_of_pairs_and_of_repeated_rows(rows, counts):
    scores, labels, users, _ = rows
    found = Ranking(scores, labels, users)(counts)
    drawn, fraud = repeated(counts, users, scores, labels)
    if len(set(fraud.tolist())) < 2:
        assert np.isnan(found).all()
        return
    pairs = [(f > h) + 0.5 * (f == h) for f in drawn[fraud == 1] for h in drawn[fraud == 0]]
    assert found[0] == pytest.approx(np.mean(pairs))
    assert found[1] == pytest.approx(np.mean([fraud[drawn >= f].mean() for f in drawn[fraud == 1]]))


# --- card precision --------------------------------------------------------------------------------------------------


def naive_card_precision(scores, labels, users, times, k, drop):
    """The mean over days of the share of the k most suspicious cards that are compromised, a day at a time."""
    known, found = set(), []
    for day in sorted(set((times // DAY_MS).tolist())):
        cards = defaultdict(lambda: (-1.0, 0))
        for score, label, user, time in zip(scores.tolist(), labels.tolist(), users.tolist(), times, strict=True):
            if time // DAY_MS == day and user not in known:
                highest, fraud = cards[user]
                cards[user] = max(highest, score), max(fraud, label)
        ranked = sorted(cards.items(), key=lambda card: (-card[1][0], card[1][1], card[0]))
        detected = [user for user, (_, fraud) in ranked[:k] if fraud]
        found.append(len(detected) / k)
        if drop:
            known.update(detected)
    return float(np.mean(found))


@given(events(), st.integers(1, 7), st.booleans())
def test_card_precision_equals_brute_force(rows, k, drop):
    scores, labels, users, times = rows
    found = CardPrecision(scores, labels, times, users, k=k, drop_detected=drop)(np.ones(USERS, np.int64))[0]
    assert found == pytest.approx(naive_card_precision(scores, labels, users, times, k, drop))


@given(events(), counts(), st.integers(1, 7), st.booleans())
def test_a_card_drawn_twice_counts_as_two_cards(rows, counts, k, drop):
    scores, labels, users, times = rows
    found = CardPrecision(scores, labels, times, users, k=k, drop_detected=drop)(counts)[0]
    days = len(set((times // DAY_MS).tolist()))
    again = [np.flatnonzero(users == user) for user in range(USERS) for _ in range(counts[user])]
    rows = np.concatenate([np.zeros(0, int), *again])
    if not len(rows):
        assert found == 0.0
        return
    cards = np.concatenate([np.full(len(copy), number) for number, copy in enumerate(again)])
    if drop and (counts > 1).any():
        return  # copies of one card are detected together; as separate cards the second could outlive the first
    naive = naive_card_precision(scores[rows], labels[rows], cards, times[rows], k, drop)
    drawn_days = len(set((times[rows] // DAY_MS).tolist()))
    assert found == pytest.approx(naive * drawn_days / days)


def test_a_long_day_is_read_as_far_as_needed():
    n = 5_000
    counts = np.zeros(n, np.int64)
    counts[-150:] = 1  # the least suspicious alone were drawn
    scores = np.linspace(1, 0, n).astype(np.float32)
    labels = np.zeros(n, np.int8)
    labels[-100:] = 1
    cards = CardPrecision(scores, labels, np.zeros(n, np.int64), np.arange(n, dtype=np.int32), k=100)
    assert cards(counts)[0] == 0.5
    assert cards.compromised_by_day().tolist() == [100]


# --- thresholds and cost ---------------------------------------------------------------------------------------------


@given(events())
def test_threshold_figures_and_costs_equal_a_count_by_hand(rows):
    scores, labels, users, _ = rows
    amounts = 10.0 + 5.0 * users
    prices, alone = Prices(review=3.0, wrong_decline=20.0), np.zeros(len(scores), np.int32)
    found = PolicySums(scores, labels, amounts, alone, THRESHOLDS, prices)(np.ones(1, np.int64))
    missed = reviews = wrong = lost = 0.0
    for score, fraud, amount in zip(scores, labels, amounts, strict=True):
        lost += amount if fraud else 0.0
        if score < 0.5:
            missed += amount if fraud else 0.0
        elif score < 0.8:
            reviews += 3.0
        elif not fraud:
            wrong += 20.0
    cost = CostFigures(*found[10:])
    assert (cost.missed_frauds, cost.reviews, cost.wrong_declines, cost.without_model) == (missed, reviews, wrong, lost)
    assert cost.total == pytest.approx(missed + reviews + wrong)
    for at in (ThresholdFigures(0.5, *found[:5]), ThresholdFigures(0.8, *found[5:10])):
        held = scores >= np.float32(at.threshold)
        assert at.rate == pytest.approx(held.mean())
        for value, part, whole in (
            (at.precision, held & (labels == 1), held),
            (at.recall, held & (labels == 1), labels == 1),
            (at.false_positive_rate, held & (labels == 0), labels == 0),
            (at.amount_recall, amounts * (held & (labels == 1)), amounts * (labels == 1)),
        ):
            assert value == pytest.approx(part.sum() / whole.sum() if whole.sum() else math.nan, nan_ok=True)


@given(events(), counts())
def test_policy_figures_by_counts_equal_those_of_repeated_rows(rows, counts):
    scores, labels, users, _ = rows
    amounts = 10.0 + 5.0 * users
    found = PolicySums(scores, labels, amounts, users, THRESHOLDS, Prices())(counts[: users.max() + 1])
    again = repeated(counts, users, scores, labels, amounts)
    if len(again[0]):
        alone = PolicySums(*again, np.zeros(len(again[0]), np.int32), THRESHOLDS, Prices())(np.ones(1, np.int64))
        assert found == pytest.approx(alone, nan_ok=True)


# --- calibration -----------------------------------------------------------------------------------------------------


def drawn_from_a_line(n, intercept, slope, seed=0):
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-2, 1.5, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-(intercept + slope * log_odds)))).astype(np.int8)
    return log_odds, labels


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (-0.7, 0.5), (0.5, 1.6)])
def test_the_calibration_line_is_the_one_labels_were_drawn_from(intercept, slope):
    found = calibration_line(*drawn_from_a_line(60_000, intercept, slope))
    assert found.intercept == pytest.approx(intercept, abs=0.08)
    assert found.slope == pytest.approx(slope, abs=0.05)


def test_one_step_from_the_samples_own_line_is_the_line_of_the_draw():
    log_odds, labels = drawn_from_a_line(20_000, -0.3, 0.8)
    users = np.repeat(np.arange(1_000, dtype=np.int32), 20)
    line = LineOfGroups(log_odds, labels, users)
    rng = np.random.default_rng(1)
    for _ in range(5):
        counts = np.bincount(rng.integers(1_000, size=1_000), minlength=1_000)
        exact = calibration_line(*repeated(counts, users, log_odds, labels))
        assert line(counts) == pytest.approx([exact.intercept, exact.slope], abs=0.004)


@pytest.mark.parametrize(
    ("log_odds", "labels"),
    [([-1.0, 1.0, 2.0, -2.0], [0, 1, 1, 0]), ([0.5, 0.5, 0.5], [0, 1, 0]), ([0.1, 0.2], [1, 1])],
)
def test_where_no_line_is_likeliest_there_is_none(log_odds, labels):
    found = LineOfGroups(np.array(log_odds), np.array(labels, np.int8), np.zeros(len(labels), np.int32))
    assert math.isnan(found.line.slope)
    assert np.isnan(found(np.ones(1, np.int64))).all()


@given(events(), counts())
def test_brier_and_bins_by_counts_equal_those_of_repeated_rows(rows, counts):
    scores, labels, users, _ = rows
    found = ReliabilityOfGroups(scores, labels, users, bins=4)
    once = found(np.ones(users.max() + 1, np.int64))
    assert once[0] == pytest.approx(np.mean((scores - labels) ** 2)) == brier(scores, labels)
    bins = reliability(scores, labels, bins=4)
    assert once[1:] == pytest.approx([one.fraud_share for one in bins])
    drawn, fraud = repeated(counts, users, scores, labels)
    if len(drawn):
        resampled = found(counts[: users.max() + 1])
        assert resampled[0] == pytest.approx(brier(drawn, fraud))
        for share, one in zip(resampled[1:], bins, strict=True):
            inside = (drawn >= one.lowest) & (drawn <= one.highest)
            assert share == pytest.approx(fraud[inside].mean() if inside.any() else math.nan, nan_ok=True)


def test_bins_hold_equal_numbers_of_events_unless_scores_are_equal():
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    labels = (np.arange(100) % 3 == 0).astype(np.int8)
    assert [one.events for one in reliability(scores, labels, bins=10)] == [10] * 10
    scores[:75] = 0
    bins = reliability(scores, labels, bins=4)
    assert [one.events for one in bins] == [75, 25]
    assert (bins[0].frauds, bins[0].lowest, bins[0].highest) == (25, 0.0, 0.0)


# --- segments --------------------------------------------------------------------------------------------------------


def segments(values, scores, labels, groups, resamples):
    figures, number = SegmentFigures(values, scores, labels, groups, THRESHOLDS), int(groups.max()) + 1
    return figures.segments(intervals(figures, number, seed=1, resamples=resamples), number)


def test_a_segment_with_too_few_frauds_has_no_figure_that_needs_them():
    n = 400
    values = ["DE"] * 300 + ["FR"] * 100
    labels = np.zeros(n, np.int8)
    labels[:40] = 1
    labels[300 : 300 + LEAST - 1] = 1
    scores = np.random.default_rng(0).random(n).astype(np.float32)
    large, small = segments(values, scores, labels, np.arange(n, dtype=np.int32), resamples=20)
    assert (large.name, large.events, large.frauds, large.enough) == ("DE", 300, 40, True)
    assert large.recall.value == pytest.approx((scores[:40] >= 0.5).mean())
    assert large.false_positive_rate.value == pytest.approx((scores[40:300] >= 0.5).mean())
    assert (small.name, small.enough) == ("FR", False)
    assert small.auc_roc is small.average_precision is small.recall is None
    assert small.review_rate.value == pytest.approx((scores[300:] >= 0.5).mean())
    assert small.false_positive_rate is not None


def test_many_segments_become_the_largest_and_all_others():
    values = [f"c{at}" for at in range(60) for _ in range(60 - at)] + [""] * 100
    n = len(values)
    labels = (np.arange(n) % 2).astype(np.int8)
    scores = np.full(n, 0.6, np.float32)
    found = segments(values, scores, labels, np.zeros(n, np.int32), resamples=2)
    assert len(found) == MOST_SEGMENTS
    assert [one.name for one in found[:2]] == ["unknown", "c0"]
    assert found[-1].name == OTHERS
    assert sum(one.events for one in found) == n


def test_bands_of_amounts_hold_their_lower_edge():
    bands = amount_bands(np.array([9.99, 10.0, 49.0, 50.0, 700.0]), (10, 50, 100))
    assert bands == ["under 10", "10 to 50", "10 to 50", "50 to 100", "100 and more"]


# --- curves ----------------------------------------------------------------------------------------------------------


def test_curves_pass_through_their_thresholds_and_a_histogram_adds_up():
    rng = np.random.default_rng(0)
    labels = (rng.random(5_000) < 0.1).astype(np.int8)
    scores = np.round(rng.random(5_000) + 0.5 * labels, 3)
    found = curve(scores, labels)
    assert len(found.recall) < 450
    for false, recall, precision in list(zip(found.false_positive_rate, found.recall, found.precision, strict=True))[
        1:
    ]:
        threshold = np.sort(scores)[::-1][round(recall * labels.sum() + false * (labels == 0).sum()) - 1]
        seen = scores >= threshold
        assert recall == pytest.approx(labels[seen].sum() / labels.sum())
        assert precision == pytest.approx(labels[seen].mean())
    assert (found.false_positive_rate[-1], found.recall[-1]) == (1.0, 1.0)
    chances = np.clip(scores / 2, 0.01, 0.99)
    shares = histogram(np.log(chances) - np.log1p(-chances), labels)
    assert sum(shares.honest) == pytest.approx(1)
    assert sum(shares.fraud) == pytest.approx(1)


# --- all of it -------------------------------------------------------------------------------------------------------


def whole(n=3_000, seed=0):
    rng = np.random.default_rng(seed)
    log_odds, labels = drawn_from_a_line(n, 0, 1, seed)
    return Sample(
        scores=(1 / (1 + np.exp(-log_odds))).astype(np.float32),
        log_odds=log_odds,
        labels=labels,
        times_ms=np.sort(rng.integers(0, 5 * DAY_MS, n)),
        users=group_codes(rng.integers(0, 300, n)),
        amounts=rng.lognormal(3, 1, n),
        dimensions={"channel": rng.choice(["pos", "online"], n).tolist()},
        base={"xgboost": log_odds + rng.normal(size=n), "lightgbm": rng.normal(size=n)},
    )


def test_a_whole_evaluation_is_reproducible_and_its_models_stand_in_order():
    plan = Plan(THRESHOLDS, resamples=30, cards_a_day=20)
    first, second = evaluate(whole(), plan), evaluate(whole(), plan)
    assert first == second
    assert list(first.models) == ["ensemble", "xgboost", "lightgbm"]
    aucs = [one.auc_roc for one in first.models.values()]
    assert aucs[0].low > aucs[1].high > aucs[1].low > aucs[2].high
    assert first.calibration.slope.low < 1 < first.calibration.slope.high
    assert first.calibration.brier.high < first.calibration.brier_of_rate
    assert len(first.days) == 5
    assert np.mean([day.card_precision for day in first.days]) == pytest.approx(
        first.models["ensemble"].card_precision.value
    )
    assert {one.name for one in first.segments["channel"]} == {"pos", "online"}
    assert sum(one.events for one in first.segments["channel"]) == 3_000


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1_000))
def test_another_order_of_rows_changes_nothing_but_the_draws(seed):
    sample = whole(600)
    order = np.random.default_rng(seed).permutation(600)
    other = Sample(
        sample.scores[order],
        sample.log_odds[order],
        sample.labels[order],
        sample.times_ms[order],
        sample.users[order],
        sample.amounts[order],
    )
    plan = Plan(THRESHOLDS, resamples=2)
    one, two = evaluate(Sample(*(getattr(sample, name) for name in COLUMNS)), plan), evaluate(other, plan)
    assert two.models["ensemble"].average_precision.value == one.models["ensemble"].average_precision.value
    assert two.cost.total.value == pytest.approx(one.cost.total.value)


COLUMNS = ("scores", "log_odds", "labels", "times_ms", "users", "amounts")


@pytest.mark.parametrize(
    ("labels", "words"),
    [([], "no labelled transactions"), ([0, 0], "All 2 .* as honest"), ([1, 1], "All 2 .* as frauds")],
)
def test_a_sample_without_both_classes_gets_a_sentence(labels, words):
    n = len(labels)
    blank = np.full(n, 0.5)
    sample = Sample(
        blank.astype(np.float32),
        blank,
        np.array(labels, np.int8),
        np.zeros(n, np.int64),
        np.zeros(n, np.int32),
        blank,
    )
    with pytest.raises(EvaluationError, match=words):
        evaluate(sample, Plan(THRESHOLDS))
