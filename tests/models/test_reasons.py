"""Contributions add up to the score's log-odds; the strongest become sentences."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import xgboost

from models.ensemble import OnnxEngine
from models.errors import BundleError
from models.reasons import Explainer
from models.strongest_kernel import strongest


@pytest.fixture(scope="module")
def explainer(bundle):
    return Explainer(bundle)


@pytest.fixture(scope="module")
def x(history):
    return history.features[:300]


def test_contributions_and_bias_are_the_log_odds_of_the_score(bundle, explainer, x):
    contributions, bias = explainer.explain(x)
    assert contributions.shape == (300, 6)
    assert contributions.dtype == np.float64
    total = contributions.sum(axis=1) + bias
    engine = OnnxEngine(bundle)
    np.testing.assert_allclose(total, bundle.meta.log_odds(engine.margins(x)), rtol=0, atol=1e-5)
    scores = engine.score(x).astype(np.float64)
    # Nearer to 1, float32 itself holds fewer digits of the log-odds than are asked for.
    usual = scores < 0.9
    np.testing.assert_allclose(total[usual], np.log(scores / (1 - scores))[usual], rtol=0, atol=1e-5)


def test_they_are_what_the_libraries_themselves_say(bundle, explainer, x):
    first = xgboost.Booster(model_file=bytearray(bundle.xgboost)).predict(xgboost.DMatrix(x), pred_contribs=True)
    second = lightgbm.Booster(model_str=bundle.lightgbm).predict(x, pred_contrib=True)
    parts = bundle.meta.xgboost * first.astype(np.float64) + bundle.meta.lightgbm * second
    contributions, bias = explainer.explain(x)
    np.testing.assert_allclose(contributions, parts[:, :-1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(bias, parts[:, -1] + bundle.meta.bias, rtol=0, atol=1e-5)


def test_they_add_up_for_missing_and_infinite_values_too(bundle, explainer, x):
    odd = x[:40].copy()
    odd[::4, 0] = np.nan
    odd[1::4, 3] = np.inf
    odd[2::4, 3] = -np.inf
    odd[3::4] = np.nan
    contributions, bias = explainer.explain(odd)
    log_odds = bundle.meta.log_odds(OnnxEngine(bundle).margins(odd))
    np.testing.assert_allclose(contributions.sum(axis=1) + bias, log_odds, rtol=0, atol=1e-5)


def test_a_row_is_explained_the_same_alone_and_among_others(explainer, x):
    np.testing.assert_array_equal(explainer.contributions(x)[7:8], explainer.contributions(x[7:8]))


def test_the_strongest_features_come_first_with_their_sign(explainer, x):
    contributions = explainer.contributions(x)
    for parts, row, reasons in zip(contributions, x, explainer.top(x, n=3), strict=True):
        strongest = np.sort(np.abs(parts))[::-1][:3]
        assert [abs(reason.contribution) for reason in reasons] == strongest.tolist()
        for reason in reasons:
            column = explainer._names.index(reason.feature)
            assert reason.contribution == parts[column]
            np.testing.assert_equal(reason.value, float(row[column]))


def test_the_fraud_pattern_is_found_in_the_reasons(bundle, explainer, x):
    """The sample's frauds come from the amount, a product of two features and a count."""
    suspicious = x[OnnxEngine(bundle).score(x) > bundle.thresholds.review]
    named = {reasons[0].feature for reasons in explainer.top(suspicious, n=1)}
    assert named <= {"amount", "distance", "seconds_since_last", "count_1h"}
    assert all(reasons[0].contribution > 0 for reasons in explainer.top(suspicious, n=1))


def test_no_rows_have_no_reasons(explainer):
    assert explainer.top(np.empty((0, 6), np.float32)) == []


def test_a_reason_reads_as_a_sentence(explainer, x):
    row = x[:1].copy()
    row[0, :2] = 1234.56, np.nan
    texts = {reason.feature: reason.text for reason in explainer.top(row, n=6)[0]}
    assert texts["amount"] == "amount is 1,234.6"
    assert texts["count_1h"] == "nothing known yet for count 1h"


def test_a_feature_without_any_part_is_no_reason(bundle, x, explainer):
    silent = Explainer(replace(bundle, meta=replace(bundle.meta, xgboost=0.0, lightgbm=0.0)))
    assert silent.top(x[:2]) == [[], []]


@pytest.mark.parametrize("file", ["xgboost.json", "lightgbm.txt"])
def test_a_model_that_cannot_be_read_is_an_error_of_ours(bundle, file):
    with pytest.raises(BundleError, match="not readable"):
        Explainer(replace(bundle, files={**bundle.files, file: b"{}"}))


def test_forests_of_another_width_are_refused(bundle):
    with pytest.raises(BundleError, match="takes 6 features, but its manifest names 5"):
        Explainer(replace(bundle, feature_names=bundle.feature_names[:-1]))


def test_among_equals_the_first_declared_is_stronger_whatever_its_sign():
    parts = np.array([[1.0, -3.0, 2.0, 3.0, -2.0, 0.0], [0.0, 0.0, 0.0, -1.0, 0.0, 0.0]])
    columns, found = np.empty((2, 4), np.int64), np.empty((2, 4))
    strongest(parts, parts, (0.25, 0.75), columns, found)
    assert columns[0].tolist() == [1, 3, 2, 4]
    assert found.tolist() == [[-3.0, 3.0, 2.0, -2.0], [-1.0, 0.0, 0.0, 0.0]]


def test_more_reasons_than_features_are_the_features(explainer, x):
    assert explainer.top(x[:5], n=9) == explainer.top(x[:5], n=6)
