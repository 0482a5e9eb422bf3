"""Registering, promoting and rolling back on MLflow's real embedded registry, with real bundles."""

import json
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kafka_server import free_port
from models.bundle import open_bundle
from models.gate import Bounds
from models.gate_cost import Cost
from models.holdout import holdout_path, read_holdout, write_holdout
from models.manifest import MANIFEST
from models.policy import Thresholds
from models.threshold_change import with_thresholds
from simulated_holdout import write_simulated_holdout
from state.features import StateSpec, default_feature_set, parse_feature_set
from stream import cli
from stream.errors import PromotionRefused, RegistryError, UsageError
from stream.holdout_proof import check_not_learned
from stream.model_table import compared
from stream.promotion import Office, promoter
from stream.registry import Registry, Version, register
from stream.registry_directory import Versions, manifest_sha256
from stream.scoring import first_model
from stream.secret import SecretUrl
from stream.sections import RegistrySettings
from stream.settings import load_settings
from stream.sources import Pointer
from stream.training import demo_simulation, train_simulated

SMALLER = b"""
name = "smaller"
[[feature]]
name = "amount"
aggregate = "value"
text = "{value:.0f}"
[[feature]]
name = "payments"
aggregate = "count"
window = "1h"
text = "{value:.0f}"
[[feature]]
name = "seconds"
aggregate = "seconds_since_last"
window = "30d"
text = "{value:.0f}"
[[feature]]
name = "new_device"
aggregate = "first_seen"
field = "device_id"
window = "30d"
text = "{value:.0f}"
[[feature]]
name = "ratio"
aggregate = "ratio"
window = "30d"
text = "{value:.0f}"
"""
OTHER = SMALLER.replace(b'"1h"', b'"2h"')

# What makes a model of 15 trees good is not the question here; every gate has tests of its own.
WIDE = Bounds(
    max_precision_loss=1,
    max_recall_loss=1,
    max_brier_ratio=100,
    min_slope=1e-6,
    max_slope=1e6,
    min_score_ratio=1e-6,
    max_score_ratio=1e6,
    max_decline_rate=1,
    min_decline_precision=0,
    max_honest_held_gain=1,
    max_honest_declined_gain=1,
    # Some twenty honest payments are held here.
    min_segment_honest=1,
    min_missing_share=0,
    min_noise_share=0,
    max_false_positive_ratio=1e6,
    max_amount_false_positive_ratio=1e6,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory, model_bundle):
    """A folder with bundles "a", "b" (other thresholds) and "other" (another feature set), each beside its holdout."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(model_bundle, folder / "a")
    (folder / "b").mkdir()
    for name, content in with_thresholds(
        open_bundle(folder / "a"), (folder / "a" / MANIFEST).read_bytes(), Thresholds(0.123, 0.876)
    )[1].items():
        (folder / "b" / name).write_bytes(content)
    train_simulated(folder / "other", demo_simulation(12_000, seed=8), rounds=3, feature_set=parse_feature_set(OTHER))
    sets = {"a": default_feature_set(), "b": default_feature_set(), "other": parse_feature_set(OTHER)}
    for name, feature_set in sets.items():
        write_simulated_holdout(folder / f"{name}.holdout.parquet", feature_set, StateSpec(), events=8_000, seed=9)
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A registry file with its tables, which take a second to make, and no version."""
    folder = tmp_path_factory.mktemp("registry")
    path = folder / "mlflow.db"
    assert Registry(RegistrySettings(uri=SecretUrl(f"sqlite:///{path}"))).versions() == []
    return path


