"""A decision is found in the logs, computed again to the bit by the model that made it, and explained."""

import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import lightgbm
import msgspec
import numpy as np
import orjson
import pytest
import xgboost
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END

from decided import START_MS, vectors
from models.bundle import open_bundle
from models.ensemble import load_engine
from models.errors import BundleError
from models.forest import parse_lightgbm, parse_xgboost
from models.manifest import ONNX
from models.onnx_graph import ensemble_graph
from models.policy import Thresholds
from models.reasons import Explainer
from state.events import currency_code
from stream.decision_search import Decided, FoundDecision, Wanted
from stream.errors import FraudstreamError, UsageError
from stream.explain import explain, find_bundle, search
from stream.explain_table import as_json, as_lines
from stream.feature_log import FeatureLog
from stream.feature_search import FeatureRow, find_features
from stream.judge import EnsembleJudge
from stream.murmur2 import partition_of
from stream.settings import load_settings
from stream.versions import version_places


@pytest.fixture(scope="module")
def bundle(four_versions):
    return open_bundle(four_versions / "v1")


def decision_of(bundle, values, engine="forest", **more):
    """The decision and feature row a worker would have left of these values."""
    score = load_engine(bundle, engine).score(values.reshape(1, -1))[0]
    known = {
        "transaction_id": "t-1",
        "user_id": "u-1",
        "decision": "approve",
        "score": orjson.loads(orjson.dumps(score, option=orjson.OPT_SERIALIZE_NUMPY)),
        "model": bundle.version,
        "engine": engine,
        "feature_set": bundle.feature_set_hash,
        "event_time": START_MS,
        "scored_at": START_MS,
        "partition": 2,
        "offset": 7,
    }
    row = FeatureRow(bundle.feature_names, bundle.feature_set_hash, values)
    return FoundDecision(Decided(**(known | more)), START_MS), row


# --- what is explained -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["forest", "onnx"])
def test_contributions_are_the_libraries_own_and_add_up_to_the_score(bundle, engine):
    first = xgboost.Booster({"nthread": 1}, model_file=bytearray(bundle.xgboost))
    second = lightgbm.Booster(model_str=bundle.lightgbm)
    for values in vectors(20, seed=9):
        found, row = decision_of(bundle, values, engine)
        explained = explain([found], row, bundle)
        parts = (
            bundle.meta.xgboost * first.predict(xgboost.DMatrix(values[None]), pred_contribs=True)[0]
            + bundle.meta.lightgbm * second.predict(values[None], pred_contrib=True, num_threads=1)[0]
        )
        own = {one.feature: one.contribution for one in explained.contributions}
        np.testing.assert_allclose([own[name] for name in bundle.feature_names], parts[:-1], rtol=0, atol=1e-5)
        assert explained.bias == pytest.approx(bundle.meta.bias + parts[-1], abs=1e-5)
        score = 1 / (1 + math.exp(-explained.log_odds))
        assert score == pytest.approx(found.decided.score, rel=2e-5)


def test_a_score_that_is_not_had_again_is_an_error_with_both_numbers(bundle):
    found, row = decision_of(bundle, vectors(1, seed=4)[0])
    near = float(np.nextafter(np.float32(found.decided.score), np.float32(1)))
    other = replace(found, decided=decision_of(bundle, row.values, score=near)[0].decided)
    with pytest.raises(FraudstreamError) as raised:
        explain([other], row, bundle)
    assert repr(near) in str(raised.value)
    assert repr(float(np.float32(found.decided.score))) in str(raised.value)
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("engine", ["forest", "onnx"])
@pytest.mark.parametrize("bias", [-300.0, -30.0, -12.0, 0.0, 12.0, 30.0])
def test_however_near_to_0_or_1_a_score_is_its_parts_add_up_to_it(bundle, engine, bias):
    meta = replace(bundle.meta, bias=bias)
    forests = parse_xgboost(bundle.xgboost), parse_lightgbm(bundle.lightgbm)
    far = replace(bundle, meta=meta, files={**bundle.files, ONNX: ensemble_graph(*forests, meta)})
    for values in vectors(5, seed=6):
        found, row = decision_of(far, values, engine)
        assert explain([found], row, far).bias == pytest.approx(bias, abs=10)


@pytest.mark.parametrize("error", [1e-3, -1e-3])
def test_parts_that_do_not_add_up_are_not_shown(bundle, monkeypatch, error):
    right = Explainer.explain

    def wrong(self, x):
        parts, bias = right(self, x)
        return parts, bias + error

    monkeypatch.setattr(Explainer, "explain", wrong)
    found, row = decision_of(bundle, vectors(1, seed=4)[0])
    with pytest.raises(FraudstreamError, match="The contributions add up to a score of"):
        explain([found], row, bundle)


