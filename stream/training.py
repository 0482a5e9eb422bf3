"""From a labelled history to a bundle, along the path a user's own data takes: read, train, write.

Step 1  labelled payments in order of time, with the features the stream's own code computes
Step 2  train the ensemble on all but the last days
Step 3  write the bundle: models, feature set, sentences, histograms, lineage, model card
Step 4  write the last days beside it, for evaluation and gates
"""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from models.bundle import Bundle, write_bundle
from models.card import Judged, card_text, days
from models.card_plots import card_plots
from models.folds import DAY_MS
from models.holdout import Holdout, holdout_path, payments_sha256, write_holdout
from models.manifest import CARD
from models.sentences import Sentence
from models.svg import check_matplotlib
from models.train import Plan, ScoredRows, Trained, train_ensemble
from state.features import FeatureSet, StateSpec, default_feature_set
from stream.errors import UsageError
from stream.holdout_proof import HELD
from stream.labelled import Labelled, read_labelled
from stream.lineage import code_version, library_versions
from stream.mapping import Limits, Mapping
from stream.simulate import Simulation, simulate

__all__ = ["check_target", "demo_simulation", "refused_path", "sentences_of", "train_bundle", "train_simulated"]

LABEL: Final = "is_fraud"

#: Small, so that a demonstration begins within seconds; a model for real use has several times as many trees.
ROUNDS: Final = 60

#: On a busy machine two threads wait for each other far longer than one takes for all of it.
THREADS: Final = 1

EVENTS: Final = 60_000

#: A simulated cardholder's payments a month: about one a day.
EVENTS_A_USER: Final = 36

#: Of a simulated month; what was simulated is labelled at once.
HOLDOUT_MS: Final = 4 * DAY_MS
FOLDS: Final = 2


