"""A holdout of simulated cardholders, along the path that training takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.holdout import Holdout, write_holdout
from state.features import FeatureSet, StateSpec
from stream.backfill import backfill
from stream.mapping import Limits, Mapping
from stream.simulate import simulate
from stream.training import demo_simulation

DAY_MS = 86_400_000


def write_simulated_holdout(path: Path, feature_set: FeatureSet, spec: StateSpec, *, events: int, seed: int) -> Path:
    """Write a month of cardholders that no model was trained on, after the one that models are trained on."""
    simulation = demo_simulation(events, seed=seed)
    simulation = replace(simulation, start_ms=simulation.start_ms + 31 * DAY_MS)
    history, features = path.with_suffix(".history.parquet"), path.with_suffix(".features.parquet")
    pq.write_table(simulate(simulation), history)
    backfill(
        history,
        features,
        Mapping(kept=spec.fields),
        Limits(),
        spec,
        feature_set,
        now_ms=simulation.start_ms + int(simulation.days * DAY_MS),
        keep=["is_fraud", "country", "channel"],
    )
    table = pq.read_table(features)
    x = np.column_stack([table.column(name).to_numpy() for name in feature_set.names]).astype(np.float32)
    holdout = Holdout(
        feature_set=feature_set.hash,
        feature_names=feature_set.names,
        features=np.ascontiguousarray(x),
        labels=table.column("is_fraud").cast(pa.int8()).to_numpy(),
        times_ms=table.column("event_time").cast(pa.int64()).to_numpy(),
        amount_minor=x[:, list(feature_set.names).index("amount")].astype(np.int64),
        transaction_ids=table.column("transaction_id").to_pylist(),
        user_ids=table.column("user_id").to_pylist(),
        countries=[country or "" for country in table.column("country").to_pylist()],
        channels=[channel or "" for channel in table.column("channel").to_pylist()],
    )
    write_holdout(path, holdout)
    return path