@pytest.fixture
def settings(tmp_path, empty):
    """Settings of a registry of this test's own."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    return RegistrySettings(uri=SecretUrl(f"sqlite:///{tmp_path / 'mlflow.db'}"), directory=str(tmp_path / "models"))


@pytest.fixture
def office(settings, monkeypatch):
    """Promotes by wide bounds at a clock that counts; time and memory are measured in tests of their own."""
    monkeypatch.setattr("models.gates.measure", lambda *_: Cost("forest", 0.5, 0.002, 30 << 20, 512))
    ticks = iter(range(1_000, 10_000))
    return Office(Registry(settings), Versions(Path(settings.directory)), StateSpec(), WIDE, now_ms=lambda: next(ticks))


def aliases(office):
    return {alias: one.name for one in office.registry.versions() for alias in one.aliases}


def actions(office):
    return [(entry.action, entry.version, entry.by) for entry in office.versions.audit()]


# --- registering -----------------------------------------------------------------------------------------------------


def test_a_registered_version_is_an_unchanged_copy_with_its_lineage_as_tags(made, settings):
    name = register(made / "a", None, settings)
    bundle, copy = open_bundle(made / "a"), Path(settings.directory, name)
    assert name == bundle.version == open_bundle(copy).version
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in (made / "a").iterdir()
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in copy.iterdir()} == {0o444}
    version = Registry(settings).find(name)
    assert version.number == 1
    assert version.tags["manifest_sha256"] == manifest_sha256(made / "a")
    assert version.tags["feature_set"] == bundle.feature_set_hash
    assert float(version.tags["metric.average_precision"]) == bundle.metrics["average_precision"]
    assert {f"lineage.{key}" for key in bundle.lineage} <= set(version.tags)
    assert len(version.tags["parameters_sha256"]) == len(version.tags["holdout_sha256"]) == 64


def test_a_holdout_names_users_so_its_copy_is_its_owner_s_alone(made, settings):
    name = register(made / "a", None, settings)
    copy = Versions(Path(settings.directory)).holdout_path(name)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_registering_the_same_bundle_again_changes_nothing(made, settings):
    assert register(made / "a", None, settings) == register(made / "a", None, settings)
    assert len(Registry(settings).versions()) == 1
    assert [entry.action for entry in Versions(Path(settings.directory)).audit()] == ["registered"]


def test_another_holdout_for_the_same_version_is_refused(made, settings, tmp_path):
    register(made / "a", None, settings)
    other = write_simulated_holdout(tmp_path / "h.parquet", default_feature_set(), StateSpec(), events=3_000, seed=3)
    with pytest.raises(UsageError, match="was registered with another holdout"):
        register(made / "a", other, settings)


def test_a_holdout_of_another_feature_set_is_refused(made, settings):
    with pytest.raises(UsageError, match=r"holds feature set .* was trained on"):
        register(made / "a", made / "other.holdout.parquet", settings)


def shifted(path, to, days):
    """Write a holdout again, so many days earlier."""
    held = read_holdout(path)
    write_holdout(to, replace(held, times_ms=held.times_ms - round(days * 86_400_000)))
    return to


def test_a_holdout_of_days_that_the_model_learned_from_is_refused(made, settings, tmp_path):
    with pytest.raises(UsageError, match=r"begins on .*, but version .* learned from payments until"):
        register(made / "a", shifted(made / "a.holdout.parquet", tmp_path / "h.parquet", 40), settings)
    assert Registry(settings).versions() == []


def test_within_its_own_history_only_the_bundle_s_own_holdout_is_taken(made, model_bundle, settings, tmp_path):
    own = holdout_path(model_bundle)
    held = read_holdout(own)
    other = replace(held, labels=1 - held.labels)
    write_holdout(tmp_path / "other.parquet", other)
    with pytest.raises(UsageError, match="holds other payments than were held out"):
        register(made / "a", tmp_path / "other.parquet", settings)
    # Begins a day before what was held out, as a training with a longer holdout writes it.
    with pytest.raises(UsageError, match="learned from payments until"):
        register(made / "a", shifted(own, tmp_path / "longer.parquet", 1), settings)
    name = register(made / "a", own, settings)
    assert Registry(settings).find(name).tags["holdout_sha256"]


def test_a_bundle_that_does_not_say_what_it_learned_from_has_no_holdout(made, settings, tmp_path):
    bundle = open_bundle(made / "a")
    held = read_holdout(made / "a.holdout.parquet")
    with pytest.raises(UsageError, match="does not say which days it learned from"):
        check_not_learned(tmp_path, held, replace(bundle, lineage={}))


def test_a_version_s_name_and_its_number_both_find_it_and_the_nearest_name_is_said(made, settings):
    name = register(made / "a", None, settings)
    registry = Registry(settings)
    assert registry.find("1") == registry.find(name)
    with pytest.raises(UsageError, match=f"there is no version {name[:-1]}; did you mean {name}"):
        registry.find(name[:-1])


# --- promoting -------------------------------------------------------------------------------------------------------


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
    assert office.versions.audit()[-1].replaced == first
    assert [gate.name for gate in office.versions.audit()[-1].gates] == [
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
    assert note.startswith(f"Workers whose state is as configured cannot take {first}: ")


def test_a_holdout_read_before_is_said(made, settings, office):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    assert office.promote(first, "Ada").notes == []
    other = office.promote(second, "Ada", challenger=True)
    assert [note.split(":")[0] for note in other.notes] == ["The holdout was read for 1 other version before"]
    again = office.promote(second, "Ada")
    assert again.notes[0].startswith(f"The holdout was read for {second} before")


def test_what_cannot_be_judged_is_promoted_only_where_somebody_answers_for_it(made, settings, office):
    name = register(made / "a", None, settings)
    unsure = replace(office, bounds=replace(WIDE, min_segment_honest=10**6))
    with pytest.raises(PromotionRefused, match=r"by country cannot be judged .*--accept-unjudged"):
        unsure.promote(name, "Ada")
    assert office.registry.find(name).tags["gates.verdict"] == "not judged"
    assert office.versions.pointer() is None
    assert unsure.promote(name, "Ada", accept_unjudged=True).version == name
    assert [(entry.action, entry.unjudged_accepted) for entry in office.versions.audit()[1:]] == [
        ("refused", False),
        ("promoted", True),
    ]


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


# --- feature sets ----------------------------------------------------------------------------------------------------


def test_a_set_that_needs_other_fields_is_refused_with_the_way_to_warm_it(made, settings, office):
    name = register(made / "a", None, settings)
    narrow = replace(office, spec=StateSpec(fields=("merchant_id",), retention_ms=7 * 86_400_000))
    with pytest.raises(PromotionRefused, match=r"features that the kept state lacks is .*--recovery rebuild"):
        narrow.promote(name, "Ada")


def test_another_feature_set_is_compared_on_the_champion_s_own_features_of_the_same_payments(made, settings, office):
    first, other = register(made / "a", None, settings), register(made / "other", None, settings)
    office.promote(first, "Ada")
    with pytest.raises(PromotionRefused, match="features of the champion's that the holdout lacks"):
        office.promote(other, "Ada")
    done = office.promote(other, "Ada", champion_holdout=made / "a.holdout.parquet")
    figures = {gate.name: gate for gate in done.gates}
    own = json.loads(office.registry.find(first).tags["gates"])
    precision = next(gate["value"] for gate in own if gate["name"] == "average precision")
    assert f"against {precision:.4f}" in figures["average precision less the champion's"].note


def test_a_champion_whose_features_the_holdout_has_under_other_names_needs_no_more(made):
    from stream.judged import opponent

    held = read_holdout(made / "a.holdout.parquet")
    bundle = open_bundle(made / "a")
    renamed = SMALLER.replace(b'"payments"', b'"how_many"')
    found = opponent(replace(bundle, files={"features.toml": renamed}), held, default_feature_set(), None)
    places = [held.feature_names.index(name) for name in ("amount", "count_1h", "seconds_since_last")]
    assert (found.champion.features[:, :2] == held.features[:, places[:2]]).all()
    assert found.champion.features.shape == (len(held.labels), 5)


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_other_thresholds_are_a_version_of_their_own_with_the_same_models(made, settings, office):
    parent = register(made / "a", None, settings)
    office.promote(parent, "Ada")
    done = office.change_thresholds(parent, Thresholds(0.25, 0.75), "Bob")
    old, new = (open_bundle(office.versions.path(name)) for name in (parent, done.version))
    assert new.thresholds == Thresholds(0.25, 0.75)
    assert new.lineage["parent"] == parent
    assert {name: new.files[name] for name in old.files if name != "card.md"} == {
        name: old.files[name] for name in old.files if name != "card.md"
    }
    assert not [name for name in new.metrics if name.startswith(("review_", "decline_"))]
    assert office.registry.find(done.version).tags["parent"] == parent
    assert aliases(office) == {"champion": done.version, "previous": parent}
    assert actions(office)[-2:] == [("thresholds", done.version, "Bob"), ("promoted", done.version, "Bob")]
    less = {gate.name: gate.value for gate in done.gates if "champion" in gate.name and "less" in gate.name}
    # The same models rank alike, whatever the thresholds; what these hold may differ.
    assert [value for name, value in less.items() if "honest" not in name] == [0.0, 0.0]


def test_thresholds_are_gated_and_the_same_ones_are_no_change(made, settings, office):
    parent = register(made / "a", None, settings)
    office.promote(parent, "Ada")
    with pytest.raises(PromotionRefused, match=r"frauds held is 0, which must be ≥ 0.1"):
        office.change_thresholds(parent, Thresholds(1.0, 1.0), "Bob")
    old = open_bundle(made / "a").thresholds
    with pytest.raises(UsageError, match=r"has the thresholds .* already"):
        office.change_thresholds(parent, old, "Bob")
    assert office.versions.pointer().version == parent


def test_a_card_says_whose_figures_it_holds(made):
    bundle = open_bundle(made / "a")
    files = {**bundle.files, "card.md": b"# Card\n"}
    changed, _ = with_thresholds(
        replace(bundle, files=files), (made / "a" / MANIFEST).read_bytes(), Thresholds(0.25, 0.75)
    )
    assert changed.files["card.md"].startswith(f"> Version {bundle.version} with other thresholds".encode())
    assert changed.files["card.md"].endswith(b"# Card\n")


# --- surroundings ----------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_answer_is_one_sentence_soon(settings):
    uri = SecretUrl(f"http://user:secret@127.0.0.1:{free_port()}")
    registry = Registry(msgspec.structs.replace(settings, uri=uri))
    with pytest.raises(RegistryError, match=r"correct registry.uri, or start the server") as caught:
        registry.versions()
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_registry_is_one_sentence(settings, tmp_path):
    (tmp_path / "no.db").write_bytes(b"not SQLite at all" * 100)
    registry = Registry(msgspec.structs.replace(settings, uri=SecretUrl(f"sqlite:///{tmp_path / 'no.db'}")))
    with pytest.raises(RegistryError, match=r"correct registry.uri"):
        registry.versions()


def test_a_directory_that_cannot_be_written_is_one_sentence(made, settings, tmp_path):
    (tmp_path / "models").write_text("a file stands in the way")
    with pytest.raises(RegistryError, match=r"cannot be written .*: correct registry.directory"):
        register(made / "a", None, settings)
    assert Registry(settings).versions() == []


def test_a_pointer_that_is_none_is_one_sentence(settings, office):
    Path(settings.directory).mkdir()
    Path(settings.directory, "champion.json").write_text("{}")
    with pytest.raises(RegistryError, match="is no pointer to a version"):
        office.rollback("Ada")


def test_the_gates_bounds_are_the_settings():
    settings = load_settings(None, {})
    assert promoter(settings).bounds == Bounds()
    changed = load_settings(None, {}, {"registry.gates.min_frauds": 7, "registry.gates.max_memory_bytes": "1MiB"})
    assert promoter(changed).bounds == Bounds(min_frauds=7, max_memory_bytes=1 << 20)


# --- the verbs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(settings, monkeypatch, capsys):
    """run("promote", …) runs `fraudstream models …` here and returns its exit code and what it printed."""
    monkeypatch.setattr("models.gates.measure", lambda *_: Cost("forest", 0.5, 0.002, 30 << 20, 512))
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__URI", settings.uri.reveal())
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__DIRECTORY", settings.directory)
    for name in (
        *("max_brier_ratio", "max_precision_loss", "max_recall_loss"),
        *("max_slope", "max_false_positive_ratio", "max_score_ratio"),
    ):
        monkeypatch.setenv(f"FRAUDSTREAM_REGISTRY__GATES__{name.upper()}", "100")
    for name in ("max_decline_rate", "max_honest_held_gain", "max_honest_declined_gain"):
        monkeypatch.setenv(f"FRAUDSTREAM_REGISTRY__GATES__{name.upper()}", "1")
    for name in ("min_missing_share", "min_noise_share", "min_decline_precision"):
        monkeypatch.setenv(f"FRAUDSTREAM_REGISTRY__GATES__{name.upper()}", "0")
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__GATES__MIN_SLOPE", "0.01")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["fraudstream", "models", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return ended.value.code, printed.out, printed.err

    return run


def test_figures_of_different_holdouts_are_said_not_to_compare_two_versions():
    def version(holdout):
        return Version(1, f"v-{holdout}", 0, {"holdout_sha256": holdout, "metric.auc_roc": "0.7"})

    assert list(compared(version("a"), version("b")))[-1].startswith("Note: Each version's metrics are of its own")
    assert not any(line.startswith("Note") for line in compared(version("a"), version("a")))


def test_the_whole_way_from_a_bundle_to_a_rollback(made, run):
    assert "No version is registered" in run("list")[1]
    versions = [run("register", made / name)[1].split(":")[0] for name in ("a", "b")]
    for version in versions:
        code, out, err = run("promote", version, "--approve", "Ada")
        assert (code, err) == (0, "")
        assert f"{version}: champion" in out
        assert "FAIL" not in out
    assert run("list")[1].count("passed") == 2
    _, out, _ = run("show", versions[1])
    assert "approved by" in out
    assert "rows with a leaf of another tree path" in out
    _, out, _ = run("compare", *versions)
    assert out.count("average_precision") >= 1
    assert "gate: events held" in out
    code, out, _ = run("thresholds", versions[1], "--review", "0.2", "--decline", "0.8", "--approve", "Bob")
    assert code == 0
    changed = out.splitlines()[-1].split(":")[0]
    assert run("rollback", "--approve", "Ada")[1] == f"{versions[1]}: champion again, in place of {changed}\n"
    assert run("rollback", "--approve", "Ada")[1] == f"{versions[0]}: champion again, in place of {versions[1]}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("promote", "v"), "say who approves with --approve NAME"),
        (("promote", "v", "--approve", " "), "say who approves with --approve NAME"),
        (("rollback",), "say who approves with --approve NAME"),
        (("thresholds", "v", "--review", "0.2", "--decline", "0.8"), "say who approves with --approve NAME"),
        (("thresholds", "v", "--review", "0.9", "--decline", "0.8", "--approve", "A"), "0 < review <= decline <= 1"),
        (("promote", "v", "--approve", "A"), "There is no version v: none is registered yet"),
        (("show", "v"), "There is no version v"),
        (("compare", "v", "w"), "There is no version v"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, args, says):
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert says in err


def test_a_failed_gate_prints_the_table_and_ends_with_exit_code_1(made, run, monkeypatch):
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__GATES__MIN_FRAUDS", "100000")
    version = run("register", made / "a")[1].split(":")[0]
    code, out, err = run("promote", version, "--approve", "Ada")
    assert code == 1
    assert "FAIL" in out
    assert "frauds in the holdout is 1" in err
    assert "which must be ≥ 100,000" in err


def test_a_pointer_and_a_registry_that_disagree_are_said(made, run, settings):
    version = run("register", made / "a")[1].split(":")[0]
    run("promote", version, "--approve", "Ada")
    Path(settings.directory, "champion.json").unlink()
    assert f"Workers follow no version, but the registry's champion is {version}" in run("list")[2]
