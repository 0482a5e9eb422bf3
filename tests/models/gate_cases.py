"""What the tests of the gates share: bounds, a holdout, how to read a table."""

from dataclasses import replace

import numpy as np

from models.gate import Bounds
from models.gate_robustness import Disturbances
from models.holdout import Holdout

BOUNDS = Bounds()

# Fraud in the sample rests on three features; without one of them little can be left. Half of the holdout was learned
# from, so its scores look too timid.
LENIENT = replace(BOUNDS, min_missing_share=0.1, max_slope=5.0)


def rows(gates):
    return {gate.name: gate for gate in gates}


def failed(gates):
    return [gate.name for gate in gates if gate.verdict == "FAIL"]


def events(n=6_000, **changed):
    rng = np.random.default_rng(8)
    parts = {
        "feature_set": "0123abcd",
        "feature_names": ("a", "b"),
        "transaction_ids": [f"t{i}" for i in range(n)],
        "user_ids": [f"u{i % 50}" for i in range(n)],
        "times_ms": np.arange(n, dtype=np.int64),
        "labels": (rng.random(n) < 0.05).astype(np.int8),
        "amount_minor": rng.integers(100, 90_000, n),
        "countries": rng.choice(["DE", "FR", ""], n).tolist(),
        "channels": rng.choice(["pos", "web"], n).tolist(),
        "features": rng.normal(size=(n, 2)).astype(np.float32),
    }
    return Holdout(**{**parts, **changed})


def disturbing(missing=None, amounts=0):
    """Disturbances of a set whose column `amounts` is the amount: each of `missing` names the columns that become 0."""
    return Disturbances(
        {what: lambda x, columns=columns: erased(x, columns) for what, columns in (missing or {}).items()},
        lambda x, before, after: changed(x, amounts, after),
    )


def erased(x, columns):
    x = x.copy()
    x[:, columns] = 0.0
    return x


def changed(x, column, values):
    x = x.copy()
    x[:, column] = values
    return x
