"""A file scored offline holds, bit for bit, the decisions that the line gives in batches of any size."""

import json
import shutil

import numpy as np
import onnxruntime
import orjson
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from command import Command, sentence
from models.bundle import open_bundle
from models.ensemble import load_engine
from models.errors import ModelError
from models.reasons import Explainer
from small_models import promote
from state.features import StateSpec
from state.windows import Windows
from stream.cli import fraudstream
from stream.codec import DecisionEncoder, Decoder
from stream.errors import UsageError
from stream.feature_log import FeatureLog
from stream.files import read_records
from stream.judge import EnsembleJudge
from stream.line import Line, Scorer, Topics
from stream.mapping import Limits, Mapping
from stream.observer import ScoredBy
from stream.partition import Partition, Phase
from stream.score import score_file
from stream.scoring import load_scoring, open_model
from stream.settings import load_settings
from stream.simulate import Simulation, simulate
from stream.simulation_file import write_simulation
from stream.versions import named_bundle

SPEC = StateSpec(decoding=Mapping().decoding)
NOW_MS = 1_800_000_000_000
EVENTS = 1_500


@pytest.fixture(scope="module")
def payments(tmp_path_factory):
    """A file with payments of few users, one of them twice, one bad row, and one user's payments out of order."""
    path = tmp_path_factory.mktemp("score") / "payments.jsonl"
    write_simulation(simulate(Simulation(events=EVENTS, users=40, fraud_rate=0.05, seed=21)), path)
    lines = path.read_text().splitlines()
    lines[900:900] = [lines[850], '{"transaction_id": "bad", "user_id": "u", "amount": -1}', lines[20]]
    path.write_text("\n".join(lines) + "\n")
    return path


def line_decisions(path, model_bundle, engine_name, size):
    """What the line writes for the file's rows as one partition, in batches of a size."""
    bundle, feature_set = open_model(model_bundle)
    engine = load_engine(bundle, engine_name)
    judge = EnsembleJudge(engine, bundle.thresholds, Explainer(bundle))
    partition = Partition(0, Windows(SPEC, feature_set), Phase.LIVE)
    line = Line(
        Decoder(Mapping(), Limits()),
        Scorer(
            judge,
            DecisionEncoder(judge.outcome_names, bundle.version, engine.name, feature_set.hash),
            FeatureLog(feature_set.names, feature_set.hash, max_bytes=1 << 20),
            ScoredBy(bundle.version, engine.name, feature_set.hash, feature_set.names),
        ),
        Topics("decisions", "dlq", ""),
        lambda one, users: one.windows.add(users, [None] * len(users), None),
        lambda: NOW_MS,
        retention_ms=SPEC.retention_ms,
    )
    records = [record for chunk in read_records(path, Mapping(), NOW_MS) for record in chunk]
    found = []
    for at in range(0, len(records), size):
        output, _, waiting = line.run({partition: records[at : at + size]})
        assert not waiting
        found += map(orjson.loads, output.values)
    return found


@pytest.mark.parametrize("engine", ["forest", "onnx"])
def test_scores_equal_the_lines_bit_for_bit_in_batches_of_any_size(tmp_path, payments, model_bundle, engine):
    bundle, feature_set = open_model(model_bundle)
    target = tmp_path / "scores.parquet"
    done = score_file(
        *(payments, target, Mapping(), Limits(), SPEC, feature_set),
        *(load_engine(bundle, engine), bundle.thresholds, bundle.version),
        now_ms=NOW_MS,
    )
    table = pq.read_table(target)
    scores = table.column("score").to_numpy()
    assert scores.dtype == np.float32
    assert len({*table.column("decision").to_pylist()}) > 1
    assert (done.rows, done.refused.total(), done.flags["duplicate"]) == (EVENTS + 2, 1, 2)
    for size in (1, 7, 512, 4_096):
        decided = line_decisions(payments, model_bundle, engine, size)
        streamed = np.array([decision["score"] for decision in decided], np.float32)
        assert streamed.tobytes() == scores.tobytes(), f"batches of {size}"
        for name in ("transaction_id", "user_id", "decision", "model", "engine", "flags"):
            assert [decision[name] for decision in decided] == table.column(name).to_pylist(), f"batches of {size}"
        times = [decision["event_time"] for decision in decided]
        assert times == table.column("event_time").cast("int64").to_pylist()


