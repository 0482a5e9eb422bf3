"""Promoting and rolling back on MLflow's real embedded registry, with real bundles."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from registry_cases import WIDE, actions, aliases, audit

from models.errors import NoCudaError
from models.gate import Bounds
from models.manifest import MANIFEST
from state.features import StateSpec
from stream.errors import PromotionRefused, RegistryError, UsageError
from stream.model_table import details
from stream.registry import Registry, register
from stream.registry_directory import Versions, manifest_sha256
from stream.scoring import first_model
from stream.secret import SecretUrl
from stream.settings import load_settings
from stream.sources import Pointer


def test_a_promotion_names_the_version_to_workers_in_the_registry_and_on_record(made, settings, office):
    first = register(made / "a", None, settings)
    done = office.promote(first, "Ada")
    assert (done.version, done.replaced) == (first, "")
    assert json.loads(Path(settings.directory, "champion.json").read_bytes()) == {
        "version": first,
        "manifest_sha256": manifest_sha256(Path(settings.directory, first)),
        "approved_by": "Ada",
        "at": office.versions.pointer().at_ms,
    }
    assert aliases(office) == {"champion": first}
    following = load_settings(None, {}, {"model.follow": settings.directory, "model.cache": f"{settings.directory}/c"})
    assert first_model(following).scoring.model == first
    second = register(made / "b", None, settings)
    assert office.promote(second, "Bob").replaced == first
    assert aliases(office) == {"champion": second, "previous": first}
    assert office.versions.pointer().version == second
    assert actions(office) == [
        ("registered", first, ""),
        ("promoted", first, "Ada"),
        ("registered", second, ""),
        ("promoted", second, "Bob"),
    ]
    assert audit(office.versions.directory)[-1].replaced == first
    assert [gate.name for gate in audit(office.versions.directory)[-1].gates] == [
        gate["name"] for gate in json.loads(office.registry.find(second).tags["gates"])
    ]


def test_a_failed_gate_refuses_by_figure_and_bound_and_changes_nothing_that_workers_see(made, settings, office):
    first = register(made / "a", None, settings)
    office.promote(first, "Ada")
    second = register(made / "b", None, settings)
    strict = replace(office, bounds=replace(WIDE, max_held_rate=1e-9))
    shown = []
    with pytest.raises(PromotionRefused, match=r"events held is 0\.\d+, which must be ≤ 1e-09"):
        strict.promote(second, "Bob", show=shown.append)
    assert [gate.name for gate in shown[0].gates if not gate.passed] == ["events held"]
    assert office.versions.pointer().version == first
    assert aliases(office) == {"champion": first}
    assert actions(office)[-1] == ("refused", second, "Bob")
    assert office.registry.find(second).tags["gates.verdict"] == "failed"


def test_the_champion_cannot_be_promoted_again(made, settings, office):
    name = register(made / "a", None, settings)
    office.promote(name, "Ada")
    for challenger in (False, True):
        with pytest.raises(UsageError, match="is the champion already"):
            office.promote(name, "Ada", challenger=challenger)


def test_a_challenger_passes_the_gates_and_workers_do_not_follow_it(made, settings, office):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    office.promote(first, "Ada")
    office.promote(second, "Ada", challenger=True)
    assert aliases(office) == {"champion": first, "challenger": second}
    assert office.versions.pointer().version == first
    office.promote(second, "Ada")
    assert aliases(office) == {"champion": second, "previous": first}


def test_rolling_back_walks_back_through_the_champions_without_gates(made, settings, office):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    with pytest.raises(UsageError, match="nothing to roll back"):
        office.rollback("Ada")
    office.promote(first, "Ada")
    with pytest.raises(UsageError, match="first champion"):
        office.rollback("Ada")
    office.promote(second, "Ada")
    impossible = replace(office, bounds=Bounds(min_frauds=10**9))
    assert impossible.rollback("Bob").version == first
    assert office.versions.pointer() == Pointer(
        first, manifest_sha256(Path(settings.directory, first)), "Bob", office.versions.pointer().at_ms
    )
    assert aliases(office) == {"champion": first}
    assert actions(office)[-1] == ("rolled_back", first, "Bob")
    office.promote(second, "Ada")
    assert aliases(office) == {"champion": second, "previous": first}


def test_rolling_back_twice_never_puts_back_what_was_rolled_back_from(made, settings, office):
    """promoted:  a, b, a        rolled back:  to b, and then there is none before it"""
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    for name in (first, second, first):
        office.promote(name, "Ada")
    assert office.rollback("Bob").version == second
    assert aliases(office) == {"champion": second}
    with pytest.raises(UsageError, match="first champion"):
        office.rollback("Bob")


def test_a_crash_before_the_pointer_is_mended_by_promoting_again(made, settings, office, monkeypatch):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    office.promote(first, "Ada")

    def crash(*_):
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(Versions, "write_pointer", crash)
        with pytest.raises(RuntimeError):
            office.promote(second, "Ada")
    assert aliases(office)["champion"] == second
    assert office.versions.pointer().version == first
    office.promote(second, "Ada")
    assert office.versions.pointer().version == second
    assert aliases(office) == {"champion": second, "previous": first}
    assert office.rollback("Ada").version == first


def test_a_first_promotion_that_lost_its_pointer_is_mended_by_promoting_again(made, settings, office):
    """By a crash before the last step, or with the file itself: the registry has a champion that no worker follows."""
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    office.promote(first, "Ada")
    Path(settings.directory, "champion.json").unlink()
    assert office.promote(first, "Ada").version == first
    assert office.versions.pointer().version == first
    with pytest.raises(UsageError, match="first champion"):
        office.rollback("Ada")
    assert office.promote(second, "Ada").replaced == first
    Path(settings.directory, "champion.json").unlink()
    office.promote(second, "Ada")
    assert office.rollback("Ada").version == first


def test_a_champion_that_a_fresh_registry_does_not_know_is_named_with_the_way_back(
    made, settings, office, empty, tmp_path
):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    office.promote(first, "Ada")
    shutil.copy(empty, tmp_path / "fresh.db")
    fresh = msgspec.structs.replace(settings, uri=SecretUrl(f"sqlite:///{tmp_path / 'fresh.db'}"))
    lost = replace(office, registry=Registry(fresh))
    register(made / "b", None, fresh)
    for act in (lambda: lost.promote(second, "Bob"), lambda: lost.rollback("Bob")):
        with pytest.raises(RegistryError, match=rf"Workers follow {first}, .* models register \S*{first}, or"):
            act()
    register(lost.versions.path(first), lost.versions.holdout_path(first), fresh)
    assert lost.promote(second, "Bob").replaced == first


def test_rolling_back_to_features_that_the_state_lacks_is_told(made, settings, office):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    office.promote(first, "Ada")
    office.promote(second, "Ada")
    narrow = replace(office, spec=StateSpec(fields=("merchant_id",), retention_ms=7 * 86_400_000))
    (note,) = narrow.rollback("Bob").notes
    assert note.startswith(f"Workers with these settings cannot take {first}: ")


def test_a_holdout_read_before_is_said(made, settings, office):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    assert office.promote(first, "Ada").notes == []
    other = office.promote(second, "Ada", challenger=True)
    assert [note.split(":")[0] for note in other.notes] == ["The holdout was read for 1 other version before"]
    again = office.promote(second, "Ada")
    assert again.notes[0].startswith(f"The holdout was read for {second} before")


def test_a_holdout_read_before_is_said_though_its_file_is_another(made, settings, office, tmp_path):
    first = register(made / "a", None, settings)
    pq.write_table(pq.read_table(made / "b.holdout.parquet"), tmp_path / "again.parquet", compression="zstd")
    second = register(made / "b", tmp_path / "again.parquet", settings)
    office.promote(first, "Ada")
    (note,) = office.promote(second, "Ada", challenger=True).notes
    assert note.startswith("The holdout was read for 1 other version before")


def test_what_cannot_be_judged_is_promoted_only_where_somebody_answers_for_it(made, settings, office):
    name = register(made / "a", None, settings)
    unsure = replace(office, bounds=replace(WIDE, min_segment_honest=10**6))
    with pytest.raises(PromotionRefused, match=r"by country cannot be judged .*--accept-unjudged"):
        unsure.promote(name, "Ada")
    assert office.registry.find(name).tags["gates.verdict"] == "not judged"
    assert office.versions.pointer() is None
    assert unsure.promote(name, "Ada", accept_unjudged=True).version == name
    assert [(entry.action, entry.unjudged_accepted) for entry in audit(office.versions.directory)[1:]] == [
        ("refused", False),
        ("promoted", True),
    ]
    assert ["unjudged", "accepted", "by", "Ada"] in [line.split() for line in details(office.registry.find(name), "")]


def test_without_a_holdout_nothing_is_promoted(made, settings, office, tmp_path):
    shutil.copytree(made / "a", tmp_path / "alone")
    name = register(tmp_path / "alone", None, settings)
    with pytest.raises(UsageError, match="has no holdout to be judged on"):
        office.promote(name, "Ada")
    register(tmp_path / "alone", made / "a.holdout.parquet", settings)
    assert office.promote(name, "Ada").version == name


@pytest.mark.parametrize("what", ["xgboost.json", MANIFEST, "holdout"])
def test_an_altered_copy_is_refused(made, settings, office, what):
    name = register(made / "a", None, settings)
    path = office.versions.holdout_path(name) if what == "holdout" else office.versions.path(name) / what
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Exception, match=r"altered|damaged|is not the one registered"):
        office.promote(name, "Ada")
    assert office.versions.pointer() is None


def test_a_sound_bundle_under_another_s_name_is_refused(made, settings, office):
    name = register(made / "a", None, settings)
    path = office.versions.path(name)
    shutil.rmtree(path)
    shutil.copytree(made / "b", path)
    with pytest.raises(RegistryError, match="is not the bundle that was registered"):
        office.promote(name, "Ada")


def test_workers_on_a_gpu_get_their_version_from_a_machine_without_one_on_somebody_s_word(
    made, settings, office, monkeypatch
):
    def absent(*_):
        raise NoCudaError("The engine gpu needs CUDA")

    monkeypatch.setattr("models.gates.load_engine", absent)
    name = register(made / "a", None, settings)
    for_gpu = replace(office, engine="gpu")
    with pytest.raises(PromotionRefused, match=r"engine gpu was not measured here, .*--accept-unjudged"):
        for_gpu.promote(name, "Ada")
    done = for_gpu.promote(name, "Ada", accept_unjudged=True)
    assert office.versions.pointer().version == name
    assert audit(office.versions.directory)[-1].unjudged_accepted
    assert {gate.name for gate in done.gates if not gate.passed} == {
        "milliseconds a batch of 512",
        "MiB resident after loading",
    }


def test_a_champion_that_learned_from_the_holdout_is_no_measure_there_and_that_is_said(
    made, settings, office, monkeypatch
):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    office.promote(first, "Ada")
    monkeypatch.setattr("stream.judged.learned_from", lambda *_: 17)
    with pytest.raises(PromotionRefused, match=rf"{first} learned from days of this holdout: no measure here"):
        office.promote(second, "Ada")
    done = office.promote(second, "Ada", accept_unjudged=True)
    named = {gate.name: gate for gate in done.gates}
    assert named["payments that the champion learned from"].value == 17
    assert named["payments that the champion learned from"].verdict == "not judged"
    # As of a first version: floors, and nothing less the champion's.
    assert "average precision" in named
    assert not [name for name in named if "less the champion" in name]
