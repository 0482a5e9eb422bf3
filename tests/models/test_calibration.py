"""Calibration stretches and shifts log-odds, is fitted where no meta-model was, and folds into the meta-model."""

import numpy as np
import pytest

from models.calibration import IDENTITY, Calibration, fit_calibration
from models.meta import MetaModel, fit_meta

FOLDS = [slice(0, 4000), slice(4000, 8000), slice(8000, 12000)]


def drawn(slopes, n=4000, seed=0):
    """Margins [n * folds, 2] of which each fold's truth is another multiple, and labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(-1.5, 2, (n * len(slopes), 1)) + rng.normal(0, 0.2, (n * len(slopes), 2))
    truth = margins.mean(axis=1) * np.repeat(slopes, n)
    return margins, (rng.random(len(truth)) < 1 / (1 + np.exp(-truth))).astype(np.int8)


def test_folding_a_calibration_in_gives_the_same_log_odds_as_applying_it_afterwards():
    meta, calibration = MetaModel(-0.3, 0.6, 0.5), Calibration(0.8, -0.2)
    margins = np.random.default_rng(1).normal(size=(100, 2))
    folded = calibration.fold_into(meta).log_odds(margins)
    assert folded == pytest.approx(-0.2 + 0.8 * meta.log_odds(margins))


def test_log_odds_that_fit_every_fold_are_left_nearly_as_they_are():
    found = fit_calibration(*drawn([1.0, 1.0, 1.0]), FOLDS)
    assert found.slope == pytest.approx(1.0, abs=0.05)
    assert found.intercept == pytest.approx(0.0, abs=0.1)


def test_it_sees_what_the_meta_models_own_fit_cannot():
    """Folds that disagree: fitted on all of them the slope is 1 by construction, on others it is not."""
    margins, labels = drawn([0.2, 1.0, 3.0])
    meta = fit_meta(margins, labels)
    own = fit_calibration(meta.log_odds(margins)[:, None] * np.ones(2), labels, [slice(0, 6000), slice(6000, 12000)])
    honest = fit_calibration(margins, labels, FOLDS)
    assert abs(honest.slope - 1.0) > 0.1
    assert own != honest


def test_with_one_fold_there_is_nothing_to_calibrate_on():
    assert fit_calibration(*drawn([1.0]), [slice(0, 4000)]) == IDENTITY


def test_a_ranking_is_never_turned_upside_down():
    margins, labels = drawn([-1.0, 1.0])
    assert fit_calibration(margins, labels, FOLDS[:2]).slope > 0.0