def test_the_command_writes_scores_and_what_it_refused(tmp_path, payments, model_bundle):
    command = Command(tmp_path)
    done = command("score", payments, "--model", model_bundle, "-o", "s.parquet")
    version = open_bundle(model_bundle).version
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"s.parquet: {EVENTS + 2:,} transactions scored by {version} on the engine forest\n"
    assert done.stderr == "s.refused.jsonl: 1 row refused (missing_field 1)\n".replace(
        "missing_field 1", "1 missing_field"
    )
    refused = json.loads((tmp_path / "s.refused.jsonl").read_text())
    assert (refused["row"], refused["error"]) == (901, "missing_field")
    schema = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "s.parquet")}
    assert schema == {
        "transaction_id": "string",
        "user_id": "string",
        "event_time": "timestamp[ms, tz=UTC]",
        "score": "float",
        "decision": "string",
        "model": "string",
        "engine": "string",
        "flags": "list<element: string>",
    }


def test_a_model_may_be_named_by_its_version(tmp_path, model_bundle):
    registry = tmp_path / "models"
    registry.mkdir()
    (registry / "3").symlink_to(model_bundle)
    settings = load_settings(None, {}, {"registry.directory": str(registry)})
    assert named_bundle("3", settings) == registry / "3"
    assert named_bundle(str(model_bundle), settings) == model_bundle
    for name in ("../models/4", "champion4"):
        with pytest.raises(UsageError, match="There is no model"):
            named_bundle(name, settings)
    (registry / "first").symlink_to(model_bundle)
    with pytest.raises(UsageError, match=r"did you mean first\?"):
        named_bundle("frist", settings)


def test_a_version_is_found_in_the_directory_that_workers_follow_too(tmp_path, model_bundle):
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "3").symlink_to(model_bundle)
    keys = {"registry.directory": str(tmp_path / "none"), "model.follow": str(tmp_path / "mounted")}
    assert named_bundle("3", load_settings(None, {}, keys)) == tmp_path / "mounted" / "3"


def test_without_a_model_named_the_one_that_workers_take_scores(tmp_path, payments, model_bundle):
    pointer = promote(tmp_path / "registry", open_bundle(model_bundle))
    command = Command(tmp_path)
    command.settings('[model]\nfollow = "registry"\n')
    done = command("score", payments, "-o", "s.parquet")
    assert done.returncode == 0, done.stderr
    assert f"scored by {pointer.version} on the engine" in done.stdout


def test_a_model_s_scores_are_its_own_where_workers_give_a_constant_one(tmp_path, payments, model_bundle, monkeypatch):
    """What stands under a version's name must be what that version says."""
    monkeypatch.chdir(tmp_path)
    args = ["--set", "model.engine=constant", "score", payments, "--model", model_bundle, "-o", "s.parquet"]
    done = CliRunner().invoke(fraudstream, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0
    found = pq.read_table("s.parquet")
    assert set(found["engine"].to_pylist()) == {"forest"}
    assert len(set(found["score"].to_pylist())) > 10


def test_reasons_are_tried_before_the_first_event_is_held(model_bundle, monkeypatch):
    explained = []
    monkeypatch.setattr(Explainer, "top", lambda _, x: explained.append(len(x)))
    load_scoring(load_settings(None, {}, {"model.bundle": str(model_bundle)}))
    assert explained


def test_a_version_is_looked_for_where_the_settings_keep_the_registry(tmp_path, payments, model_bundle):
    shutil.copytree(model_bundle, tmp_path / "kept" / "7")
    (tmp_path / "fraudstream.toml").write_text('[registry]\ndirectory = "kept"\n')
    command = Command(tmp_path)
    done = command("score", payments, "--model", "7", "-o", "s.parquet")
    assert done.returncode == 0, done.stderr
    done = command("evaluate", "7", payments, "--label", "nothing", "--json", "r.json")
    assert "has no column nothing" in sentence(done)  # the model was found


def test_a_model_that_is_not_there_or_altered_is_one_sentence(tmp_path, payments, model_bundle):
    command = Command(tmp_path)
    missing = command("score", payments, "--model", "nothing", "-o", "s.parquet")
    assert sentence(missing) == "There is no model nothing, neither as a directory nor as a version in var/models."
    assert missing.returncode == 2
    for path in model_bundle.iterdir():
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "copy" / "card.md").open("ab") as file:
        file.write(b" ")
    altered = command("score", payments, "--model", "copy", "-o", "s.parquet")
    assert "copy is altered: card.md does not match its checksum" in sentence(altered)
    assert altered.returncode == 1


def test_the_gpu_s_engine_can_be_asked_for_and_without_cuda_is_one_sentence(
    tmp_path, payments, model_bundle, monkeypatch
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    arguments = ["score", str(payments), "-o", str(tmp_path / "s.parquet"), "--model", str(model_bundle)]
    done = CliRunner().invoke(fraudstream, [*arguments, "--engine", "gpu"])
    assert isinstance(done.exception, ModelError)
    assert str(done.exception).startswith("The engine gpu needs CUDA, and ")
    assert "[auto|forest|onnx|gpu]" in CliRunner().invoke(fraudstream, ["evaluate", "--help"]).output
