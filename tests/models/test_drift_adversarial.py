"""A classifier finds what histograms cannot, is silent where nothing changed, and takes a bounded time."""

import time

import numpy as np
from sklearn.metrics import roc_auc_score

from models.drift_adversarial import auc_bound, tell_apart
from models.metrics import auc_roc


def rows(rng, count, correlation=0.0):
    x = rng.normal(size=(count, 24))
    x[:, 1] = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
    x[rng.random(x.shape) < 0.03] = np.nan
    return x.astype(np.float32)


def test_a_correlation_that_breaks_is_found_and_named_though_no_histogram_changed():
    rng = np.random.default_rng(1)
    found = tell_apart(rows(rng, 960, correlation=0.95), rows(rng, 960, correlation=-0.95))
    assert found.auc > auc_bound(960, 960, 0.7, 0.01 / 24)
    assert set(np.argsort(-found.gain)[:2]) == {0, 1}
    assert found.gain.sum() == np.float64(1) or abs(found.gain.sum() - 1) < 1e-9


def test_ten_comparisons_without_drift_raises_nothing():
    rng = np.random.default_rng(2)
    bound = auc_bound(480, 480, 0.5, 0.01 / 24)
    assert all(tell_apart(rows(rng, 480), rows(rng, 480)).auc < bound for _ in range(10))


def test_users_who_are_like_themselves_are_no_drift():
    """Twelve payments of each user close together, as in a busy hour: blocks of time keep a user in one fold."""
    rng = np.random.default_rng(3)
    bound = auc_bound(480, 480, 0.5, 0.01 / 24)
    for _ in range(8):
        past, now = (np.repeat(rows(rng, 40), 12, axis=0) + rng.normal(0, 0.01, (480, 24)) for _ in range(2))
        assert tell_apart(past.astype(np.float32), now.astype(np.float32)).auc < bound


def test_too_few_rows_and_features_constant_or_all_missing_are_no_drift():
    assert tell_apart(np.zeros((59, 3), np.float32), np.zeros((900, 3), np.float32)) is None
    for value in (0.0, np.nan):
        found = tell_apart(np.full((200, 3), value, np.float32), np.full((300, 3), value, np.float32))
        assert found.auc == 0.5
        assert found.gain.tolist() == [0, 0, 0]


def test_the_same_rows_give_the_same_figure():
    rng = np.random.default_rng(4)
    past, now = rows(rng, 300), rows(rng, 300, correlation=0.9)
    first, second = tell_apart(past, now), tell_apart(past, now)
    assert first.auc == second.auc
    np.testing.assert_array_equal(first.gain, second.gain)


def test_the_area_is_scikit_learns():
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 9, 300) / 9, rng.integers(0, 2, 300).astype(np.int8)
    assert abs(auc_roc(scores, labels) - roc_auc_score(labels, scores)) < 1e-12


def test_it_takes_less_than_a_second_of_cpu():
    rng = np.random.default_rng(6)
    past, now = rows(rng, 960), rows(rng, 960)
    began = time.process_time()
    tell_apart(past, now)
    assert time.process_time() - began < 1.0
