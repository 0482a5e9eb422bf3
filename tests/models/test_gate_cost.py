"""The gates on cost measure rows of the holdout in a process of their own, and say where they could not."""

import numpy as np
import pytest

from gate_cases import BOUNDS, failed
from models import gate_cost
from models.errors import ModelError
from models.gate_cost import Cost, cost_gates, drawn, measure
from models.reasons import Explainer


def test_what_a_bundle_costs_is_measured_in_a_process_of_its_own(bundle, history):
    cost = measure(bundle.directory, "auto", drawn(history.features, 64))
    assert (cost.engine, cost.batch) == ("forest", 64)
    assert 0 < cost.batch_secs < cost.load_secs < 60
    assert (1 << 16) < cost.resident_bytes < (1 << 30)
    assert not failed(cost_gates(cost, BOUNDS))


def test_a_slow_or_large_version_fails():
    cost = Cost("forest", load_secs=1.0, batch_secs=0.06, resident_bytes=600 << 20, batch=512)
    assert failed(cost_gates(cost, BOUNDS)) == ["milliseconds a batch of 512", "MiB resident after loading"]


def test_a_bundle_that_cannot_be_loaded_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"^The cost of \S+ could not be measured: There is no bundle at \S+none"):
        measure(tmp_path / "none", "auto", np.zeros((8, 6), np.float32))


def test_what_explains_a_version_counts_as_its_memory_too(bundle, history, monkeypatch):
    """Pages are counted, not bytes: what is laid out is asked, and a gate that lays out no more would show it here."""
    explained = []
    monkeypatch.setattr(Explainer, "top", lambda _, x: explained.append(x.shape))
    gate_cost._measure_here(bundle.directory, "forest", history.features[:64])
    assert explained == [(gate_cost.EXPLAINED, len(bundle.feature_names))]


def test_a_batch_is_of_the_holdout_s_own_rows_each_once_where_there_are_enough():
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    batch = drawn(x, 20)
    assert sorted(batch[:, 0].tolist()) == x[:, 0].tolist()
    assert drawn(x, 50).shape == (50, 2)
    assert set(drawn(x, 50)[:, 0].tolist()) <= set(x[:, 0].tolist())
    assert np.isnan(drawn(x[:0], 3)).all()