def test_a_constant_score_has_nothing_to_explain(bundle, monkeypatch):
    found, _ = decision_of(bundle, vectors(1, seed=4)[0])
    constant = replace(found, decided=msgspec.structs.replace(found.decided, engine="constant", model="constant"))
    monkeypatch.setattr("stream.explain.find_decisions", lambda *_: [constant])
    with pytest.raises(FraudstreamError, match=r"constant score by .*: there is nothing to explain"):
        search(load_settings(None, {}), Wanted("t-1"))


def test_another_model_under_the_same_version_is_refused(bundle):
    found, row = decision_of(bundle, vectors(1, seed=4)[0])
    with pytest.raises(FraudstreamError, match="another model under the same version"):
        explain([found], replace(row, feature_set="0123"), bundle)


def test_the_table_holds_every_feature_and_the_way_to_the_score(bundle):
    found, row = decision_of(bundle, vectors(1, seed=4)[0], flags=["late"])
    explained = explain([found, found], row, bundle)
    lines = list(as_lines(explained))
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in bundle.feature_names)
    assert "[late]" in lines[1]
    amounts = {line.split()[0]: line.split()[1] for line in lines if line.startswith(("sum", "bias", "log-odds"))}
    assert float(amounts["sum"]) + float(amounts["bias"]) == pytest.approx(float(amounts["log-odds"]), abs=2e-4)
    assert sum(line.startswith("  partition 2, offset 7") for line in lines) == 2


@pytest.mark.parametrize(
    ("others", "hint"),
    [
        ([{"offset": 9}], "; --partition and --offset say which to explain:"),
        ([{"model": "v2"}], "; from one place, so --model VERSION says which to explain:"),
        ([{"offset": 9}, {"model": "v2"}], "and of one place --model VERSION, say which to explain:"),
        ([{}], "; from one place by one version, so the first written is explained:"),
    ],
)
def test_a_decision_made_more_than_once_says_how_to_ask_for_each(bundle, others, hint):
    found, row = decision_of(bundle, vectors(1, seed=4)[0])
    repeats = [replace(found, decided=msgspec.structs.replace(found.decided, **other)) for other in others]
    lines = list(as_lines(explain([found, *repeats], row, bundle)))
    assert next(line for line in lines if "more than once" in line).endswith(hint)


@pytest.mark.parametrize(("version", "first"), [(None, "v1"), ("v2", "v2"), ("v3", "v1")])
def test_among_repeats_of_one_place_the_version_asked_for_comes_first(bundle, monkeypatch, version, first):
    found, row = decision_of(bundle, vectors(1, seed=4)[0], model="v1")
    repeat = replace(found, decided=msgspec.structs.replace(found.decided, model="v2"))
    monkeypatch.setattr("stream.explain.find_decisions", lambda *_: [found, repeat])
    monkeypatch.setattr("stream.explain.find_features", lambda *_, **__: row)
    monkeypatch.setattr("stream.explain.find_currency", lambda *_: 0)
    every, _, _ = search(load_settings(None, {}), Wanted("t-1"), version=version)
    assert every[0].decided.model == first
    assert {one.decided.model for one in every} == {"v1", "v2"}


def test_json_says_the_same_and_holds_no_number_that_json_has_not(bundle):
    values = vectors(1, seed=4)[0]
    values[0] = np.nan
    found, row = decision_of(bundle, values)
    explained = explain([found], row, bundle)
    read = orjson.loads(orjson.dumps(as_json(explained)))
    assert read["bias"] + read["sum"] == pytest.approx(read["log_odds"], abs=1e-12)
    assert sum(one["contribution"] for one in read["contributions"]) == pytest.approx(read["sum"], abs=1e-12)
    by_name = {one["feature"]: one["value"] for one in read["contributions"]}
    assert by_name[bundle.feature_names[0]] is None
    assert by_name[bundle.feature_names[1]] == float(values[1])


def test_reasons_say_amounts_in_each_payments_own_currency(bundle):
    judge = EnsembleJudge(load_engine(bundle, "forest"), Thresholds(1e-6, 1.0), Explainer(bundle))
    currencies = np.array([currency_code("EUR"), currency_code("JPY"), 0], np.uint16)
    x = np.repeat(vectors(1, seed=4), 3, axis=0)
    x[:, bundle.feature_names.index("amount")] = 1_234_567.0
    reasons = judge.judge(x, currencies).reasons
    texts = [next(why.text for why in reasons[row] if why.feature == "amount") for row in range(3)]
    assert texts == [
        "this payment is 12,345.67 EUR",
        "this payment is 1,234,567 JPY",
        "this payment is 1,234,567 in minor units",
    ]


# --- which model -----------------------------------------------------------------------------------------------------


def test_the_bundle_is_found_by_its_version(four_versions):
    assert find_bundle("v2", None, [four_versions / "v2"]).version == "v2"
    given = open_bundle(four_versions / "v2")
    assert find_bundle("v2", given, []) is given
    assert find_bundle("v2", None, [four_versions / "gone", four_versions / "v1", four_versions / "v2"]).version == "v2"


