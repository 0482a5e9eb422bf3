"""The verb explain finds decisions of any version on a real broker, and explains the worker's own."""

from contextlib import chdir

import orjson
import pytest
from click.testing import CliRunner

from command import Command, sentence
from decided import Past
from kafka_topics import Topics
from line_output import LineTopics
from line_thread import line_settings, threaded_crew
from models.bundle import open_bundle
from stream.cli import fraudstream
from stream.errors import FraudstreamError, UsageError
from traffic import traffic

pytestmark = pytest.mark.kafka

STEP_MS = 1_000
EACH = 1_500


@pytest.fixture(scope="module")
def past(kafka, four_versions, tmp_path_factory):
    """Topics in which four versions have decided, one after the other, and the command that asks about them."""
    topics = Topics(kafka.bootstrap)
    # The broker deletes what is past its retention, and this past lies long ago.
    line = LineTopics(
        *(topics.create(name, 4, {"retention.ms": "-1"}) for name in ("t", "decisions", "dlq", "features"))
    )
    command = Command(tmp_path_factory.mktemp("explain"))
    models = command.folder / "var" / "models"
    models.parent.mkdir()
    models.symlink_to(four_versions)
    command.settings(
        "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in line.settings().items())
        + f"[kafka]\nbootstrap_servers = '{kafka.bootstrap}'\n"
    )
    writer = Past(kafka.bootstrap, line.decisions, line.features, 4, users=100)
    for number, version in enumerate(("v1", "v2", "v3", "v4")):
        writer.write(
            open_bundle(four_versions / version), ("forest", "onnx")[number % 2], EACH, batch=100, step_ms=STEP_MS
        )
    # Two more of ids that there were: decided again, by the last version.
    writer.written = 10
    writer.write(open_bundle(four_versions / "v4"), "forest", 2, step_ms=EACH * STEP_MS)
    writer.write(open_bundle(four_versions / "v4"), "forest", 1, ids="aborted", commit=False)
    return command


def ask(past, *args):
    """Run the verb in this process; return what it prints."""
    with chdir(past.folder):
        arguments = ["--settings", "fraudstream.toml", "explain", *map(str, args)]
        done = CliRunner().invoke(fraudstream, arguments, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize(("number", "version"), [(17, "v1"), (EACH + 3, "v2"), (4 * EACH - 1, "v4")])
def test_a_decision_of_any_version_is_explained_by_that_version(past, number, version):
    shown = ask(past, f"t-{number}", "--json")
    read = orjson.loads(shown)
    assert (read["transaction_id"], read["user_id"], read["model"]) == (f"t-{number}", f"u-{number % 100}", version)
    assert read["others"] == []
    place = ["--partition", read["partition"], "--offset", read["offset"]]
    for narrower in ([f"t-{number}", "--user", read["user_id"]], [f"t-{number}", *place], place):
        assert ask(past, *narrower, "--json") == shown


def test_a_transaction_decided_twice_is_listed_and_the_place_says_which(past):
    first = orjson.loads(ask(past, "t-10", "--json"))
    assert first["model"] == "v1"
    assert [other["model"] for other in first["others"]] == ["v4"]
    place = ["--partition", first["partition"], "--offset", first["others"][0]["offset"]]
    second = orjson.loads(ask(past, "t-10", *place, "--json"))
    assert (second["model"], second["offset"], second["others"]) == ("v4", place[3], [])
    assert "Decided more than once" in ask(past, "t-10")


def test_amounts_are_said_in_minor_units_where_the_input_topic_no_longer_holds_the_payment(past):
    texts = {one["feature"]: one["text"] for one in orjson.loads(ask(past, "t-17", "--json"))["contributions"]}
    assert texts["sum_amount_1h"].endswith(" in minor units spent in the last hour")


def test_what_is_not_there_is_one_sentence(past):
    with pytest.raises(FraudstreamError, match=r"No decision on the transaction t-no is in the .* retention has ended"):
        ask(past, "t-no")
    with pytest.raises(FraudstreamError, match="within what --user and --since leave"):
        ask(past, "t-17", "--since", "2099-01-01T00:00:00Z")
    with pytest.raises(UsageError, match="--since takes a time"):
        ask(past, "t-17", "--since", "yesterday")
    with pytest.raises(UsageError, match=r"Which decision\?"):
        ask(past)
    assert "model v1" in ask(past, "t-17", "--since", "2025-06-15T00:00:00Z")


def test_a_decision_that_was_never_committed_is_none(past):
    with pytest.raises(FraudstreamError, match="No decision on the transaction aborted-12"):
        ask(past, "aborted-12")


def test_a_topic_that_is_not_there_is_one_sentence(past):
    gone = past("--set", "topics.features=gone", "explain", "t-17")
    assert gone.returncode == 1
    assert sentence(gone).startswith("The topic gone cannot be read")


def test_another_version_s_bundle_is_wrong_use(past, four_versions):
    with pytest.raises(UsageError, match="made by model v1, but"):
        ask(past, "t-17", "--model", four_versions / "v2")


def test_the_worker_s_own_decisions_are_explained_and_its_reasons_lead_the_list(topics, model_bundle, tmp_path):
    source = topics.create("transactions")
    topics.produce(source, traffic(1_500, seed=8, users=40))
    settings = line_settings(topics.bootstrap) | {"model.engine": "forest", "model.bundle": str(model_bundle)}
    with threaded_crew(topics, source, settings) as crew:
        crew.here("scored")
        output = crew.finish()
        line = crew.line
    held = [decision for decision in output.decisions.values() if decision["reasons"]]
    command = Command(tmp_path)
    command.settings(
        f"[kafka]\nbootstrap_servers = '{topics.bootstrap}'\n[model]\nbundle = '{model_bundle}'\n[topics]\n"
        + "".join(f"{key.split('.')[1]} = '{name}'\n" for key, name in line.settings().items())
    )
    assert held
    decision = held[len(held) // 2]
    shown = command("explain", "--partition", decision["partition"], "--offset", decision["offset"], "--json")
    read = orjson.loads(shown.stdout)
    assert read["score"] == decision["score"]
    strongest = [(one["feature"], one["text"]) for one in read["contributions"][:3]]
    assert strongest == [(why["feature"], why["text"]) for why in decision["reasons"]]
    texts = {one["feature"]: one["text"] for one in read["contributions"]}
    assert texts["sum_amount_1h"].endswith(" EUR spent in the last hour")
