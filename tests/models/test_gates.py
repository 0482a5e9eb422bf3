"""One row of the gates' table, and the table: a sound version passes every gate, and a failed one hides no other."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from gate_cases import BOUNDS, LENIENT, disturbing, events, failed, rows
from models.errors import ModelError, NoCudaError
from models.gate import Gate, shown
from models.gate_cost import Cost
from models.gates import Champion, run_gates


@pytest.mark.parametrize(
    ("value", "bounds", "passed"),
    [
        (0.5, {"at_least": 0.5}, True),
        (0.4999, {"at_least": 0.5}, False),
        (0.5, {"at_most": 0.5}, True),
        (0.5001, {"at_most": 0.5}, False),
        (1.0, {"at_least": 0.7, "at_most": 1.4}, True),
        (1.5, {"at_least": 0.7, "at_most": 1.4}, False),
        (float("nan"), {"at_least": 0.0}, False),
        (float("nan"), {"at_most": 0.0}, False),
        (None, {"at_most": 1.0}, False),
    ],
)
def test_a_bound_itself_is_kept_and_no_number_is_not(value, bounds, passed):
    gate = Gate(name="figure", value=value, **bounds)
    assert gate.passed is passed


def test_a_row_survives_json_and_says_its_bound():
    gate = Gate(name="figure", value=0.5, at_least=0.1, note="why")
    assert msgspec.json.decode(msgspec.json.encode(gate), type=Gate) == gate
    assert gate.bound == "≥ 0.1"
    assert Gate(name="figure", value=0.5, at_most=1e-5).bound == "≤ 1e-05"
    assert Gate(name="figure", value=0.5, at_least=0.7, at_most=1.4).bound == "0.7 to 1.4"
    assert [shown(value) for value in (None, 1234567.0, 0.123456, np.nan)] == ["—", "1,234,567", "0.1235", "nan"]


COST = Cost("forest", 0.5, 0.002, 30 << 20, 512)
# The sample's first column is the amount; its last stands for what a field says.
DISTURBED = disturbing({"country": [5]})


@pytest.fixture(scope="module")
def holdout(history, feature_names):
    last = slice(5_000, None)
    return events(
        3_000,
        labels=history.labels[last],
        features=history.features[last].copy(),
        feature_names=feature_names,
        amount_minor=np.round(history.features[last, 0]).astype(np.int64),
    )


@pytest.fixture
def cheap(monkeypatch):
    """No other process: what it measures has tests of its own."""
    monkeypatch.setattr("models.gates.measure", lambda *_: COST)


def test_a_sound_version_passes_every_gate_against_itself(bundle, holdout, cheap):
    told = []
    gates = run_gates(
        bundle, holdout, Champion(bundle, holdout.features), LENIENT, disturbances=DISTURBED, tell=told.append
    )
    assert not failed(gates)
    # Of 3,000 events too few honest ones are held.
    assert {gate.name for gate in gates if not gate.passed} == {
        f"false positives by {dimension}" for dimension in ("country", "channel", "amount band")
    }
    assert len(gates) == len({gate.name for gate in gates}) == 22
    assert told == ["quality and calibration", "robustness", "parity", "time and memory"]


def test_a_failed_gate_hides_no_other(bundle, holdout, cheap):
    strict = replace(LENIENT, min_frauds=10**6, max_batch_ms=1e-9, min_noise_share=1.5)
    gates = run_gates(bundle, holdout, None, strict, disturbances=DISTURBED)
    assert failed(gates) == [
        "frauds in the holdout",
        "precision left with 1% noise on the amount",
        "milliseconds a batch of 512",
    ]


@pytest.mark.parametrize("label", [0, 1])
def test_a_holdout_of_one_class_is_refused_by_figures(bundle, holdout, cheap, label):
    one = replace(holdout, labels=np.full(3_000, label, np.int8))
    assert failed(run_gates(bundle, one, None, BOUNDS, disturbances=DISTURBED))[0] == (
        "honest events in the holdout" if label else "frauds in the holdout"
    )


def test_a_holdout_of_other_features_is_one_sentence(bundle, cheap):
    with pytest.raises(ModelError, match=r"The holdout has 2 features, but version .* takes 6"):
        run_gates(bundle, events(), None, BOUNDS, disturbances=DISTURBED)


def test_the_gates_of_a_version_compare_the_engine_that_workers_choose(bundle, holdout, cheap):
    named = rows(run_gates(bundle, holdout, None, LENIENT, disturbances=DISTURBED, engine="gpu"))
    assert "engine gpu's log-odds apart" in named


def test_where_there_is_no_cuda_what_the_gpu_costs_is_not_judged_and_everything_else_is(bundle, holdout, monkeypatch):
    """Workers may have what this machine lacks: nothing fails, and nothing passes that was not measured."""

    def absent(*_):
        raise NoCudaError("The engine gpu needs CUDA")

    monkeypatch.setattr("models.gates.load_engine", absent)
    monkeypatch.setattr("models.gates.measure", lambda *_: pytest.fail("another engine was measured in its place"))
    gates = run_gates(bundle, holdout, None, LENIENT, disturbances=DISTURBED, engine="gpu")
    assert not failed(gates)
    unmeasured = [gate for gate in gates if "not measured here" in gate.note]
    assert [gate.name for gate in unmeasured] == ["milliseconds a batch of 512", "MiB resident after loading"]
    assert {(gate.verdict, gate.value, gate.passed) for gate in unmeasured} == {("not judged", None, False)}
    assert rows(gates)["engine gpu's log-odds apart"].passed


def test_what_is_timed_are_rows_of_the_holdout_at_the_target_batch(bundle, holdout, monkeypatch):
    timed = []
    monkeypatch.setattr("models.gates.measure", lambda *given: timed.append(given) or COST)
    for batch in (512, 4_000):
        run_gates(bundle, holdout, None, replace(LENIENT, batch=batch), disturbances=DISTURBED)
    known = {row.tobytes() for row in holdout.features}
    assert [len(x) for _, _, x in timed] == [512, 4_000]
    assert all(row.tobytes() in known for _, _, x in timed for row in x)