def demo_simulation(events: int, seed: int, start_ms: int | None = None) -> Simulation:
    """Return a month of so many payments by as many cardholders as make about one a day each."""
    users = max(20, events // EVENTS_A_USER)
    simulation = Simulation(events=events, users=users, merchants=max(50, users // 2), fraud_rate=0.02, seed=seed)
    return simulation if start_ms is None else dataclasses.replace(simulation, start_ms=start_ms)


def sentences_of(feature_set: FeatureSet) -> dict[str, Sentence]:
    """Return how each feature is said, by its name."""
    return {f.name: Sentence(f.text, f.text_zero, f.text_nan) for f in feature_set.features}


def refused_path(directory: Path) -> Path:
    """Return where rows go that are no transactions: beside the bundle, under its name."""
    return directory.with_name(directory.name + ".refused.jsonl")


def check_target(directory: Path) -> None:
    """Make the directory that the bundle will stand in; raise UsageError where the bundle could not be written."""
    if directory.exists():
        raise UsageError(f"There is already something at {directory}: choose another directory with -o.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        # As the bundle will be written: an hour's training must not end at a folder that takes none.
        tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent).cleanup()
    except OSError as error:
        raise UsageError(f"{directory} cannot be written ({error.strerror}): choose another directory.") from error


def train_bundle(
    rows: Labelled,
    directory: Path,
    feature_set: FeatureSet,
    plan: Plan,
    *,
    lineage: dict[str, Any] | None = None,
    plots: bool = True,
    replace: bool = False,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Bundle:
    """Train on labelled rows; write the bundle, and its holdout beside it.

    lineage: what to say beside the data, the code and the libraries. plots: draw the card's (needs matplotlib).
    replace: take the place of what is there. progress: as in `train_ensemble`. Raises ModelError, UsageError.
    """
    if not replace:
        check_target(directory)
    if plots:
        check_matplotlib()
    # Step 2
    trained, unseen = train_ensemble(
        rows.features, rows.labels, rows.times_ms, feature_names=feature_set.names, plan=plan, progress=progress
    )
    # Step 3
    holdout = _holdout(rows, unseen.held, feature_set)
    own = {"payments_sha256": payments_sha256(holdout), "events": len(holdout.labels)}
    made_from = _lineage(rows, feature_set, trained, {HELD: own, **(lineage or {})})
    bundle = write_bundle(
        directory,
        trained,
        feature_set=feature_set.source,
        feature_set_hash=feature_set.hash,
        sentences=sentences_of(feature_set),
        lineage=made_from,
        card=_card(rows, trained, unseen.out_of_fold, made_from, plots=plots),
        replace=replace,
    )
    # Step 4
    write_holdout(holdout_path(directory), holdout)
    return bundle


def train_simulated(
    directory: Path,
    simulation: Simulation,
    *,
    rounds: int = ROUNDS,
    feature_set: FeatureSet | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> Bundle:
    """Train on simulated cardholders, quickly. tell: told what is being done. Raises ModelError."""
    feature_set = feature_set or default_feature_set()
    mapping = Mapping()
    plan = Plan(
        seed=simulation.seed,
        holdout_ms=HOLDOUT_MS,
        label_delay_ms=0,
        folds=FOLDS,
        trials=0,
        rounds=rounds,
        threads=THREADS,
    )
    with tempfile.TemporaryDirectory(prefix="fraudstream-") as folder:
        history = Path(folder, "history.parquet")
        tell(f"simulating {simulation.events:,} payments of {simulation.users:,} cardholders")
        pq.write_table(simulate(simulation), history)
        # Step 1
        tell(f"computing {len(feature_set.names)} features of each payment")
        now_ms = simulation.start_ms + int(simulation.days * DAY_MS)
        spec = StateSpec(decoding=mapping.decoding)
        refused = Path(folder, "refused.jsonl")
        rows = read_labelled(history, LABEL, mapping, Limits(), spec, feature_set, now_ms=now_ms, refused_path=refused)
    tell("training XGBoost, LightGBM and the meta-model")
    return train_bundle(
        rows,
        directory,
        feature_set,
        plan,
        lineage={"simulation": dataclasses.asdict(simulation)},
        plots=False,
        replace=True,
    )


def _lineage(rows: Labelled, feature_set: FeatureSet, trained: Trained, more: dict[str, Any]) -> dict[str, Any]:
    """Return what the model was made from, without anything that differs from run to run."""
    data = {
        **rows.source,
        "rows": len(rows.labels),
        "frauds": int(rows.labels.sum()),
        "first_ms": int(rows.times_ms[0]),
        "last_ms": int(rows.times_ms[-1]),
        "left_out": rows.refused.total(),
        "left_out_by_reason": dict(sorted(rows.refused.items())),
    }
    return {
        "code": code_version(),
        "libraries": library_versions(),
        "data": data,
        "feature_set": {"name": feature_set.name, "hash": feature_set.hash},
        "search": [dataclasses.asdict(trial) for trial in trained.trials],
        **more,
    }


def _card(
    rows: Labelled, trained: Trained, scored: ScoredRows, lineage: dict[str, Any], *, plots: bool
) -> dict[str, bytes]:
    at = scored.rows.tolist()
    judged = Judged(
        scored.labels,
        scored.scores,
        rows.amount_minor[scored.rows],
        [rows.countries[row] for row in at],
        [rows.channels[row] for row in at],
    )
    drawn = card_plots(judged, trained.thresholds, days(rows.times_ms, rows.labels)) if plots else {}
    return {CARD: card_text(trained, judged, lineage, list(drawn)), **drawn}


def _holdout(rows: Labelled, held: ScoredRows, feature_set: FeatureSet) -> Holdout:
    at = held.rows.tolist()
    return Holdout(
        feature_set=feature_set.hash,
        feature_names=feature_set.names,
        features=rows.features[held.rows],
        labels=held.labels,
        times_ms=rows.times_ms[held.rows],
        amount_minor=rows.amount_minor[held.rows],
        transaction_ids=[rows.transaction_ids[row] for row in at],
        user_ids=[rows.user_ids[row] for row in at],
        countries=[rows.countries[row] for row in at],
        channels=[rows.channels[row] for row in at],
    )
