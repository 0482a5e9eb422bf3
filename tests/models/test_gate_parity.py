"""The gates on parity find one threshold moved by one ULP, one tree too few, another graph, on every engine."""

from dataclasses import replace

import numpy as np
import pytest

from gate_cases import failed, rows
from models import gate_parity
from models.errors import EngineError
from models.forest import parse_lightgbm, parse_xgboost
from models.gate_parity import parity_gates
from models.manifest import ONNX
from models.onnx_graph import ensemble_graph
from models.tensor_engine import TensorEngine


def test_a_trained_bundle_passes_the_parity_gates(bundle, history):
    gates = parity_gates(bundle, history.features[:500])
    assert not failed(gates)
    assert "2,500 rows, 200 trees" in gates[0].note


@pytest.mark.parametrize(("library", "parse"), [("xgboost", parse_xgboost), ("lightgbm", parse_lightgbm)])
def test_one_threshold_one_ulp_away_from_the_library_s_fails(bundle, history, monkeypatch, library, parse):
    def moved(raw):
        forest = parse(raw)
        node = forest.roots[17]
        threshold = forest.threshold.copy()
        threshold[node] = np.nextafter(threshold[node], np.float32(np.inf))
        return replace(forest, threshold=threshold)

    monkeypatch.setattr(gate_parity, f"parse_{library}", moved)
    assert failed(parity_gates(bundle, history.features[:50])) == ["rows with a leaf of another tree path"]


def test_one_tree_fewer_than_the_library_s_fails_in_every_row(bundle, history, monkeypatch):
    monkeypatch.setattr(gate_parity, "parse_xgboost", lambda raw: parse_xgboost(raw).slice(0, 99))
    gates = parity_gates(bundle, history.features[:50])
    assert gates[0].value == 2050


def test_a_graph_with_another_meta_model_fails(bundle, history):
    other = replace(bundle.meta, bias=bundle.meta.bias + 0.01)
    graph = ensemble_graph(parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm), other)
    gates = parity_gates(replace(bundle, files={**bundle.files, ONNX: graph}), history.features[:500])
    assert failed(gates) == ["engines' scores apart"]


def test_a_graph_of_other_trees_fails(bundle, history):
    fewer = parse_xgboost(bundle.xgboost).slice(0, 60)
    graph = ensemble_graph(fewer, parse_lightgbm(bundle.lightgbm), bundle.meta)
    gates = parity_gates(replace(bundle, files={**bundle.files, ONNX: graph}), history.features[:500])
    assert failed(gates) == ["engines' log-odds apart", "engines' scores apart"]


def test_workers_on_the_gpu_get_its_graph_compared_too(bundle, history):
    gates = rows(parity_gates(bundle, history.features[:300], "gpu"))
    assert not failed(gates.values())
    assert "tensor graph against onnx" in gates["engine gpu's log-odds apart"].note
    assert not [name for name in rows(parity_gates(bundle, history.features[:50])) if "gpu" in name]


def test_a_tensor_graph_of_other_trees_fails(bundle, history, monkeypatch):
    def fewer(xgboost, lightgbm, meta, **how):
        return TensorEngine(xgboost.slice(0, 60), lightgbm, meta, **how)

    monkeypatch.setattr(gate_parity, "TensorEngine", fewer)
    gates = parity_gates(bundle, history.features[:300], "gpu")
    assert failed(gates) == ["engine gpu's log-odds apart", "engine gpu's scores apart"]


def test_a_forest_too_large_for_the_kernel_is_judged_by_plain_traversal(bundle, history, monkeypatch):
    def refuse(*_):
        raise EngineError("too large")

    monkeypatch.setattr(gate_parity, "forest_engine", refuse)
    monkeypatch.setattr(gate_parity, "ForestMargins", refuse)
    gates = parity_gates(bundle, history.features[:100])
    assert not failed(gates)
    assert "plain traversal" in gates[1].note
