"""An engine is checked before it may score: against another one, in batches of several sizes, on awkward rows."""

import numpy as np
import pytest

from models.ensemble import OnnxEngine, forest_engine, read_forests
from models.errors import ModelError
from models.self_check import awkward_rows, check_engine
from small_models import small_model


class Shifted:
    """An engine that is wrong in some way."""

    name = "forest"

    def __init__(self, engine, shift=0.0, *, by_batch=False, score=None, times=1.0):
        self._engine, self._shift, self._by_batch, self._score = engine, shift, by_batch, score
        self._times = np.float32(times)

    def score(self, x):
        scores = self._engine.score(x) * self._times
        if self._score is not None:
            scores[0] = self._score
        return scores * np.float32(1 - 1e-6) if self._by_batch and len(x) < 100 else scores

    def margins(self, x):
        return self._engine.margins(x) + self._shift


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    bundle = small_model(tmp_path_factory.mktemp("checked") / "bundle", seed=0)
    forests = read_forests(bundle)
    return bundle, forest_engine(bundle, forests), forests


def test_an_engine_passes_its_check_and_so_does_the_other(parts):
    bundle, engine, forests = parts
    check_engine(bundle, engine, forests)
    check_engine(bundle, OnnxEngine(bundle), forests)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"shift": 1e-4}, "log-odds are up to 0.0001"),
        ({"shift": float("nan")}, "log-odds are up to nan"),
        ({"by_batch": True}, "in batches of 1: choose another"),
        ({"score": 1.5}, "are no probabilities"),
        ({"score": float("nan")}, "are no probabilities"),
        ({"times": 0.999}, r"their scores are up to 0\.000\d+ apart"),
    ],
)
def test_an_engine_that_is_wrong_fails_its_check(parts, wrong, sentence):
    bundle, engine, forests = parts
    with pytest.raises(ModelError, match=sentence):
        check_engine(bundle, Shifted(engine, **wrong), forests)


def test_the_rows_of_the_check_hold_thresholds_their_neighbours_and_what_is_no_number(parts):
    _, _, forests = parts
    x = awkward_rows(forests)
    assert np.array_equal(x.view(np.uint32), awkward_rows(forests).view(np.uint32)), "the same each time"
    for forest in forests:
        inner = forest.left >= 0
        for column in range(forest.n_features):
            own = forest.threshold[inner & (forest.feature == column)]
            if len(own):
                assert np.isin(x[:, column], own).any()
                assert np.isin(x[:, column], np.nextafter(own, np.float32(np.inf))).any()
    assert np.isnan(x).any()
    assert np.isinf(x).any()
