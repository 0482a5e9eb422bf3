"""The graph's margins and scores are those of the libraries and the meta-model."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
import xgboost

from models.bundle import write_bundle
from models.ensemble import OnnxEngine
from models.forest import parse_lightgbm, parse_xgboost
from models.meta import MetaModel
from models.onnx_graph import TREES_PER_NODE, ensemble_graph


def rows(bundle, seed=3, n=3000):
    """Rows from thresholds of both forests, NaN, infinities, zeros and denormals."""
    rng = np.random.default_rng(seed)
    k = len(bundle.feature_names)
    x = rng.normal(size=(n, k)).astype(np.float32) * np.float32(10)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45], np.float32)
    for forest in (parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm)):
        for column in range(k):
            own = forest.threshold[(forest.left >= 0) & (forest.feature == column)]
            pool = np.concatenate([own, special])
            x[:, column] = np.where(rng.random(n) < 0.3, rng.choice(pool, n), x[:, column])
    return x


def test_margins_are_those_of_the_libraries(bundle):
    x = rows(bundle)
    first = xgboost.Booster({"nthread": 1}, model_file=bytearray(bundle.xgboost))
    second = lightgbm.Booster(model_str=bundle.lightgbm)
    margins = OnnxEngine(bundle).margins(x)
    assert margins.dtype == np.float32
    np.testing.assert_allclose(margins[:, 0], first.inplace_predict(x, predict_type="margin"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(margins[:, 1], second.predict(x, raw_score=True, num_threads=1), rtol=0, atol=1e-5)


def test_the_forest_spans_several_operators(bundle):
    """Otherwise the tests here would not see how their sums are added up."""
    assert parse_xgboost(bundle.xgboost).n_trees > TREES_PER_NODE


def test_scores_are_the_meta_models_chances(bundle):
    x = rows(bundle)
    engine = OnnxEngine(bundle)
    chances = 1 / (1 + np.exp(-bundle.meta.log_odds(engine.margins(x))))
    scores = engine.score(x)
    assert scores.dtype == np.float32
    assert scores.shape == (len(x),)
    np.testing.assert_allclose(scores, chances, rtol=3e-6)


@pytest.mark.parametrize(("bias", "score"), [(-200.0, 0.0), (-30.0, 9.357623e-14), (200.0, 1.0)])
def test_extreme_log_odds_neither_overflow_nor_lose_their_digits(trained, parts, tmp_path, bias, score):
    far = replace(trained, meta=MetaModel(bias, 0.0, 0.0))
    scores = OnnxEngine(write_bundle(tmp_path / "far", far, **parts)).score(np.zeros((3, 6), np.float32))
    np.testing.assert_allclose(scores, score, rtol=1e-5)


def test_equal_models_give_equal_bytes(bundle):
    forests = parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm)
    assert ensemble_graph(*forests, bundle.meta) == bundle.onnx
