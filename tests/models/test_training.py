"""Training splits by time, blends on log-odds, sets thresholds for stated rates, and says what it cannot learn from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import TrainingError
from models.history import sort_history
from models.meta import PRIOR_STRENGTH, PRIOR_WEIGHT, fit_meta
from models.metrics import at_threshold, auc_roc, average_precision
from models.train import threshold_for, train

NAMES = ["a", "b"]


def blank(n=1000, fraud_every=10):
    """A history without any signal."""
    x = np.zeros((n, 2), np.float32)
    x[:, 0] = np.arange(n)
    return x, (np.arange(n) % fraud_every == 0).astype(np.int8), np.arange(n, dtype=np.int64)


def test_the_ensemble_ranks_frauds_well(trained):
    assert trained.metrics["auc_roc"] > 0.9
    assert trained.metrics["average_precision"] > 5 * trained.metrics["frauds"] / trained.metrics["events"]


def test_thresholds_meet_their_rates_on_the_out_of_fold_scores(trained):
    assert 0.018 <= trained.metrics["out_of_fold_review_rate"] <= 0.02
    assert 0.004 <= trained.metrics["out_of_fold_decline_rate"] <= 0.005
    assert 0.01 <= trained.metrics["review_rate"] <= 0.04
    assert trained.metrics["decline_precision"] > trained.metrics["review_precision"]


def test_another_seed_gives_another_model(trained, history, feature_names):
    other = train(history.features, history.labels, history.times_ms, feature_names=feature_names, seed=8, rounds=2)
    same = train(history.features, history.labels, history.times_ms, feature_names=feature_names, seed=8, rounds=2)
    third = train(history.features, history.labels, history.times_ms, feature_names=feature_names, seed=9, rounds=2)
    assert other == same
    assert other.xgboost != third.xgboost
    assert other.lightgbm != third.lightgbm


def test_the_order_of_rows_does_not_matter(history, feature_names):
    order = np.random.default_rng(0).permutation(len(history.labels))
    sorted_first = train(
        history.features,
        history.labels,
        history.times_ms,
        feature_names=feature_names,
        seed=1,
        rounds=2,
    )
    shuffled = train(
        history.features[order],
        history.labels[order],
        history.times_ms[order],
        feature_names=feature_names,
        seed=1,
        rounds=2,
    )
    assert shuffled == sorted_first


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, y, t: (x.astype(np.float64), y, t), "must be a float32 matrix"),
        (lambda x, y, t: (x[:, 0], y, t), "must be a float32 matrix"),
        (lambda x, y, t: (x, y[:-1], t), "1000 rows of features, but there are 999 labels"),
        (lambda x, y, t: (x, y, t[:-1]), "999 event times"),
        (lambda x, y, t: (x[:, :1], y, t), "Each of the 1 feature columns needs a name"),
        (lambda x, y, t: (x[:0], y[:0], t[:0]), "history is empty"),
        (lambda x, y, t: (x, y.astype(float) + np.nan, t), "row 0 says nan"),
        (lambda x, y, t: (x, np.where(t == 7, 2, y), t), "row 7 says 2"),
        (lambda x, y, t: (x, y * 0, t), "All 1000 events have the label 0"),
        (lambda x, y, t: (x, y * 0 + 1, t), "All 1000 events have the label 1"),
        (lambda x, y, t: (np.where(x == 3, np.float32(np.inf), x), y, t), "'a' is infinite in row 3"),
        (lambda x, y, t: (x, y * (t > 650), t), "Fold 1 of 2 .* trains on 0 frauds among 425 events"),
        (lambda x, y, t: (x, y * (t < 400), t), "Fold 1 of 2 .* judges on 0 frauds among 212 events"),
        (lambda x, y, t: (x, y * (t < 840), t), "The holdout .* holds 0 frauds among 150 events"),
        (lambda x, y, t: (x, y, t * 0), "trains on 0 frauds"),
        (lambda x, y, t: (np.where(y[:, None] == 1, np.float32(9), x * 0), y, t), r"features a \(AUC 1.0000\), b"),
        (lambda x, y, t: (np.stack([x[:, 1], -y], 1).astype(np.float32), y, t), r"The feature b \(AUC 1.0000\) alone"),
        (lambda x, y, t: (np.where(y[:, None] == 1, x[:, 1:], np.nan) * np.ones(2, "f4"), y, t), "got into the data"),
    ],
)
def test_a_history_that_cannot_be_learned_from_gets_a_sentence(spoil, words):
    x, y, times = spoil(*blank())
    with pytest.raises(TrainingError, match=words) as caught:
        train(x, y, times, feature_names=NAMES, seed=1, rounds=1)
    assert str(caught.value).endswith((".", "out."))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rounds": 0}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"decline_rate": 0.5}, "decline <= review"),
        ({"review_rate": 1.0}, "review < 1"),
        ({"decline_rate": float("nan")}, "0 < decline"),
    ],
)
def test_parameters_out_of_range_get_a_sentence(parameters, words):
    with pytest.raises(TrainingError, match=words):
        train(*blank(), feature_names=NAMES, seed=1, **parameters)


def test_labels_may_come_as_any_type_of_number():
    x, y, times = blank()
    for kind in (np.float64, np.int64, np.bool_):
        assert sort_history(x, y.astype(kind), times, NAMES).labels.dtype == np.int8


def margins(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2, 2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    return truth[:, None] + rng.normal(size=(n, 2)), y


def penalised_loss(meta, m, y):
    z = meta[0] + m @ np.array(meta[1:])
    prior = 0.5 * PRIOR_STRENGTH * ((np.array(meta[1:]) - PRIOR_WEIGHT) ** 2).sum()
    return (np.logaddexp(0, z) - y * z).sum() + prior


def test_the_meta_model_is_at_the_bottom_of_its_loss():
    m, y = margins()
    found = fit_meta(m, y)
    best = np.array([found.bias, found.xgboost, found.lightgbm])
    for direction in np.random.default_rng(1).normal(size=(50, 3)):
        assert penalised_loss(best, m, y) < penalised_loss(best + 1e-3 * direction, m, y)


def test_a_weight_that_would_turn_a_model_upside_down_is_zero():
    m, y = margins()
    m[:, 1] *= -1
    found = fit_meta(m, y)
    assert found.lightgbm == 0.0
    assert found.xgboost > 0.3


def test_a_perfectly_separating_model_still_gets_finite_weights():
    y = np.repeat(np.array([0, 1], np.int8), 50)
    found = fit_meta(np.where(y[:, None] == 1, 8.0, -8.0) * np.ones((1, 2)), y)
    assert np.isfinite([found.bias, found.xgboost, found.lightgbm]).all()
    assert found.xgboost == pytest.approx(found.lightgbm)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_ranking_metrics_equal_their_definitions(events):
    scores = np.array([score / 4 for score, _ in events], np.float32)
    labels = np.array([fraud for _, fraud in events], np.int8)
    if len(set(labels.tolist())) < 2:
        return
    pairs = [(f > h) + 0.5 * (f == h) for f in scores[labels == 1] for h in scores[labels == 0]]
    assert auc_roc(scores, labels) == pytest.approx(np.mean(pairs))
    precisions = [labels[scores >= f].mean() for f in scores[labels == 1]]
    assert average_precision(scores, labels) == pytest.approx(np.mean(precisions))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_a_threshold_is_the_lowest_that_keeps_to_its_rate(values, rate):
    scores = np.array(values, np.float32) / np.float32(20)
    threshold = threshold_for(scores, rate)
    fitting = [s for s in scores if (scores >= s).sum() <= rate * len(scores)]
    assert threshold == float(min(fitting, default=1.0))


def test_nothing_above_a_threshold_has_precision_zero():
    figures = at_threshold(np.array([0.1, 0.2]), np.array([0, 1], np.int8), 0.9)
    assert figures == {"rate": 0.0, "precision": 0.0, "recall": 0.0}
