"""Other thresholds are a version of their own, with the same models and figures of its own."""

from dataclasses import replace

import pytest
from registry_cases import actions, aliases

from models.bundle import open_bundle
from models.manifest import MANIFEST
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
