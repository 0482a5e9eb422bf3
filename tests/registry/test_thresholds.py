"""Other thresholds are a version of their own, with the same models and figures of its own."""

import shutil
from dataclasses import replace

import pytest
from registry_cases import actions, aliases

from models.bundle import open_bundle
from models.ensemble import load_engine
from models.holdout import read_holdout
from models.manifest import MANIFEST
from models.metrics import at_threshold, auc_roc
from models.policy import Thresholds
from models.threshold_change import with_thresholds
from stream.errors import PromotionRefused, UsageError
from stream.registry import register


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


def test_figures_at_changed_thresholds_are_computed_anew_on_the_registered_holdout(made, settings, office):
    parent = register(made / "a", None, settings)
    done = office.change_thresholds(parent, Thresholds(0.25, 0.75), "Bob")
    new = open_bundle(office.versions.path(done.version))
    held = read_holdout(made / "a.holdout.parquet")
    scores = load_engine(new).score(held.features)
    for outcome, threshold in (("review", 0.25), ("decline", 0.75)):
        for figure, value in at_threshold(scores, held.labels, threshold).items():
            assert new.metrics[f"{outcome}_{figure}"] == value
    # All of the same payments: the registered holdout need not be the one that was written when it was trained.
    assert (new.metrics["events"], new.metrics["frauds"]) == (len(held.labels), held.labels.sum())
    assert new.metrics["auc_roc"] == auc_roc(scores, held.labels)


def test_nothing_is_said_of_the_folds_at_thresholds_that_they_were_not_judged_at(made):
    bundle, manifest = open_bundle(made / "a"), (made / "a" / MANIFEST).read_bytes()
    assert "out_of_fold_review_rate" in bundle.metrics
    for held in (None, read_holdout(made / "a.holdout.parquet")):
        changed, _ = with_thresholds(bundle, manifest, Thresholds(0.25, 0.75), held)
        assert not [
            name for name in changed.metrics if name.startswith(("out_of_fold_review_", "out_of_fold_decline_"))
        ]
        assert changed.metrics["out_of_fold_auc_roc"] == bundle.metrics["out_of_fold_auc_roc"]
        assert ("review_recall" in changed.metrics) == (held is not None)


def test_without_a_holdout_thresholds_cannot_be_changed(made, settings, office, tmp_path):
    shutil.copytree(made / "a", tmp_path / "alone")
    parent = register(tmp_path / "alone", None, settings)
    with pytest.raises(UsageError, match="has no holdout to be judged on"):
        office.change_thresholds(parent, Thresholds(0.25, 0.75), "Bob")
    assert len(office.registry.versions()) == 1
