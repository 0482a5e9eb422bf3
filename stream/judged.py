"""What a version is judged on: its holdout, the champion on the same payments, the state that workers keep."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.gate import Gate
from models.gate_robustness import Disturbances
from models.gates import Champion
from models.holdout import Holdout, read_holdout
from state.disturbed import fields_of, with_amounts, without_field
from state.errors import FeatureSetError
from state.features import Feature, FeatureSet, StateSpec, parse_feature_set
from stream.errors import RegistryError, UsageError
from stream.holdout_proof import learned_from

__all__ = ["Judged", "declared_gate", "disturbances", "feature_set_gate", "opponent", "read_held"]


@dataclass(frozen=True)
class Judged:
    """The champion with its features of the holdout's payments; None, with a gate that says why, where it has none."""

    champion: Champion | None
    gates: tuple[Gate, ...]


def read_held(path: Path, version: str, sha256: str) -> Holdout:
    """Read a version's holdout as it was registered. Raises UsageError, RegistryError or ModelError."""
    if not sha256:
        raise UsageError(
            f"Version {version} has no holdout to be judged on: register its bundle again with --holdout FILE."
        )
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RegistryError(
            f"The holdout {path} cannot be read ({error.strerror}): put it back, or correct its access rights."
        ) from error
    if found != sha256:
        raise RegistryError(f"The holdout {path} is not the one registered with {version}: put that one back.")
    return read_holdout(path)


def declared_gate(feature_set: FeatureSet, declared: FeatureSet | None) -> list[Gate]:
    """Return whether workers whose settings declare a feature set would take the version; nothing without one."""
    if declared is None:
        return []
    note = f"feature set {feature_set.name} ({feature_set.hash})"
    other = declared.hash != feature_set.hash
    if other:
        note += (
            f", but state.feature_set names {declared.name} ({declared.hash}), so no worker would take the version: "
            f"remove that setting, or train a model on it"
        )
    return [Gate(name="feature sets that state.feature_set forbids", value=float(other), at_most=0.0, note=note)]


def feature_set_gate(feature_set: FeatureSet, spec: StateSpec) -> Gate:
    """Return whether the state that workers keep holds all that the features read."""
    lacking = []
    for feature in feature_set.features:
        try:
            spec.check(FeatureSet(feature_set.name, (feature,), b""))
        except FeatureSetError as error:
            lacking.append(str(error))
    note = f"feature set {feature_set.hash}"
    if lacking:
        note = (
            f"{lacking[0].rstrip('.')}; to warm it, change [state], give the group a new kafka.group or start it once "
            f"with --recovery rebuild, then promote again"
        )
    return Gate(name="features that the kept state lacks", value=float(len(lacking)), at_most=0.0, note=note)


def disturbances(feature_set: FeatureSet) -> Disturbances:
    """Return what the window kernel makes of payments without a field, or of other amounts."""
    missing = {
        f"{field}, missing from {where}": partial(without_field, feature_set, field, ever=ever)
        for field in fields_of(feature_set)
        for where, ever in (("this payment", False), ("every payment", True))
    }
    return Disturbances(missing, partial(with_amounts, feature_set))


def opponent(champion: Bundle, held: Holdout, feature_set: FeatureSet, own_holdout: Path | None) -> Judged:
    """Find the champion's features of the holdout's payments.

    They are columns of the holdout where the candidate's feature set says the same, or else in `own_holdout`, a holdout
    of the champion's feature set that holds the same payments. A champion that has learned from them is no measure: it
    would look better there than it is.
    """
    known = learned_from(held, champion)
    if known != 0:
        what = "does not say which days it learned from" if known is None else "learned from days of this holdout"
        note = f"champion {champion.version} {what}: no measure here, so the floors of a first version are"
        name = "payments that the champion learned from"
        value = None if known is None else float(known)
        return Judged(None, (Gate(name=name, value=value, at_most=0.0, note=note, unjudged=True),))
    theirs = parse_feature_set(champion.feature_set)
    columns = {_meaning(feature): place for place, feature in enumerate(feature_set.features)}
    lacking = [feature.name for feature in theirs.features if _meaning(feature) not in columns]
    if not lacking:
        places = [columns[_meaning(feature)] for feature in theirs.features]
        return Judged(Champion(champion, np.ascontiguousarray(held.features[:, places])), ())
    if own_holdout is not None:
        return Judged(Champion(champion, _by_id(read_holdout(own_holdout), held, champion, own_holdout)), ())
    note = (
        f"{', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}: give --champion-holdout, a holdout "
        f"of feature set {theirs.hash} over the same payments"
    )
    gate = Gate(
        name="features of the champion's that the holdout lacks", value=float(len(lacking)), at_most=0.0, note=note
    )
    return Judged(None, (gate,))


def _meaning(feature: Feature) -> tuple[str, str, int]:
    return feature.aggregate, feature.field, feature.window_ms


def _by_id(source: Holdout, held: Holdout, champion: Bundle, path: Path) -> npt.NDArray[np.float32]:
    """Return the champion's features of each of the holdout's payments, float32[n, k]."""
    if source.feature_set != champion.feature_set_hash:
        raise UsageError(
            f"{path} holds feature set {source.feature_set}, not the champion's, {champion.feature_set_hash}: train on "
            f"the champion's feature set for one."
        )
    place = {name: row for row, name in enumerate(source.transaction_ids)}
    missing = [name for name in held.transaction_ids if name not in place]
    if missing:
        raise UsageError(
            f"{path} lacks {len(missing):,} of the holdout's {len(held.labels):,} payments: train the champion's "
            f"feature set on the same history."
        )
    rows = [place[name] for name in held.transaction_ids]
    if (source.labels[rows] != held.labels).any():
        raise UsageError(f"{path} has other labels for the same payments: train both on the same history.")
    return np.ascontiguousarray(source.features[rows])
