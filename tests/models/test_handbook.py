"""The Handbook's protocol: whom a test day leaves out, and rivals that learn what they should."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import EvaluationError, TrainingError
from models.evaluation_handbook import HANDBOOK, History, Protocol, _ensemble, compare, split_by_protocol
from models.folds import DAY_MS
from models.metrics import auc_roc
from models.rivals import fit_logistic_regression, fit_random_forest

SMALL = Protocol(train_days=2, delay_days=2, test_days=3)


def history(rows):
    """Rows of (day, user, fraud)."""
    days, users, labels = (np.array(column) for column in zip(*rows, strict=True))
    n = len(days)
    return History(
        np.zeros((n, 1), np.float32), labels.astype(np.int8), days * DAY_MS + 5, users.astype(np.int32), ["a"]
    )


def naive_split(rows, start, protocol):
    """Day by day, as the Handbook tells it."""
    learn = [at for at, (day, _, _) in enumerate(rows) if start <= day < start + protocol.train_days]
    known = {rows[at][1] for at in learn if rows[at][2]}
    test, left_out = [], 0
    for judged in range(protocol.test_days):
        today = start + protocol.train_days + protocol.delay_days + judged
        newly_known = start + protocol.train_days + judged - 1
        known |= {user for day, user, fraud in rows if day == newly_known and fraud}
        for at, (day, user, _) in enumerate(rows):
            if day == today:
                test.append(at) if user not in known else None
                left_out += user in known
    return learn, sorted(test), left_out


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.booleans()), min_size=1, max_size=60), st.integers(0, 3)
)
def test_a_split_is_the_one_the_handbook_builds_day_by_day(rows, start):
    found = split_by_protocol(history(rows), start * DAY_MS, SMALL)
    assert (found.train.tolist(), found.test.tolist(), found.known) == naive_split(rows, start, SMALL)


def test_a_fraud_is_known_when_its_label_has_come_and_not_a_day_before():
    rows = [(1, 0, 1), (2, 1, 1), (4, 0, 0), (4, 1, 0), (5, 1, 0), (4, 2, 1), (6, 2, 1)]
    found = split_by_protocol(history(rows), 0, SMALL)
    assert found.test.tolist() == [3, 5, 6]
    assert found.known == 2


def test_a_history_too_short_or_a_start_outside_it_gets_a_sentence():
    rows = [(day, 0, 0) for day in range(6)]
    with pytest.raises(EvaluationError, match="takes 7 days, but the history has 6"):
        compare(history(rows), ["1970-01-01"], protocol=SMALL)
    rows = [(day, 0, 0) for day in range(8)]
    with pytest.raises(EvaluationError, match="choose a first training day from 1970-01-01 to 1970-01-02"):
        compare(history(rows), ["1970-01-03"], protocol=SMALL)
    with pytest.raises(EvaluationError, match="hold 0 frauds among 3"):
        compare(history(rows), ["1970-01-01"], protocol=SMALL)


def drawn(n=6_000, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.lognormal(3, 1, n), rng.normal(size=n), rng.integers(0, 4, n)]).astype(np.float32)
    truth = -2 + 0.5 * x[:, 1] + 0.7 * (x[:, 2] - 1.5)
    labels = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    return x, labels, truth


def test_a_logistic_regression_finds_the_log_odds_that_labels_were_drawn_from():
    x, labels, truth = drawn(40_000)
    found = fit_logistic_regression(x, labels).log_odds(x)
    assert np.abs(found - truth).mean() < 0.06


def test_it_learns_from_a_feature_being_unknown():
    x, labels, _ = drawn()
    x[labels == 1, 0] = np.nan
    found = fit_logistic_regression(x, labels).log_odds(x)
    assert np.isfinite(found).all()
    assert auc_roc(found, labels) > 0.999


def test_l2_holds_separable_classes_and_without_it_there_is_a_sentence():
    x = np.array([[-1], [-2], [1], [2]], np.float32)
    labels = np.array([0, 0, 1, 1], np.int8)
    assert np.abs(fit_logistic_regression(x, labels).weights).max() < 5
    with pytest.raises(TrainingError, match="does not settle"):
        fit_logistic_regression(x, labels, strength=0.0)


def test_a_forest_averages_the_shares_of_its_leaves():
    x, labels, truth = drawn(4_000)
    fitted = fit_random_forest(x, labels, seed=1, threads=1, trees=30)
    shares = fitted.shares(x)
    assert shares.min() >= 0.0
    assert shares.max() <= 1.0
    assert shares.mean() == pytest.approx(labels.mean(), abs=0.02)
    other, other_labels, _ = drawn(4_000, seed=1)
    assert auc_roc(fitted.shares(other), other_labels) > 0.6
    again = fit_random_forest(x, labels, seed=1, threads=1, trees=30).shares(x)
    assert np.array_equal(again, shares)
    assert np.corrcoef(shares, truth)[0, 1] > 0.3


def test_the_handbooks_weeks_are_seven_days_each():
    assert (HANDBOOK.train_days, HANDBOOK.delay_days, HANDBOOK.test_days, HANDBOOK.days) == (7, 7, 7, 21)


def test_a_week_with_too_few_frauds_is_one_sentence_about_what_can_be_chosen():
    rows = [(day, user, user == day % 20) for day in range(7) for user in range(20)]
    with pytest.raises(EvaluationError, match=r"The 2 days from 1970-01-01 cannot be learned from: Fold 1") as caught:
        compare(history(rows), ["1970-01-01"], protocol=SMALL)
    assert str(caught.value).endswith("; choose another first training day, or give a file with more frauds.")
    assert "fewer folds" not in str(caught.value)


def test_every_model_learns_from_the_whole_week():
    x, labels, _ = drawn(3_000)
    rows = np.arange(len(x))
    given = History(x, labels, rows * DAY_MS // 500, rows.astype(np.int32) % 50, ["a", "b", "c"])
    # The newest tenth of the week tells something else.
    turned = replace(given, labels=np.where(rows >= 2_700, 1 - labels, labels).astype(np.int8))
    one, other = (_ensemble(each, rows, x[:200], seed=1, threads=1) for each in (given, turned))
    for name in ("XGBoost", "LightGBM"):
        assert (one[name] != other[name]).any(), name
