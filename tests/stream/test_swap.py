"""What is promoted is taken up between two batches, or refused with one sentence while the old model stays."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models.errors import ModelError
from small_models import OTHER_FEATURES, other_features, promote
from state.events import currency_code
from state.windows import is_warm
from stream.logs import LogObserver
from stream.observer import Observers
from stream.scoring import first_model, prove
from stream.settings import load_settings
from stream.sources import CHAMPION
from swap_stand import Around, Stand, spoil_byte


def test_a_promotion_is_taken_up_at_the_end_of_a_batch_and_not_before(stand):
    pointer = stand.promote("b", by="grace")
    stand.swapper.poll()
    assert stand.version == stand.bundles["a"].version
    assert stand.told.current == ("", False)
    stand.swapper.swap(stand.line, stand.renew)
    assert stand.version == stand.bundles["b"].version
    assert stand.told.events == [
        ("preparing", pointer.version),
        ("swapped", stand.bundles["a"].version, pointer.version, "grace"),
    ]
    stand.look()
    assert stand.told.current == ("", True)
    assert stand.renewals == []


def test_scores_after_a_swap_are_those_of_the_promoted_bundle_to_the_bit(stand, bundles):
    stand.promote("b")
    stand.look()
    alone = prove(stand.settings, bundles["b"].directory)
    x = np.random.default_rng(1).lognormal(3, 1, (300, 24)).astype(np.float32)
    euros = np.full(len(x), currency_code("EUR"), np.uint16)
    mine, other = stand.line.scorer.judge.judge(x, euros), alone.judge.judge(x, euros)
    np.testing.assert_array_equal(mine.scores.view(np.uint32), other.scores.view(np.uint32))
    np.testing.assert_array_equal(mine.outcomes, other.outcomes)


def test_a_rollback_is_a_swap_that_opens_nothing(stand, bundles):
    stand.promote("b")
    stand.look()
    before = stand.version
    # Not even the bundle is needed: the model before is in memory.
    (stand.registry / bundles["a"].version / "model.onnx").write_bytes(b"")
    stand.promote("a", by="on call")
    stand.look()
    assert (before, stand.version) == (bundles["b"].version, bundles["a"].version)
    assert stand.told.events[-1] == ("swapped", bundles["b"].version, bundles["a"].version, "on call")


def test_a_promotion_taken_back_before_the_loop_took_it_up_is_forgotten(stand):
    stand.promote("b")
    stand.swapper.poll()
    stand.promote("a")
    stand.look()
    assert stand.version == stand.bundles["a"].version
    assert "swapped" not in stand.kinds()
    assert stand.told.current == ("", True)


def test_of_two_promotions_in_a_row_the_later_one_is_taken_up(stand):
    stand.promote("b")
    stand.swapper.poll()
    stand.promote("c")
    stand.look()
    assert stand.version == stand.bundles["c"].version
    assert stand.kinds().count("swapped") == 1


def test_the_same_version_approved_again_is_no_swap(stand):
    stand.promote("a", by="somebody else")
    stand.look()
    assert stand.kinds() == []
    assert stand.told.current == ("", True)


def spoil_file(registry, version):
    (registry / version / "xgboost.json").unlink()


def spoil_bundle(registry, version):
    shutil.rmtree(registry / version)


def spoil_manifest(registry, version):
    path = registry / version / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")


def spoil_pointer(registry, version):
    (registry / CHAMPION).write_bytes(b'{"version": "' + version.encode())


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_byte, "lightgbm.txt does not match its checksum"),
        (spoil_file, "lacks xgboost.json"),
        (spoil_bundle, "is missing: promote it again"),
        (spoil_manifest, "is not the one that was promoted"),
        (spoil_pointer, "is no pointer to a version"),
    ],
)
def test_what_is_bad_is_refused_once_in_one_sentence_and_the_old_model_stays(stand, bundles, spoil, sentence):
    pointer = stand.promote("b")
    spoil(stand.registry, pointer.version)
    for _ in range(3):
        stand.look(secs=0.1)
    refused = [event for event in stand.told.events if event[0] == "refused"]
    assert len(refused) == 1, "said once"
    assert refused[0][2] == bundles["a"].version
    assert sentence in refused[0][3]
    assert stand.version == bundles["a"].version
    assert stand.told.current == ("", False)
    assert stand.kinds().count("preparing") <= 1, "not tried again at once"


def test_a_refused_version_is_tried_again_ever_more_seldom(stand):
    pointer = stand.promote("b")
    spoil_bundle(stand.registry, pointer.version)
    tried_at = []
    for second in range(120):
        before = stand.kinds().count("preparing")
        stand.look(secs=1.0)
        if stand.kinds().count("preparing") > before:
            tried_at.append(second)
    gaps = np.diff(tried_at)
    assert len(tried_at) >= 4
    assert (gaps[1:] >= 2 * gaps[:-1] - 1).all(), tried_at
    assert stand.kinds().count("refused") == 1


def test_a_bundle_that_was_copied_after_its_pointer_is_taken_up_when_it_is_there(stand):
    pointer = stand.promote("b")
    hidden = stand.registry.parent / "hidden"
    (stand.registry / pointer.version).rename(hidden)
    stand.look()
    assert stand.version == stand.bundles["a"].version
    hidden.rename(stand.registry / pointer.version)
    stand.look(secs=60)
    assert stand.version == stand.bundles["b"].version


def test_after_a_refusal_the_old_version_named_again_is_current(stand):
    spoil_bundle(stand.registry, stand.promote("b").version)
    stand.look()
    stand.promote("a")
    stand.look()
    assert stand.told.current == ("", True)


def test_a_bundle_whose_features_need_another_field_is_refused_with_the_way_to_warm_it(stand):
    stand.promote("foreign")
    stand.look()
    assert stand.kinds()[-1] == "refused"
    assert "reads the field 'terminal_id', but the state keeps" in stand.told.events[-1][3]
    assert "warm the new state from the log" in stand.told.events[-1][3]
    assert stand.renewals == []


def test_other_features_over_the_same_fields_begin_with_windows_of_their_own(stand, bundles):
    stand.promote("other")
    stand.look()
    assert stand.renewals == [other_features().hash]
    assert stand.version == bundles["other"].version
    assert stand.line.scorer.encoder._feature_set == other_features().hash
    schema = stand.line.scorer.feature_log._schema
    assert schema.metadata[b"feature_set"].decode() == other_features().hash
    assert json.loads(schema.metadata[b"features"]) == list(other_features().names)


def test_the_kernel_of_another_feature_set_is_there_when_the_swap_comes(stand, bundles):
    stand.promote("other")
    stand.look()
    assert is_warm(stand.settings.state_spec(), other_features())
    assert stand.told.kernels == [(other_features().hash, "")]


def test_where_a_kernel_cannot_be_compiled_the_swap_comes_all_the_same_and_says_so(stand, bundles, monkeypatch, caplog):
    monkeypatch.setattr("state.windows._observers", {})
    monkeypatch.setattr("stream.app.load", lambda *_: False)
    monkeypatch.setattr("stream.app.compile_beside", lambda *_: "No space left on device")
    stand.told = Observers(stand.told, LogObserver(b"key"))
    stand.swapper._observer = stand.told
    stand.promote("other")
    stand.look()
    assert stand.version == bundles["other"].version
    assert not is_warm(stand.settings.state_spec(), other_features())
    said = f"windows of feature set {other_features().hash} run on the general kernel"
    assert caplog.text.count(said) == 1
    assert "until a restart: No space left on device" in caplog.text


def test_an_engine_that_disagrees_is_refused_at_a_start_without_a_registry_too(bundles, monkeypatch):
    def disagree(*_):
        raise ModelError("The engines do not agree")

    settings = load_settings(None, {}, {"model.bundle": str(bundles["a"].directory)})
    assert first_model(settings).scoring.model == bundles["a"].version
    monkeypatch.setattr("stream.scoring.check_engine", disagree)
    with pytest.raises(ModelError, match="do not agree"):
        first_model(settings)


def test_while_the_store_does_not_take_part_the_old_model_stays_and_the_loop_is_not_held_up(stand, bundles):
    stand.can_renew = False
    stand.promote("other")
    stand.look()
    for _ in range(50):
        stand.swapper.swap(stand.line, stand.renew)
    assert len(stand.renewals) == 1
    assert stand.version == bundles["a"].version
    stand.can_renew = True
    stand.look(secs=2)
    assert stand.version == bundles["other"].version


def test_a_feature_set_that_the_settings_do_not_name_is_refused(tmp_path, bundles):
    declared = tmp_path / "declared.toml"
    declared.write_bytes(OTHER_FEATURES)
    stand = Stand(tmp_path, bundles, **{"state.feature_set": str(declared)})
    stand.promote("other")
    stand.begin()
    stand.promote("a")
    stand.look()
    assert "state.feature_set names other" in stand.told.events[-1][3]


def test_a_row_that_the_features_topic_cannot_take_is_refused(stand, tmp_path, bundles):
    stand = Stand(tmp_path / "small", bundles)
    stand.promote("other")
    stand.begin(Around(feature_bytes=1200))
    stand.promote("a")
    stand.look()
    assert "takes records of 1200 bytes" in stand.told.events[-1][3]
    assert stand.version == bundles["other"].version


def test_a_registry_that_goes_away_is_told_and_changes_nothing(stand):
    shutil.rmtree(stand.registry)
    stand.look()
    assert stand.told.current[0].startswith("There is no registry directory")
    assert stand.version == stand.bundles["a"].version
    stand.promote("b")
    stand.look()
    assert stand.version == stand.bundles["b"].version


def test_an_engine_that_fails_its_check_is_refused(stand, monkeypatch):
    def disagree(*_):
        raise ModelError("The engines do not agree")

    monkeypatch.setattr("stream.scoring.check_engine", disagree)
    stand.promote("b")
    stand.look()
    assert stand.told.events[-1][3] == "The engines do not agree"


def test_an_unexpected_error_is_refused_too_and_the_thread_lives_on(stand, monkeypatch, caplog):
    def stumble(*_):
        raise ZeroDivisionError("who knows")

    monkeypatch.setattr("stream.scoring.check_engine", stumble)
    stand.promote("b")
    stand.look()
    assert "cannot be loaded (ZeroDivisionError): see the log" in stand.told.events[-1][3]
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    stand.look(secs=60)
    assert stand.version == stand.bundles["b"].version


def test_the_thread_sees_a_promotion_by_itself(tmp_path, bundles):
    stand = Stand(tmp_path, bundles, **{"model.poll_interval": "10ms"})
    stand.promote("a")
    stand.begin()
    prepared = threading.Event()
    stand.told.prepared = lambda *_: prepared.set()
    stand.swapper.start()
    stand.promote("b")
    assert prepared.wait(30), "not prepared within 30 s"
    stand.swapper.stop()
    stand.swapper._thread.join(10)
    assert not stand.swapper._thread.is_alive()
    stand.swapper.swap(stand.line, stand.renew)
    assert stand.version == bundles["b"].version


FOLLOWS_AND_SWAPS = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import stream.service, stream.verbs.worker
from stream.app import _Models, _swapper
from stream.observer import Observer
from stream.scoring import first_model
from stream.settings import load_settings

registry, cache = map(Path, sys.argv[1:])
settings = load_settings(None, {}, {"model.follow": str(registry), "model.cache": str(cache)})
first = first_model(settings)
models = _Models(settings, settings.state_spec(), SimpleNamespace(feature_bytes=1 << 20))
running = models.model(first.scoring, first.pointer)
swapper = _swapper(settings, Observer(), models, running)
used = [running.scorer]

def score():
    x = np.random.default_rng(1).lognormal(3, 1.5, (500, len(first.scoring.feature_set.names)))
    verdicts = used[-1].judge.judge(x.astype(np.float32), np.zeros(500, np.uint16))
    assert verdicts.reasons, "nothing was held, so nothing explained"

score()
swapper.poll()
(registry / "next.json").replace(registry / "champion.json")
swapper.poll()
swapper.swap(SimpleNamespace(use=used.append), None)
swapper.poll()
score()
print(used[-1].encoder._model)
print(*sys.modules)
"""


def test_a_worker_that_follows_swaps_scores_and_explains_never_imports_the_registry_s_libraries(tmp_path, bundles):
    registry = tmp_path / "registry"
    promote(registry, bundles["b"])
    (registry / CHAMPION).rename(registry / "next.json")
    promote(registry, bundles["a"])
    command = [sys.executable, "-c", FOLLOWS_AND_SWAPS, str(registry), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    version, modules = done.stdout.splitlines()
    assert version == bundles["b"].version
    assert "stream.worker" in modules.split()
    heavy = {"mlflow", "sqlalchemy", "alembic", "matplotlib", "xgboost", "lightgbm", "sklearn"}
    assert not heavy & {name.split(".")[0] for name in modules.split()}
