"""From a labelled history to a bundle, along the path a user's own data takes: backfill, train, write.

Step 1  a history of simulated cardholders, as a file
Step 2  backfill: its features, by the stream's own code
Step 3  train the ensemble on them
Step 4  write the bundle, with the feature set and how each feature is said
"""

import dataclasses
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.bundle import Bundle, write_bundle
from models.sentences import Sentence
from models.train import train
from state.features import FeatureSet, StateSpec, default_feature_set
from stream.backfill import backfill
from stream.errors import UsageError
from stream.mapping import Limits, Mapping
from stream.nearest import did_you_mean
from stream.simulate import Simulation, simulate

__all__ = ["History", "demo_simulation", "read_history", "train_bundle", "train_simulated"]

LABEL: Final = "is_fraud"

#: Small, so that a demonstration begins within seconds; a model for real use has several times as many trees.
ROUNDS: Final = 60

#: On a busy machine two threads wait for each other far longer than one takes for all of it.
THREADS: Final = 1

EVENTS: Final = 60_000

#: A simulated cardholder's payments a month: about one a day.
EVENTS_A_USER: Final = 36


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """Features float32[n, k] as backfill wrote them, labels int8[n] (1: fraud), event times int64[n] in epoch ms."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    event_times_ms: npt.NDArray[np.int64]


def demo_simulation(events: int, seed: int, start_ms: int | None = None) -> Simulation:
    """Return a month of so many payments by as many cardholders as make about one a day each."""
    users = max(20, events // EVENTS_A_USER)
    simulation = Simulation(events=events, users=users, merchants=max(50, users // 2), fraud_rate=0.02, seed=seed)
    return simulation if start_ms is None else dataclasses.replace(simulation, start_ms=start_ms)


def read_history(path: Path, label: str, feature_set: FeatureSet) -> History:
    """Read what `backfill --keep LABEL` wrote. Raises UsageError where the file does not fit."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read as Parquet: write it with `fraudstream backfill`.") from error
    written = (table.schema.metadata or {}).get(b"feature_set", b"").decode()
    if written != feature_set.hash:
        raise UsageError(
            f"{path} holds feature set {written or 'unknown'}, not {feature_set.name} ({feature_set.hash}): run "
            f"`fraudstream backfill` again with this feature set."
        )
    if label not in table.column_names:
        raise UsageError(
            f"{path} has no column {label} (keep it with `fraudstream backfill --keep`)"
            f"{did_you_mean(label, table.column_names)}"
        )
    columns = [table.column(name).to_numpy() for name in feature_set.names]
    return History(
        np.ascontiguousarray(np.column_stack(columns), np.float32),
        table.column(label).cast(pa.int8()).to_numpy(),
        table.column("event_time").cast(pa.int64()).to_numpy(),
    )


def train_bundle(
    history: History,
    directory: Path,
    feature_set: FeatureSet,
    *,
    seed: int,
    rounds: int,
    threads: int,
    lineage: dict[str, Any],
) -> Bundle:
    """Train on a history and write the bundle in place of what is there. Raises ModelError."""
    trained = train(
        history.features,
        history.labels,
        history.event_times_ms,
        feature_names=feature_set.names,
        seed=seed,
        rounds=rounds,
        threads=threads,
    )
    return write_bundle(
        directory,
        trained,
        feature_set=feature_set.source,
        feature_set_hash=feature_set.hash,
        sentences={f.name: Sentence(f.text, f.text_zero, f.text_nan) for f in feature_set.features},
        lineage={"fraudstream": version("fraudstream"), **lineage},
        replace=True,
    )


def train_simulated(
    directory: Path,
    simulation: Simulation,
    *,
    rounds: int = ROUNDS,
    feature_set: FeatureSet | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> Bundle:
    """Train on simulated cardholders. tell: told what is being done. Raises ModelError."""
    feature_set = feature_set or default_feature_set()
    mapping = Mapping()
    with tempfile.TemporaryDirectory(prefix="fraudstream-") as folder:
        history, features = Path(folder, "history.parquet"), Path(folder, "features.parquet")
        # Step 1
        tell(f"simulating {simulation.events:,} payments of {simulation.users:,} cardholders")
        pq.write_table(simulate(simulation), history)
        # Step 2
        tell(f"computing {len(feature_set.names)} features of each payment")
        now_ms = simulation.start_ms + int(simulation.days * 86_400_000)
        spec = StateSpec(decoding=mapping.decoding)
        backfill(history, features, mapping, Limits(), spec, feature_set, now_ms=now_ms, keep=[LABEL])
        # Steps 3 and 4
        tell("training XGBoost, LightGBM and the meta-model")
        return train_bundle(
            read_history(features, LABEL, feature_set),
            directory,
            feature_set,
            seed=simulation.seed,
            rounds=rounds,
            threads=THREADS,
            lineage={"simulation": dataclasses.asdict(simulation)},
        )
