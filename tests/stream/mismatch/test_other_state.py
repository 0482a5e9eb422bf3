"""Another topic, another number of partitions, another state: one sentence with the choices; each choice works."""

import json
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions
from mismatch_cases import (
    PARTITIONS,
    RECORDS,
    about,
    chosen,
    more,
    offsets,
    refusal,
    sentence,
    set_offsets,
    settle,
    since,
    traffic_of,
)

from command import Command
from kafka_topics import Topics, wait_until
from line_thread import ThreadedCrew
from stream.errors import RecoveryError

pytestmark = pytest.mark.kafka


def test_a_topic_created_again_is_refused_and_begun_anew(scored: ThreadedCrew):
    scored.topics.delete(scored.line.transactions)
    scored.topics.create_exactly(scored.line.transactions, PARTITIONS)
    told = refusal(scored)
    assert "was deleted and created again" in told
    assert all(choice in told for choice in ("rebuild", "another kafka.group"))
    sent = scored.topics.produce(scored.line.transactions, traffic_of(100, RECORDS))
    chosen(scored, "rebuild")

    output = scored.finish()
    again = [place for what, place in output.repeated if what == "decision"]
    assert set(again) == {(r.partition, r.offset) for r in sent}  # places of the former topic, decided for this one


def test_added_partitions_are_refused_and_accepted(scored: ThreadedCrew):
    source = scored.line.transactions
    scored.topics.admin.create_partitions([NewPartitions(source, 4)])[source].result(20)
    wait_until(lambda: len(scored.topics.ends(source)) == 4, "the partitions are there")
    told = refusal(scored)
    assert "has 4 partitions, but its state was built with 2" in told
    assert all(choice in told for choice in ("rekey", "accept_partial", "cold start"))
    assert refusal(scored, **{"store.recovery": "rebuild"}) == told  # no rebuild in place mends a split history
    sent = Topics(scored.topics.bootstrap).produce(source, traffic_of(100, RECORDS))
    new = {(record.partition, record.offset) for record in sent}
    assert {partition for partition, _ in new} == {0, 1, 2, 3}
    # A static member that comes back in time gets what it had before, and nobody the new partitions.
    accepted = scored.here("dynamic-1", **{"store.recovery": "accept_partial"})
    settle(scored, accepted)
    since(scored, new)

    scored.here("dynamic-1").wait_for("live", 4)  # accepted for good, the choice is needed no more


def test_partitions_added_under_a_running_worker_are_refused(line: ThreadedCrew):
    worker = line.here("dynamic-1", **{"kafka.properties": {"topic.metadata.refresh.interval.ms": "500"}})
    settle(line, worker)
    source = line.line.transactions
    line.topics.admin.create_partitions([NewPartitions(source, 4)])[source].result(20)
    worker._thread.join(40)

    assert isinstance(worker.error, RecoveryError), worker.errors
    told, worker.error = sentence(str(worker.error)), None
    assert all(choice in told for choice in ("rekey", "accept_partial", "cold start"))


def test_another_state_hash_is_refused_and_warmed_from_the_log(scored: ThreadedCrew, calm):
    longer = {"state.retention": "40d"}
    told = refusal(scored, **longer)
    assert "was kept under other settings" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial", "put the settings back"))
    new = more(scored)
    chosen(scored, "rebuild", **longer)

    assert since(scored, new).differences(about(calm(**longer), new)) == []
    assert refusal_free(scored)  # the former state is still there for who puts the settings back


def test_another_state_hash_accepted_as_partial_begins_every_users_history_now(scored: ThreadedCrew):
    """Though the log reaches back to its start: whoever wants it replayed chooses rebuild."""
    more(scored)
    worker = chosen(scored, "accept_partial", **{"state.retention": "40d"})

    assert sum(report.replayed for report in worker.values("batch")) == 0


def refusal_free(crew: ThreadedCrew) -> bool:
    crew.here("w").wait_for("live", PARTITIONS)
    return True


def test_the_command_ends_with_exit_code_1_and_one_sentence(scored: ThreadedCrew, tmp_path: Path):
    """At the start on standard error; once partitions are assigned, as the last line of the log."""
    command = Command(tmp_path)
    tables: dict[str, dict[str, object]] = {}
    for key, value in scored.settings.items():
        table, name = key.split(".")
        tables.setdefault(table, {})[name] = value
    lines = [f"[{table}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in t.items()) for table, t in tables.items()]
    settings = command.settings("".join(lines))
    other = command("--settings", settings, "worker", FRAUDSTREAM_STATE__RETENTION="40d")
    assert other.returncode == 1
    *log, last = other.stderr.splitlines()
    assert last.startswith("Error: The state of ")
    assert all(line.startswith("{") for line in log)

    set_offsets(scored, {p: c - 30 for p, c in offsets(scored).items()})
    behind = command("--settings", settings, "worker")
    assert behind.returncode == 1
    assert "Traceback" not in behind.stderr
    (ended,) = [line for line in map(json.loads, behind.stderr.splitlines()) if line["level"] == "critical"]
    assert "choose store.recovery = rebuild" in json.dumps(ended)
