"""The engine of the GPU: its batches and buffers on any machine, its placement where there is a device."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from forests import awkward_rows, forest_of
from models.ensemble import load_engine
from models.errors import ModelError
from models.meta import MetaModel
from models.onnx_graph import INPUT, MARGINS, SCORE
from models.onnx_session import session_options
from models.placement import check_placement, read_profile
from models.tensor_engine import CPU, CUDA, LARGEST, SMALLEST, OnnxGpuEngine, TensorEngine, bucket_of
from models.tensor_graph import tensor_graph

META = MetaModel(-0.3, 0.6, 0.5)


@pytest.fixture(scope="module")
def forests():
    return forest_of("xgboost depth-6")[1], forest_of("lightgbm deep")[1]


@pytest.fixture(scope="module")
def x(forests):
    return awkward_rows(forests[0], seed=3, n=700)


@pytest.fixture(scope="module")
def engine(forests):
    """On the CPU, with batches so short that some are cut."""
    return TensorEngine(*forests, META, provider=CPU, largest=256)


@pytest.fixture(scope="module")
def expected(forests, x):
    session = onnxruntime.InferenceSession(tensor_graph(*forests, META), session_options(), providers=[CPU])
    return session.run([SCORE, MARGINS], {INPUT: x})


def bits(values):
    return values.view(np.uint32)


# --- batches and buffers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "bucket"),
    [(1, SMALLEST), (64, 64), (65, 128), (512, 512), (513, 1024), (9_000, LARGEST), (LARGEST, LARGEST)],
)
def test_a_batch_is_padded_to_the_next_power_of_two(rows, bucket):
    assert bucket_of(rows) == bucket


@pytest.mark.parametrize("size", [1, 7, 63, 64, 65, 255, 256, 257, 512, 700])
def test_padding_and_cutting_change_no_bit(engine, x, expected, size):
    scores = np.concatenate([engine.score(x[at : at + size]) for at in range(0, len(x), size)])
    margins = np.concatenate([engine.margins(x[at : at + size]) for at in range(0, len(x), size)])
    np.testing.assert_array_equal(bits(scores), bits(expected[0]))
    np.testing.assert_array_equal(bits(margins), bits(expected[1]))


def test_buffers_are_made_once_a_size(forests, x):
    engine = TensorEngine(*forests, META, provider=CPU, largest=256)
    for size in (1, 3, 64, 100, 128, 200, 700, 2):
        engine.score(x[:size])
    assert sorted(engine._buffers) == [64, 128, 256]


def test_no_rows_have_no_scores(engine):
    assert engine.score(np.empty((0, 8), np.float32)).shape == (0,)
    assert engine.margins(np.empty((0, 8), np.float32)).shape == (0, 2)


def test_rows_laid_out_otherwise_are_scored_the_same(engine, x, expected):
    np.testing.assert_array_equal(bits(engine.score(np.asfortranarray(x[:100]))), bits(expected[0][:100]))


@pytest.mark.parametrize("shape", [(3, 7), (8,), (3, 9)])
def test_rows_of_another_width_are_refused(engine, shape):
    with pytest.raises(ModelError, match="takes rows of 8 features"):
        engine.score(np.zeros(shape, np.float32))


def test_results_of_one_batch_outlive_the_next(engine, x, expected):
    first = engine.score(x[:50])
    engine.score(x[50:100])
    np.testing.assert_array_equal(bits(first), bits(expected[0][:50]))


# --- placement -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile(forests, tmp_path_factory):
    """What the session writes about a run on the CPU."""
    options = session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path_factory.mktemp("profile") / "p")
    session = onnxruntime.InferenceSession(tensor_graph(*forests, META), options, providers=[CPU])
    session.run([SCORE], {INPUT: np.zeros((3, 8), np.float32)})
    return read_profile(Path(session.end_profiling()))


def test_nodes_that_ran_on_the_cpu_are_named(profile):
    with pytest.raises(ModelError, match=r"nodes did not run on CUDAExecutionProvider: IsNaN_0 \(IsNaN\) on CPUExec"):
        check_placement(profile, CUDA)
    assert check_placement(profile, CPU) > 50


def test_one_node_off_the_device_is_an_error_unless_its_operator_is_allowed(profile):
    moved = []
    for event in profile:
        args = event["args"]
        provider = args.get("provider") if args.get("op_name") in ("Exp", None) else CUDA
        moved.append({**event, "args": {**args, "provider": provider}})
    with pytest.raises(
        ModelError, match=r"1 of \d+ nodes did not run on CUDA\w+: \w+ \(Exp\) on CPUExecutionProvider;"
    ):
        check_placement(moved, CUDA)
    assert check_placement(moved, CUDA, allowed={"Exp"}) == check_placement(profile, CPU)


def test_a_profile_in_which_nothing_ran_proves_nothing():
    with pytest.raises(ModelError, match="proves no placement"):
        check_placement([{"cat": "Session", "name": "model_loading", "args": {}}], CUDA)
    with pytest.raises(ModelError, match="on nothing"):
        check_placement([{"cat": "Node", "name": "a_kernel_time", "args": {"op_name": "Add"}}], CUDA)


@pytest.mark.parametrize("content", [b"", b"{", json.dumps([1]).encode()[:2]])
def test_a_profile_that_cannot_be_read_is_one_sentence(tmp_path, content):
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        read_profile(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_profile(tmp_path / "gone.json")


def test_the_engine_knows_how_many_nodes_it_saw_run(engine, profile):
    assert engine.nodes == check_placement(profile, CPU)


# --- on a machine without a device, and with one ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "onnx-gpu"])
def test_a_machine_without_cuda_is_one_sentence_that_names_the_extra(bundle, monkeypatch, name):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(ModelError, match=r"The engine gpu needs CUDA, and .*: install fraudstream with the extra gpu"):
        load_engine(bundle, name)


def test_a_session_that_fell_back_to_the_cpu_is_refused(bundle, monkeypatch):
    """As where CUDA's libraries are missing: the session is made, without the provider."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    made = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda graph, options, providers: made(graph, options, providers=[CPU])
    )
    with pytest.raises(ModelError, match="no device or no CUDA library was found"):
        load_engine(bundle, "gpu")


@pytest.mark.gpu
def test_every_node_runs_on_the_gpu_and_leaves_and_scores_hold(forests, x, expected):
    engine = OnnxGpuEngine(*forests, META)
    assert engine.nodes > 50
    np.testing.assert_allclose(engine.margins(x), expected[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(engine.score(x), expected[0], rtol=1e-5)
    whole = engine.score(x)
    for size in (1, 7, 512):
        parts = [engine.score(x[at : at + size]) for at in range(0, len(x), size)]
        np.testing.assert_array_equal(bits(np.concatenate(parts)), bits(whole))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["xgboost stumps", "xgboost depth-6", "lightgbm deep", "lightgbm no-missing"])
def test_the_gpu_reaches_the_libraries_leaves(name):
    _, forest = forest_of(name)
    rows = awkward_rows(forest, seed=1, n=4000)
    numbered = replace(forest, base=0.0, value=np.arange(len(forest.left), dtype=np.float64))
    single = numbered.slice(0, 1)
    for tree in range(forest.n_trees):
        # Its own node number for a leaf's value: the margin then says which leaf it was.
        one = replace(numbered.slice(tree, tree + 1), base=0.0)
        reached = OnnxGpuEngine(one, single, META).margins(rows)[:, 0]
        np.testing.assert_array_equal(reached.astype(np.int64), forest.leaves(rows)[:, tree])
