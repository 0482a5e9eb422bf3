"""A row's score is the same bit for bit in whatever batch it comes; engines are chosen by name."""

from dataclasses import replace

import numpy as np
import pytest

from models.ensemble import ConstantEngine, OnnxEngine, load_engine
from models.errors import BundleError, EngineError, ModelError


def bits(scores):
    return scores.view(np.uint32)


@pytest.fixture(scope="module", params=["onnx", "forest"])
def engine(bundle, request):
    return load_engine(bundle, request.param)


@pytest.fixture(scope="module")
def x(history):
    return history.features[:4096]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 512, 4096])
def test_a_score_does_not_depend_on_the_size_of_its_batch(engine, x, size):
    scores = [engine.score(x[at : at + size]) for at in range(0, len(x), size)]
    np.testing.assert_array_equal(bits(np.concatenate(scores)), bits(engine.score(x)))


@pytest.mark.parametrize("size", [*range(1, 34), 127, 129, 511, 2049])
def test_a_score_does_not_depend_on_its_position(engine, x, size):
    alone = engine.score(x[:1])
    for position in {0, size // 2, size - 1}:
        batch = x[1 : size + 1].copy()
        batch[position] = x[0]
        assert bits(engine.score(batch))[position] == bits(alone)[0]


def test_two_instances_give_the_same_bits(bundle, engine, x):
    np.testing.assert_array_equal(bits(load_engine(bundle, engine.name).score(x)), bits(engine.score(x)))


def test_the_engines_agree_in_log_odds(bundle, x):
    onnx, forest = load_engine(bundle, "onnx"), load_engine(bundle, "forest")
    np.testing.assert_allclose(forest.margins(x), onnx.margins(x), rtol=0, atol=1e-5)
    np.testing.assert_allclose(forest.score(x), onnx.score(x), rtol=1e-5)


@pytest.mark.parametrize("name", ["onnx", "forest", "constant"])
def test_an_empty_batch_has_no_scores(bundle, name):
    scores = load_engine(bundle, name).score(np.empty((0, 6), np.float32))
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("name", ["forest", "onnx", "constant"])
def test_an_engine_is_loaded_by_its_name(bundle, name):
    assert load_engine(bundle, name).name == name


def test_auto_takes_the_compiled_forest_or_else_onnx(bundle, monkeypatch):
    assert load_engine(bundle).name == "forest"
    monkeypatch.setattr("models.forest_bank.MAX_THRESHOLDS", 10)
    assert load_engine(bundle).name == "onnx"
    with pytest.raises(EngineError, match=r"more than the 10 and 65535 of the engine forest; choose engine onnx\."):
        load_engine(bundle, "forest")


def test_an_unknown_engine_is_named(bundle):
    with pytest.raises(ModelError, match="no engine 'tpu'; choose auto, forest, onnx, gpu or constant"):
        load_engine(bundle, "tpu")


def test_a_constant_engine_gives_its_constant():
    scores = ConstantEngine(0.25).score(np.zeros((5, 3), np.float32))
    assert scores.dtype == np.float32
    assert scores.tolist() == [0.25] * 5


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_constant_that_is_no_score_is_refused(score):
    with pytest.raises(ModelError, match="between 0 and 1"):
        ConstantEngine(score)


def test_a_graph_of_another_width_is_refused(bundle):
    other = replace(bundle, feature_names=bundle.feature_names[:-1])
    with pytest.raises(BundleError, match="takes 6 features, but its manifest names 5"):
        OnnxEngine(other)


def test_forests_of_another_width_are_refused(bundle):
    with pytest.raises(BundleError, match="takes 6 features, but its manifest names 5"):
        load_engine(replace(bundle, feature_names=bundle.feature_names[:-1]), "forest")


@pytest.mark.parametrize("shape", [(3, 5), (6,), (3, 7)])
def test_rows_of_another_width_are_refused_by_the_forest(bundle, shape):
    with pytest.raises(ModelError, match="takes rows of 6 features"):
        load_engine(bundle, "forest").score(np.zeros(shape, np.float32))


def test_a_graph_that_cannot_be_loaded_is_an_error_of_ours(bundle):
    broken = replace(bundle, files={**bundle.files, "model.onnx": b"no graph"})
    with pytest.raises(BundleError, match="cannot load the graph"):
        OnnxEngine(broken)
