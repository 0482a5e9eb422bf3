"""Intervals come from drawing whole users, repeat by seed, and hold the truth about as often as they say."""

import numpy as np
import pytest

from models.bootstrap import RESAMPLES, _weighted, draws, group_codes, intervals, paired_bootstrap
from models.metrics import auc_roc, average_precision


def sample(users=40, each=10, seed=0, signal=1.5):
    """Users of `each` payments; a user's payments share a mood, which is what makes rows dependent."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(users), each)
    mood = rng.normal(size=users)[group]
    labels = (rng.random(users * each) < 0.2).astype(np.int8)
    scores = (signal * labels + mood + 0.5 * rng.normal(size=users * each)).astype(np.float32)
    return scores, labels, group


def interval_of(statistic, labels, scores, *, seed, groups, resamples=RESAMPLES):
    codes = group_codes(groups)
    figure = _weighted(statistic, scores, labels, codes)
    return intervals(figure, codes.max() + 1, seed=seed, resamples=resamples)[0]


def test_groups_are_numbered_as_they_appear():
    assert group_codes(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert group_codes(np.array([7, 7, 3])).tolist() == [0, 0, 1]


def test_a_draw_takes_as_many_groups_as_there_are_and_repeats_by_seed():
    first = list(draws(30, seed=5, resamples=4))
    assert all(counts.sum() == 30 for counts in first)
    assert np.array_equal(first, list(draws(30, seed=5, resamples=4)))
    assert np.array_equal(first[:2], list(draws(30, seed=5, resamples=2)))
    assert not np.array_equal(first, list(draws(30, seed=6, resamples=4)))


@pytest.mark.parametrize("statistic", [auc_roc, average_precision])
def test_counting_users_equals_repeating_their_rows(statistic):
    scores, labels, group = sample()
    scores = np.round(scores, 1)  # ties, too

    def plainly(scores, labels):
        return statistic(scores, labels)

    fast = interval_of(statistic, labels, scores, seed=3, groups=group, resamples=30)
    slow = interval_of(plainly, labels, scores, seed=3, groups=group, resamples=30)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))
    assert fast.value == pytest.approx(statistic(scores, labels))
    assert fast.low < fast.value < fast.high


def test_the_same_seed_gives_the_same_interval_and_another_gives_another():
    scores, labels, group = sample()
    one, same = (interval_of(auc_roc, labels, scores, seed=1, groups=group) for _ in range(2))
    assert one == same
    assert one != interval_of(auc_roc, labels, scores, seed=2, groups=group)


def test_intervals_hold_the_truth_about_as_often_as_they_say_and_rows_would_not():
    truth = np.mean([average(seed, users=4_000) for seed in range(3)])
    by_user, by_row = 0, 0
    for seed in range(100, 200):
        scores, _, group = sample(seed=seed)
        for groups, held in ((group, "user"), (np.arange(len(group)), "row")):
            found = interval_of(mean_score, one_of_each(scores), scores, seed=1, groups=groups, resamples=100)
            if held == "user":
                by_user += found.low <= truth <= found.high
            else:
                by_row += found.low <= truth <= found.high
    assert 88 <= by_user <= 99
    assert by_row < 60


def mean_score(scores, labels):
    return float(scores.mean())


def one_of_each(scores):
    """Labels of both kinds in about every draw; the figure does not look at them."""
    return (np.arange(len(scores)) % 2).astype(np.int8)


def average(seed, users):
    return sample(users=users, seed=seed)[0].mean()


def test_a_paired_difference_is_far_better_known_than_either_figure():
    scores, labels, group = sample(users=150)
    rng = np.random.default_rng(1)
    better = scores + 0.15 * labels + 0.02 * rng.normal(size=len(scores)).astype(np.float32)
    own = interval_of(auc_roc, labels, scores, seed=1, groups=group)
    found = paired_bootstrap(auc_roc, labels, better, scores, seed=1, groups=group)
    assert found.value == pytest.approx(auc_roc(better, labels) - auc_roc(scores, labels))
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.5 * (own.high - own.low)


def test_a_model_compared_with_itself_differs_by_nothing():
    scores, labels, group = sample()
    found = paired_bootstrap(average_precision, labels, scores, scores, seed=1, groups=group, resamples=20)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_figure_that_few_draws_have_gets_no_interval():
    labels = np.array([1, 0, 0, 0], np.int8)
    found = interval_of(auc_roc, labels, np.arange(4.0), seed=1, groups=np.arange(4))
    assert found.value == 0.0
    assert np.isnan([found.low, found.high]).all()


def test_progress_counts_the_draws():
    seen = []
    intervals(lambda counts: counts[:1].astype(float), 5, seed=1, resamples=3, progress=seen.append)
    assert seen == [1, 2, 3]
