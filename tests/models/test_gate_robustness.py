"""The gates on robustness disturb payments as they may come, and fail a model that this blinds."""

from dataclasses import replace

import numpy as np
import pytest

from gate_cases import BOUNDS, disturbing, failed
from models.gate_robustness import robustness_gates


def leaning(weights):
    """Return a scorer that adds up features, NaN as 0."""
    return lambda x: np.nan_to_num(x).astype(np.float64) @ np.array(weights)


@pytest.fixture(scope="module")
def four():
    rng = np.random.default_rng(10)
    x = rng.normal(5, 1, (4_000, 4)).astype(np.float32)
    risk = (x - 5) @ np.array([1.0, 1.0, 1.0, 1.0])
    return x, (risk > np.quantile(risk, 0.95)).astype(np.int8)


def amounts_of(x):
    return np.round(x[:, 0] * 1_000).astype(np.int64)


def gates_of(x, labels, log_odds, missing=None, bounds=BOUNDS):
    """The gates where the first column is the amount in thousands and each of `missing` says what becomes 0."""
    disturbed = disturbing(missing)
    in_thousands = replace(disturbed, amounts=lambda x, before, after: disturbed.amounts(x, before, after / 1_000))
    return robustness_gates(x, labels, amounts_of(x), log_odds, in_thousands, bounds)


def test_a_model_that_rests_on_many_fields_passes(four):
    gates = gates_of(
        *four, leaning([1, 1, 1, 1]), {"country": [1], "device_id": [2]}, replace(BOUNDS, min_missing_share=0.4)
    )
    assert not failed(gates)
    assert [gate.name for gate in gates] == [
        "precision left with a field missing",
        "precision left with 1% noise on the amount",
    ]


def test_a_model_blind_without_one_field_fails_and_names_what_is_missing(four):
    def blind(x):
        return np.where((x[:, 1] == 0) & (x[:, 2] == 0), 0.0, x.sum(axis=1))

    missing = {
        "country, missing from this payment": [1],
        "country, missing from every payment": [1, 2],
        "device_id": [],
    }
    gates = gates_of(*four, blind, missing, replace(BOUNDS, min_missing_share=0.35))
    assert failed(gates) == ["precision left with a field missing"]
    assert gates[0].note == "lowest: country, missing from every payment"


def test_where_no_feature_reads_a_field_none_can_be_missing(four):
    assert [gate.name for gate in gates_of(*four, leaning([1, 1, 1, 1]))] == [
        "precision left with 1% noise on the amount"
    ]


def test_a_model_that_one_percent_of_noise_on_the_amount_confuses_fails(four):
    def digits(x):
        return leaning([1, 1, 1, 1])(x) + 5 * np.sin(x[:, 0].astype(np.float64) * 1e3)

    x, _ = four
    known = leaning([1, 1, 1, 1])(x) > 22
    teased = (known | (digits(x) > 26)).astype(np.int8)
    assert failed(gates_of(x, teased, digits)) == ["precision left with 1% noise on the amount"]


def test_the_noise_is_on_the_amount_alone_and_one_percent_of_it(four):
    x, labels = four
    seen = []
    gates_of(x, labels, lambda x: (seen.append(x), x.sum(axis=1))[1])
    np.testing.assert_array_equal(seen[1][:, 1:], x[:, 1:])
    assert 0.009 < (seen[1][:, 0] / x[:, 0]).std() < 0.011


def test_every_row_that_is_scored_is_one_that_the_windows_make(four):
    """The disturbances decide what becomes of a row; nothing else is ever put into one."""
    x, labels = four
    seen = []
    made = disturbing({"country": [1]})
    robustness_gates(
        x,
        labels,
        amounts_of(x),
        lambda x: (seen.append(x), x.sum(axis=1))[1],
        replace(made, amounts=lambda x, *_: x),
        BOUNDS,
    )
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[0], x)
    np.testing.assert_array_equal(seen[1], made.missing["country"](x))
    np.testing.assert_array_equal(seen[2], x)


def test_a_large_holdout_keeps_all_its_frauds(four, monkeypatch):
    monkeypatch.setattr("models.gate_robustness.MAX_ROWS", 600)
    x, labels = four
    seen = []
    gates_of(x, labels, lambda x: (seen.append(x), x.sum(axis=1))[1], {"country": [1]})
    assert {len(one) for one in seen} == {600}
    assert set(x[labels == 1, 0].tolist()) <= set(seen[0][:, 0].tolist())
