"""From a registered version to the one that scores, through the gates, on somebody's word.

Step 1  open the copy in the registry's directory and its holdout; both must be what was registered
Step 2  run the gates, beside the version in office where there is one; note that the holdout was read
Step 3  a failed gate ends it here, with a line in the audit file
Step 4  aliases in MLflow: previous, champion
Step 5  a line in the audit file: who approved, from which version, on which figures
Step 6  replace champion.json: from here on workers take the version

Up to step 6 workers see nothing. After a crash between 4 and 6 the alias says one version and the pointer another; the
pointer counts, and promoting again finishes the work.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from models.bundle import Bundle
from models.errors import ModelError
from models.gate import Bounds, Gate
from models.gates import run_gates
from models.holdout import payments_sha256
from models.manifest import MANIFEST
from models.policy import Thresholds
from models.threshold_change import with_thresholds
from state.features import FeatureSet, StateSpec, parse_feature_set
from stream.errors import PromotionRefused, RegistryError, UsageError
from stream.feature_sets import chosen_feature_set
from stream.judged import Judged, declared_gate, disturbances, feature_set_gate, opponent, read_held
from stream.registry import CHALLENGER, CHAMPION, HOLDOUT_FILE, PREVIOUS, Registry, Version, register_files
from stream.registry_directory import Entry, Versions
from stream.scoring import engine_of_models
from stream.settings import Settings
from stream.sources import Pointer

__all__ = ["Office", "Promotion", "promoter"]

#: The version that was in office before this one.
REPLACED_TAG: Final = "champion.replaced"
#: Who answers for gates that could not be judged.
UNJUDGED_TAG: Final = "unjudged_accepted_by"


@dataclass(frozen=True)
class Promotion:
    """What a promotion did: the version, the one it replaced ("" for none), the gate table, and what else to know."""

    version: str
    replaced: str
    gates: Sequence[Gate]
    notes: Sequence[str]


@dataclass(frozen=True)
class Office:
    """Decides which version scores.

    engine: what workers will choose; declared: the feature set that their settings name, if any; now_ms: the clock.
    """

    registry: Registry
    versions: Versions
    spec: StateSpec
    bounds: Bounds
    engine: str = "auto"
    declared: FeatureSet | None = None
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    def promote(
        self,
        name: str,
        by: str,
        *,
        challenger: bool = False,
        champion_holdout: Path | None = None,
        accept_unjudged: bool = False,
        show: Callable[[Promotion], object] = lambda _: None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> Promotion:
        """Let a version score (or wait as challenger) if it passes every gate.

        accept_unjudged: go on where a gate could not be judged, which is kept on record. show: given the gate table,
        failed or not. tell: told what is being done. Raises UsageError, ModelError,
        RegistryError; PromotionRefused where a gate failed.
        """
        with self.versions.locked():
            return self._promote(
                self.registry.find(name),
                by,
                challenger=challenger,
                champion_holdout=champion_holdout,
                accept_unjudged=accept_unjudged,
                show=show,
                tell=tell,
            )

    def change_thresholds(
        self,
        name: str,
        thresholds: Thresholds,
        by: str,
        *,
        challenger: bool = False,
        accept_unjudged: bool = False,
        show: Callable[[Promotion], object] = lambda _: None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> Promotion:
        """Make a version of another one with other thresholds, and promote that one; errors as `promote`."""
        with self.versions.locked():
            parent = self.registry.find(name)
            bundle, path = self._open(parent), self.versions.holdout_path(parent.name)
            held = read_held(path, parent.name, parent.tags.get(HOLDOUT_FILE, ""))
            try:
                changed, files = with_thresholds(bundle, (bundle.directory / MANIFEST).read_bytes(), thresholds, held)
            except ModelError as error:
                raise UsageError(str(error)) from error
            version = register_files(self.registry, self.versions, changed, files, path, by=by, parent=parent.name)
            return self._promote(
                version,
                by,
                challenger=challenger,
                champion_holdout=None,
                accept_unjudged=accept_unjudged,
                show=show,
                tell=tell,
            )

    def rollback(self, by: str) -> Promotion:
        """Put the champion before the present one back, without gates. Raises UsageError, RegistryError."""
        with self.versions.locked():
            present = self.in_office()
            if present is None:
                raise UsageError("no version was promoted yet, so there is nothing to roll back")
            before = present.tags.get(REPLACED_TAG, "")
            if not before:
                raise UsageError(f"{present.name} is the first champion: there is none before it to go back to")
            version = self.registry.find(before)
            feature_set = parse_feature_set(self._open(version).feature_set)
            gates = [feature_set_gate(feature_set, self.spec), *declared_gate(feature_set, self.declared)]
            # Told, not refused: whoever rolls back needs it now; workers keep what they have until they can take it.
            lacking = [gate for gate in gates if not gate.passed]
            notes = [f"Workers with these settings cannot take {before}: {gate.note}." for gate in lacking]
            self.registry.point(CHAMPION, version)
            further = version.tags.get(REPLACED_TAG, "")
            self.registry.point(PREVIOUS, self.registry.find(further) if further else None)
            at = self.now_ms()
            self.versions.record(Entry(at=at, action="rolled_back", version=before, by=by, replaced=present.name))
            self._follow(version, by, at)
            return Promotion(before, present.name, (), notes)

    def in_office(self) -> Version | None:
        """Return the version that workers follow, or MLflow's champion where the directory names none.

        Raises RegistryError where workers follow one that MLflow has lost.
        """
        pointer = self.versions.pointer()
        if pointer is None:
            return self.registry.alias(CHAMPION)
        known = next((one for one in self.registry.versions() if one.name == pointer.version), None)
        if known is None:
            raise RegistryError(
                f"Workers follow {pointer.version}, which the registry does not know: register it again with "
                f"fraudstream models register {self.versions.path(pointer.version)}, or correct registry.uri."
            )
        return known

    def _promote(
        self,
        version: Version,
        by: str,
        *,
        challenger: bool,
        champion_holdout: Path | None,
        accept_unjudged: bool,
        show: Callable[[Promotion], object],
        tell: Callable[[str], object],
    ) -> Promotion:
        present = self.in_office()
        # Without a pointer no worker follows the alias' version: then promoting it finishes what was begun.
        appointed = CHAMPION in version.aliases and self.versions.pointer() is not None
        if present and present.name == version.name and (challenger or appointed):
            raise UsageError(f"{version.name} is the champion already")
        rival = present if present and present.name != version.name else None
        # Steps 1 and 2
        bundle = self._open(version)
        gates, notes = self._judge(version, bundle, rival, champion_holdout, tell)
        done = Promotion(version.name, rival.name if rival else "", gates, notes)
        show(done)
        entry = Entry(
            at=self.now_ms(),
            action="challenger" if challenger else "promoted",
            version=version.name,
            by=by,
            replaced="" if challenger else done.replaced,
            holdout_sha256=version.tags.get(HOLDOUT_FILE, ""),
            gates=list(gates),
            unjudged_accepted=accept_unjudged and any(gate.unjudged for gate in gates),
        )
        # Step 3
        self._refuse_failed(entry)
        self.registry.tag(version, {UNJUDGED_TAG: by if entry.unjudged_accepted else ""})
        # Step 4
        if challenger:
            self.registry.point(CHALLENGER, version)
            self.versions.record(entry)
            return done
        self._appoint(version, rival, by, entry.at)
        # Step 5
        self.versions.record(entry)
        # Step 6
        self._follow(version, by, entry.at)
        return done

    def _appoint(self, version: Version, rival: Version | None, by: str, at: int) -> None:
        if rival:
            self._leave_chain(version, rival)
        tags = {"approved_by": by, "promoted_at": str(at)}
        self.registry.tag(version, tags | ({REPLACED_TAG: rival.name} if rival else {}))
        if rival:
            self.registry.point(PREVIOUS, rival)
        if CHALLENGER in version.aliases:
            self.registry.point(CHALLENGER, None)
        self.registry.point(CHAMPION, version)

    def _leave_chain(self, version: Version, rival: Version) -> None:
        """Take a version that returns out of the champions before `rival`: rolling back would else go in circles."""
        known = {one.name: one for one in self.registry.versions()}
        at = rival
        for _ in known:
            before = at.tags.get(REPLACED_TAG, "")
            if before == version.name:
                self.registry.tag(at, {REPLACED_TAG: version.tags.get(REPLACED_TAG, "")})
            if before == version.name or before not in known:
                return
            at = known[before]

    def _judge(
        self,
        version: Version,
        bundle: Bundle,
        rival: Version | None,
        champion_holdout: Path | None,
        tell: Callable[[str], object],
    ) -> tuple[list[Gate], list[str]]:
        """Run every gate and keep the table with the version."""
        tell("the holdout")
        held = read_held(self.versions.holdout_path(version.name), version.name, version.tags.get(HOLDOUT_FILE, ""))
        notes = self._note_reading(version, payments_sha256(held))
        feature_set = parse_feature_set(bundle.feature_set)
        against = Judged(None, ())
        if rival:
            against = opponent(self._open(rival), held, feature_set, champion_holdout)
        gates = [
            feature_set_gate(feature_set, self.spec),
            *declared_gate(feature_set, self.declared),
            *against.gates,
            *run_gates(
                bundle,
                held,
                against.champion,
                self.bounds,
                disturbances=disturbances(feature_set),
                engine=self.engine,
                tell=tell,
            ),
        ]
        verdict = "passed" if all(gate.passed for gate in gates) else "failed"
        if verdict == "failed" and all(gate.passed or gate.unjudged for gate in gates):
            verdict = "not judged"
        table = msgspec.json.encode(gates).decode()
        self.registry.tag(version, {"gates": table, "gates.verdict": verdict, "gates.at": str(self.now_ms())})
        return gates, notes

    def _note_reading(self, version: Version, payments: str) -> list[str]:
        """Record that these payments are read for this version, and return what to say of earlier readings."""
        tag = f"holdout.read.{payments[:16]}"
        readers = [one.name for one in self.registry.versions() if tag in one.tags]
        self.registry.tag(version, {tag: version.tags.get(tag) or str(self.now_ms())})
        notes = []
        if version.name in readers:
            notes.append(f"The holdout was read for {version.name} before: its figures are those of then.")
        others = len(readers) - (version.name in readers)
        if others:
            notes.append(
                f"The holdout was read for {others} other version{'s' if others > 1 else ''} before: the more often "
                f"one chooses by it, the less it proves; train with a longer history for a fresh one."
            )
        return notes

    def _refuse_failed(self, entry: Entry) -> None:
        forgiven = entry.unjudged_accepted
        failed = [gate for gate in entry.gates if not gate.passed and not (gate.unjudged and forgiven)]
        if not failed:
            return
        self.versions.record(msgspec.structs.replace(entry, action="refused"))
        raise PromotionRefused(f"Version {entry.version} is not promoted: {'; '.join(map(_failure, failed))}.")

    def _open(self, version: Version) -> Bundle:
        sha256 = version.tags.get("manifest_sha256", "")
        if not self.versions.path(version.name).is_dir():
            raise RegistryError(
                f"{self.versions.directory} lacks version {version.name}, which the registry names: register its "
                f"bundle again, or correct registry.directory."
            )
        return self.versions.open(version.name, sha256)

    def _follow(self, version: Version, by: str, at: int) -> None:
        self.versions.write_pointer(Pointer(version.name, version.tags["manifest_sha256"], by, at))


def promoter(settings: Settings) -> Office:
    """Return the office that the settings describe."""
    gates: dict[str, Any] = msgspec.structs.asdict(settings.registry.gates)
    return Office(
        Registry(settings.registry),
        Versions(Path(settings.registry.directory)),
        settings.state_spec(),
        Bounds(**gates),
        engine_of_models(settings),
        chosen_feature_set(settings) if settings.state.feature_set else None,
    )


def _failure(gate: Gate) -> str:
    note = f" ({gate.note})" if gate.note else ""
    if gate.unjudged:
        return f"{gate.name} cannot be judged{note}: judge it where it can be, or answer for it with --accept-unjudged"
    return f"{gate.name} is {gate.shown}, which must be {gate.bound}{note}"