def test_a_damaged_copy_hides_no_sound_one_and_is_named_where_there_is_no_other(four_versions, tmp_path):
    shutil.copytree(four_versions / "v1", tmp_path / "v1")
    (tmp_path / "v1" / "xgboost.json").write_text("{}")
    assert find_bundle("v1", None, [tmp_path / "v1", four_versions / "v1"]).directory == four_versions / "v1"
    with pytest.raises(BundleError, match=r"altered: xgboost\.json does not match its checksum"):
        find_bundle("v1", None, [tmp_path / "v1", four_versions / "v2"])


def test_a_version_that_is_not_at_hand_is_one_sentence_that_says_where_it_goes(four_versions):
    with pytest.raises(UsageError, match=r"made by model v9, which is not at hand: put its bundle at .*v9, or give"):
        find_bundle("v9", None, [four_versions / "v9"])
    with pytest.raises(UsageError, match="holds v1: give the directory of that version"):
        find_bundle("v9", open_bundle(four_versions / "v1"), [])


@pytest.mark.parametrize("version", ["../v1", "/etc", "", "a/b", "x" * 65])
def test_a_decision_cannot_name_a_directory_elsewhere(version):
    with pytest.raises(FraudstreamError, match="which is no version"):
        version_places(version, load_settings(None, {}))


# --- where it is looked for ------------------------------------------------------------------------------------------


def test_what_is_known_narrows_the_partitions_to_read():
    assert Wanted("t").rounds([0, 1, 2]) == [[0, 1, 2]]
    assert Wanted(partition=1, offset=5).rounds([0, 1, 2]) == [[1]]
    assert Wanted(partition=7, offset=5).rounds([0, 1, 2]) == []
    likely = partition_of(b"u-1", 3)
    assert Wanted("t", user_id="u-1").rounds([0, 1, 2]) == [[likely], [n for n in range(3) if n != likely]]


@pytest.mark.parametrize("name", ["t-1", 'quo"te', "back\\slash", "ümlaut", "new\nline", "\x00", "€𝄞"])
def test_an_id_is_searched_as_the_worker_writes_it(name):
    value = orjson.dumps({"transaction_id": name, "offset": 12})
    assert all(needle in value for needle in Wanted(name, offset=12).needles())


@pytest.mark.parametrize("known", [{}, {"partition": 1}, {"offset": 1}, {"user_id": "u"}])
def test_too_little_is_known_is_one_sentence(known):
    with pytest.raises(UsageError, match="Give a transaction id, or --partition and --offset"):
        Wanted(**known)


class Shelf:
    """A features topic of one partition as a list of (time stamp, rows), where a search may begin too late."""

    def __init__(self, *records):
        self._records = records

    def partitions(self, topic):
        return [2]

    def offsets_at(self, topic, times_ms):
        late = (at for at, (stamp, _) in enumerate(self._records) if stamp >= times_ms[2])
        return {2: next(late, OFFSET_END)}

    def counts(self, topic, starts):
        return len(self._records)

    def records(self, topic, starts):
        first = {OFFSET_BEGINNING: 0, OFFSET_END: len(self._records)}.get(starts[2], starts[2])
        for stamp, value in self._records[first:]:
            yield [SimpleNamespace(value=lambda value=value: value, timestamp=lambda stamp=stamp: (1, stamp))]


def logged(bundle, offsets, ids, x, feature_set=None):
    log = FeatureLog(bundle.feature_names, feature_set or bundle.feature_set_hash, max_bytes=1 << 20)
    offsets = np.array(offsets, np.int64)
    ((_, _, record),) = log.encode(ids, np.full_like(offsets, 2), offsets, offsets, x)
    return record


@pytest.mark.parametrize("stamp_ms", [START_MS, START_MS - 10**9, START_MS + 10**9])
def test_the_row_is_the_decision_s_own_wherever_the_topic_s_copy_was_stamped(bundle, stamp_ms):
    x = vectors(4, seed=5)
    found, _ = decision_of(bundle, x[1])
    before = logged(bundle, [5, 6], ["t-1", "t-0"], x[2:])  # the same id at another place
    other = logged(bundle, [6, 7], ["t-0", "t-1"], x[2:], feature_set="another")
    record = logged(bundle, [6, 7], ["t-0", "t-1"], x[:2])
    shelf = Shelf((stamp_ms - 1, before), (stamp_ms, other), (stamp_ms, record), (stamp_ms + 10**10, before))
    row = find_features(shelf, "features", found, timeout_ms=10_000)
    assert row.values.tobytes() == x[1].tobytes()
    assert row.names == bundle.feature_names
    assert find_features(Shelf((stamp_ms, before), (stamp_ms, other)), "features", found, timeout_ms=1) is None


def test_a_damaged_record_of_the_feature_log_is_one_sentence(bundle):
    found, _ = decision_of(bundle, vectors(1, seed=5)[0])
    with pytest.raises(FraudstreamError, match="holds a damaged record"):
        find_features(Shelf((START_MS, b"t-1 and no Arrow")), "features", found, timeout_ms=1)
