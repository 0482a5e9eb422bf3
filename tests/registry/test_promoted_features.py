"""A version of other features is judged on the champion's own, and refused where workers would refuse it."""

import json
from dataclasses import replace

import pytest
from registry_cases import OTHER, SMALLER

from models.bundle import open_bundle
from models.folds import DAY_MS
from models.holdout import read_holdout
from state.features import StateSpec, default_feature_set, parse_feature_set
from stream.errors import PromotionRefused
from stream.holdout_proof import learned_until_ms
from stream.judged import declared_gate, opponent
from stream.promotion import promoter
from stream.registry import register
from stream.settings import load_settings


def test_a_set_that_needs_other_fields_is_refused_with_the_way_to_warm_it(made, settings, office):
    name = register(made / "a", None, settings)
    narrow = replace(office, spec=StateSpec(fields=("merchant_id",), retention_ms=7 * DAY_MS))
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
    held = read_holdout(made / "a.holdout.parquet")
    bundle = open_bundle(made / "a")
    renamed = SMALLER.replace(b'"payments"', b'"how_many"')
    found = opponent(replace(bundle, files={"features.toml": renamed}), held, default_feature_set(), None)
    places = [held.feature_names.index(name) for name in ("amount", "count_1h", "seconds_since_last")]
    assert (found.champion.features[:, :2] == held.features[:, places[:2]]).all()
    assert found.champion.features.shape == (len(held.labels), 5)


def test_a_set_that_the_settings_forbid_is_refused_here_and_not_by_every_worker_later(made, settings, office, tmp_path):
    (tmp_path / "other.toml").write_bytes(OTHER)
    declaring = load_settings(None, {}, {"state.feature_set": str(tmp_path / "other.toml")})
    strict = replace(office, declared=promoter(declaring).declared)
    first = register(made / "a", None, settings)
    with pytest.raises(PromotionRefused, match=r"state.feature_set names smaller \(.*no worker would take the version"):
        strict.promote(first, "Ada", accept_unjudged=True)
    assert office.versions.pointer() is None
    assert declared_gate(parse_feature_set(OTHER), strict.declared)[0].passed
    assert declared_gate(parse_feature_set(OTHER), promoter(load_settings(None, {})).declared) == []


def test_rolling_back_to_a_set_that_the_settings_forbid_is_told(made, settings, office):
    first, second = register(made / "a", None, settings), register(made / "b", None, settings)
    office.promote(first, "Ada")
    office.promote(second, "Ada")
    (note,) = replace(office, declared=parse_feature_set(OTHER)).rollback("Bob").notes
    assert note.startswith(f"Workers with these settings cannot take {first}: ")


def test_how_much_of_a_holdout_a_champion_learned_from_is_counted_by_its_days(made, tmp_path):
    held, champion = read_holdout(made / "a.holdout.parquet"), open_bundle(made / "a")
    assert opponent(champion, held, default_feature_set(), None).gates == ()
    # As far back as the month that it was trained on; its last days were held out.
    earlier = replace(held, times_ms=held.times_ms - 31 * DAY_MS)
    found = opponent(champion, earlier, default_feature_set(), None)
    assert found.champion is None
    assert found.gates[0].value == (earlier.times_ms < learned_until_ms(champion)).sum() > 0
    untold = opponent(replace(champion, lineage={}), held, default_feature_set(), None)
    assert (untold.champion, untold.gates[0].value) == (None, None)
    assert "does not say which days it learned from" in untold.gates[0].note
