"""A row's score is the same bit for bit in whatever batch it comes; engines are chosen by name."""

from dataclasses import replace

import numpy as np
import pytest

from models.ensemble import ConstantEngine, OnnxEngine, load_engine
from models.errors import BundleError, ModelError


def bits(scores):
    return scores.view(np.uint32)


@pytest.fixture(scope="module")
def engine(bundle):
    return OnnxEngine(bundle)


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


def test_two_sessions_give_the_same_bits(bundle, engine, x):
    np.testing.assert_array_equal(bits(OnnxEngine(bundle).score(x)), bits(engine.score(x)))


@pytest.mark.parametrize("name", ["onnx", "constant"])
def test_an_empty_batch_has_no_scores(bundle, name):
    scores = load_engine(bundle, name).score(np.empty((0, 6), np.float32))
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


@pytest.mark.parametrize(("asked", "given"), [("auto", "onnx"), ("onnx", "onnx"), ("constant", "constant")])
def test_an_engine_is_loaded_by_its_name(bundle, asked, given):
    assert load_engine(bundle, asked).name == given


def test_an_unknown_engine_is_named(bundle):
    with pytest.raises(ModelError, match="no engine 'gpu'; choose auto, onnx or constant"):
        load_engine(bundle, "gpu")


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


def test_a_graph_that_cannot_be_loaded_is_an_error_of_ours(bundle):
    broken = replace(bundle, files={**bundle.files, "model.onnx": b"no graph"})
    with pytest.raises(BundleError, match="cannot load the graph"):
        OnnxEngine(broken)
