"""State and log that do not fit together: one sentence that names what is wrong and the choices; each choice works."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions

import stream.app
from command import Command
from committed import committed
from kafka_server import KafkaServer
from kafka_topics import Topics, wait_until
from line_output import LineOutput
from line_thread import LineThread, ThreadedCrew, line_settings, threaded_crew
from stored import Crash, CrashAt, stored
from stream.coverage import Coverage
from stream.errors import RecoveryError
from traffic import START_MS

pytestmark = pytest.mark.kafka

PARTITIONS = 2
RECORDS = 400

# One hour will be kept: windows of half an hour, and as much lateness.
FEATURE_SET = """\
name = "short"
[[feature]]
name = "count_30m"
aggregate = "count"
window = "30m"
text = "{value:.0f} payments in the last half hour"
[[feature]]
name = "sum_30m"
aggregate = "sum"
window = "30m"
text = "{value:.0f} spent in the last half hour"
[[feature]]
name = "merchants_30m"
aggregate = "distinct"
field = "merchant_id"
window = "30m"
text = "{value:.0f} merchants in the last half hour"
"""


def traffic_of(count: int, first: int = 0, step_ms: int = 15_000) -> Iterator[tuple[bytes, bytes]]:
    """Payments of 30 users, one every 15 s, one in five up to twenty minutes late."""
    for number in range(first, first + count):
        user = f"u-{number * 7 % 30}"
        late_ms = number * 7919 % 1_200_000 if number % 5 == 0 else 0
        payment = {
            "transaction_id": f"t-{number}",
            "user_id": user,
            "amount": number % 90 + 1,
            "currency": "EUR",
            "event_time": START_MS + number * step_ms - late_ms,
            "merchant_id": f"m-{number % 11}",
        }
        yield user.encode(), orjson.dumps(payment)


@pytest.fixture
def line(topics: Topics, tmp_path: Path) -> Iterator[ThreadedCrew]:
    """A crew over an input of 400 records, nothing of it decided yet."""
    source = topics.create("transactions", PARTITIONS)
    topics.produce(source, traffic_of(RECORDS))
    settings = line_settings(topics.bootstrap) | {"store.kind": "sqlite", "store.path": str(tmp_path / "state.sqlite")}
    with threaded_crew(topics, source, settings) as workers:
        yield workers


@pytest.fixture
def scored(line: ThreadedCrew) -> ThreadedCrew:
    """The same, all decided and stored."""
    decide(line)
    return line


def decide(crew: ThreadedCrew) -> None:
    worker = crew.here("w")
    settle(crew, worker)
    assert worker.stop() == 0, worker.errors


@pytest.fixture(scope="module")
def calm(kafka: KafkaServer) -> Callable[..., LineOutput]:
    """calm(**settings) is what one worker writes from these records and 100 more that nobody disturbs."""
    topics, known = Topics(kafka.bootstrap), {}

    def run(**settings: object) -> LineOutput:
        key = json.dumps(settings)
        if key not in known:
            source = topics.create("transactions", PARTITIONS)
            topics.produce(source, traffic_of(RECORDS + 100))
            known[key] = undisturbed(topics, source, **settings)
        return known[key]

    return run


def more(crew: ThreadedCrew, count: int = 100) -> set[tuple[int, int]]:
    """Add records to the input; return their places."""
    sent = crew.topics.produce(crew.line.transactions, traffic_of(count, RECORDS))
    return {(record.partition, record.offset) for record in sent}


def offsets(crew: ThreadedCrew) -> dict[int, int]:
    return committed(crew.topics, crew.group, crew.line.transactions)


def refusal(crew: ThreadedCrew, **settings: object) -> str:
    """Start a worker, which must refuse; return its sentence."""
    try:
        worker = crew.here("w", **settings)
    except RecoveryError as refused:
        return sentence(str(refused))
    worker._thread.join(40)
    assert isinstance(worker.error, RecoveryError), worker.errors
    told, worker.error = str(worker.error), None
    return sentence(told)


def sentence(told: str) -> str:
    assert re.fullmatch(r"[A-Z][^\n]*\.", told)
    assert ". " not in told.replace("store.", "store_")
    return told


def chosen(crew: ThreadedCrew, choice: str, **settings: object) -> LineThread:
    """Go on with a choice until all input is committed."""
    worker = crew.here("w", **{"store.recovery": choice, **settings})
    settle(crew, worker)
    return worker


def settle(crew: ThreadedCrew, worker: LineThread) -> None:
    def caught_up() -> bool:
        assert worker.alive, worker.errors
        return offsets(crew) == crew.topics.ends(crew.line.transactions)

    worker.wait_for("assigned")
    wait_until(caught_up, "all input is committed")


def since(crew: ThreadedCrew, places: set[tuple[int, int]]) -> LineOutput:
    """Stop everybody and return what was written about these places; nothing of it twice."""
    output = crew.finish()
    assert not [place for _, place in output.repeated if place in places]
    assert places <= output.decisions.keys()
    return about(output, places)


def about(output: LineOutput, places: set[tuple[int, int]]) -> LineOutput:
    kept = [{p: v for p, v in part.items() if p in places} for part in (output.decisions, {}, output.features)]
    return LineOutput(*kept, [])


def undisturbed(topics: Topics, source: str, **settings: object) -> LineOutput:
    with threaded_crew(topics, source, line_settings(topics.bootstrap)) as alone:
        alone.here("calm", **settings)
        return alone.finish()


def set_offsets(crew: ThreadedCrew, wanted: dict[int, int]) -> None:
    """Set the group's offsets, as kafka-consumer-groups --reset-offsets does."""
    places = [TopicPartition(crew.line.transactions, partition, offset) for partition, offset in wanted.items()]
    request = [ConsumerGroupTopicPartitions(crew.group, places)]

    def done() -> bool:
        try:
            crew.topics.admin.alter_consumer_group_offsets(request)[crew.group].result(20)
        except KafkaException:  # the group still counts a member that just left
            return False
        return offsets(crew) == wanted

    wait_until(done, "the offsets are set")


def expire_offsets(crew: ThreadedCrew) -> None:
    def done() -> bool:
        try:
            crew.topics.admin.delete_consumer_groups([crew.group])[crew.group].result(20)
        except KafkaException:
            return offsets(crew) == {}
        return True

    wait_until(done, "the group's offsets are gone")


def delete_records(crew: ThreadedCrew, before: dict[int, int]) -> None:
    """Let the log begin later, as retention does."""
    places = [TopicPartition(crew.line.transactions, partition, offset) for partition, offset in before.items()]
    for future in crew.topics.admin.delete_records(places).values():
        future.result(20)


def lose_store(crew: ThreadedCrew) -> None:
    for path in Path(str(crew.settings["store.path"])).parent.glob("state.sqlite*"):
        path.unlink()


def crash(crew: ThreadedCrew, point: str, count: int, **settings: object) -> None:
    worker = crew.here("w", start=False, **settings)
    worker._watch.holds.append(CrashAt(point, count))
    inside = worker.app.worker
    inside._leave = inside._store.close
    worker.start()
    worker._thread.join(40)
    assert isinstance(worker.error, Crash), (worker.errors, worker.events[-5:])
    worker.error = None


# --- an empty store --------------------------------------------------------------------------------------------------


def test_an_empty_store_is_rebuilt_from_the_logs_start(scored: ThreadedCrew, calm):
    lose_store(scored)
    new = more(scored)
    worker = scored.here("w")
    settle(scored, worker)

    assert since(scored, new).differences(about(calm(), new)) == []
    assert sum(report.replayed for report in worker.values("batch")) == RECORDS


def test_a_log_not_proven_to_cover_the_retention_is_no_replacement_for_the_store(scored: ThreadedCrew):
    lose_store(scored)
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    told = refusal(scored)

    assert "store holds nothing" in told
    assert "its log begins at 10" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial", "restore the store"))


@pytest.mark.parametrize(("choice", "replayed"), [("rebuild", RECORDS - 20), ("accept_partial", 0)])
def test_an_unproven_log_is_replayed_or_not_as_chosen(scored: ThreadedCrew, choice: str, replayed: int):
    lose_store(scored)
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    new = more(scored)
    worker = chosen(scored, choice)

    since(scored, new)
    assert sum(report.replayed for report in worker.values("batch")) == replayed


def test_a_recorded_offset_covers_the_retention_in_event_time(line: ThreadedCrew, calm, tmp_path: Path):
    """Everything before it is deleted, and every record was published within this second: timestamps prove nothing."""
    (tmp_path / "short.toml").write_text(FEATURE_SET)
    short = {"state.retention": "1h", "state.feature_set": str(tmp_path / "short.toml")}
    line.settings |= short
    decide(line)
    covered = {p: covered_from(line, p) for p in offsets(line)}
    assert all(0 < at < offsets(line)[p] for p, at in covered.items()), covered
    new = more(line)
    delete_records(line, covered)
    lose_store(line)
    worker = line.here("w")
    settle(line, worker)

    assert since(line, new).differences(about(calm(**short), new)) == []
    assert {(p, at) for p, at, *_ in worker.values("recovering")} == set(covered.items())


def covered_from(crew: ThreadedCrew, partition: int) -> int:
    # Asked as a consumer: librdkafka's admin client crashes where a coordinator is still loading.
    consumer = Consumer({"bootstrap.servers": crew.topics.bootstrap, "group.id": crew.group})
    try:
        (place,) = consumer.committed([TopicPartition(crew.line.transactions, partition)], timeout=20)
    finally:
        consumer.close()
    at = Coverage.parse(place.metadata).covered_from(3_600_000)
    assert at is not None
    return at


def test_a_group_that_began_on_a_shortened_log_is_rebuilt_from_where_it_began(line: ThreadedCrew):
    """Nothing before its first offset was ever in its state, so nothing is missing."""
    delete_records(line, dict.fromkeys(line.topics.ends(line.line.transactions), 30))
    decide(line)
    lose_store(line)
    new = more(line)
    worker = line.here("w")
    settle(line, worker)

    alone = undisturbed(line.topics, line.line.transactions)
    assert since(line, new).differences(about(alone, new)) == []
    assert {at for _, at, *_ in worker.values("recovering")} == {30}


# --- the very first start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_first_start_cut_off_at_any_step_is_a_first_start_again(line: ThreadedCrew, start: str):
    for step in (1, 2):
        crash(line, "recovering", step, **{"kafka.start": start})
    crash(line, "assigned", 1, **{"kafka.start": start})
    worker = line.here("w", **{"kafka.start": start})
    worker.wait_for("live", PARTITIONS)
    new = more(line)
    settle(line, worker)

    output = line.finish()
    assert output.repeated == []
    assert output.decisions.keys() >= new
    assert len(output.decisions) == (500 if start == "earliest" else 100)


# --- offsets and log that do not fit the checkpoint ------------------------------------------------------------------


@pytest.fixture
def gap(line: ThreadedCrew) -> ThreadedCrew:
    """A checkpoint at the beginning, C beyond it, and a log that begins in between."""
    crash(line, "committed", 5, **{"store.checkpoint_interval_ms": 3_600_000, "worker.max_batch": 50})
    wait_until(lambda: max(offsets(line).values()) >= 150, "the commits show")
    delete_records(line, {p: c // 2 for p, c in offsets(line).items() if c})
    return line


def test_a_log_that_begins_after_the_checkpoint_is_refused(gap: ThreadedCrew):
    told = refusal(gap)

    assert re.search(r"The log of \S+\[\d\] begins at \d+, after the checkpoint at 0", told)
    assert all(choice in told for choice in ("rebuild", "accept_partial", "restore the log"))


@pytest.mark.parametrize("choice", ["rebuild", "accept_partial"])
def test_a_gap_in_the_log_is_passed_as_chosen(gap: ThreadedCrew, choice: str):
    new = more(gap)
    chosen(gap, choice)

    since(gap, new)


def test_records_deleted_before_they_were_scored_are_refused_and_passed_as_chosen(scored: ThreadedCrew):
    more(scored, 300)
    start = {p: c + 20 for p, c in offsets(scored).items()}
    delete_records(scored, start)
    told = refusal(scored)
    assert "were deleted before they were scored" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial"))
    chosen(scored, "accept_partial")

    output = scored.finish()
    assert output.repeated == []
    assert len(output.decisions) == RECORDS + 300 - 40
    assert stored(scored.topics, scored.settings).offsets == offsets(scored)


def test_offsets_set_back_behind_the_checkpoint_are_refused_and_rebuilt(scored: ThreadedCrew, calm):
    set_offsets(scored, {p: c - 30 for p, c in offsets(scored).items()})
    told = refusal(scored)
    assert "ahead of the committed offset" in told
    assert all(choice in told for choice in ("rebuild", "another kafka.group", "restore the offsets"))
    chosen(scored, "rebuild")

    again = scored.finish()
    assert len([place for what, place in again.repeated if what == "decision"]) == 30 * PARTITIONS
    again.repeated.clear()
    places = set(again.decisions)
    assert len(places) == RECORDS
    assert about(again, places).differences(about(calm(), places)) == []


@pytest.mark.parametrize(("choice", "again"), [("rebuild", RECORDS), ("accept_partial", 0)])
def test_an_offset_past_the_logs_end_is_refused_and_passed_as_chosen(scored: ThreadedCrew, choice: str, again: int):
    set_offsets(scored, {p: c + 1_000 for p, c in offsets(scored).items()})
    told = refusal(scored)
    assert "lies past the log's end" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial", "restore the topic"))
    chosen(scored, choice)
    new = more(scored)
    settle(scored, scored.workers["w"])

    output = scored.finish()
    assert len([place for what, place in output.repeated if what == "decision"]) == again
    assert new <= output.decisions.keys()


@pytest.mark.parametrize(("choice", "again"), [("rebuild", RECORDS), ("accept_partial", 0)])
def test_an_expired_offset_beside_a_checkpoint_is_refused_and_passed_as_chosen(
    scored: ThreadedCrew, calm, choice: str, again: int
):
    expire_offsets(scored)
    told = refusal(scored)
    assert "has expired while a checkpoint at" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial"))
    new = more(scored)
    chosen(scored, choice)

    output = scored.finish()
    assert len([place for what, place in output.repeated if what == "decision"]) == again
    output.repeated.clear()
    assert about(output, new).differences(about(calm(), new)) == []


def test_an_expired_offset_whose_stored_users_are_decided_ahead_decides_nothing_twice(line: ThreadedCrew):
    """Users are stored, W is not yet: the checkpoint is behind what was decided of them."""
    killed = line.start("dynamic-1", "users_written:2")
    wait_until(lambda: killed.killed, "it has killed itself")
    kept = stored(line.topics, line.settings)
    before = len(line.topics.read(line.line.decisions))
    expire_offsets(line)
    chosen(line, "accept_partial")

    output = line.finish()
    assert before > 0
    assert len(output.decisions) == RECORDS
    ahead = {place for what, place in output.repeated if what == "decision"}
    assert len(ahead) < before
    held = {
        (partition, offset)
        for partition, offset in output.decisions
        for user in [output.decisions[partition, offset]["user_id"].encode()]
        if (partition, user) in kept.records and kept.user((partition, user)).applied_offset >= offset
    }
    assert held
    assert not held & ahead


def test_an_offset_that_expired_long_ago_is_no_first_start(scored: ThreadedCrew, monkeypatch: pytest.MonkeyPatch):
    """By then the store may have dropped users, so W vouches for nobody; it still says that somebody was here."""
    expire_offsets(scored)
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)

    assert "has expired while a checkpoint at" in refusal(scored)


def test_a_checkpoint_nobody_renewed_for_too_long_is_rebuilt(
    scored: ThreadedCrew, calm, monkeypatch: pytest.MonkeyPatch
):
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)
    new = more(scored)
    worker = scored.here("w")
    settle(scored, worker)

    assert all("rebuilt" in reason for *_, reason in worker.values("recovering"))
    assert since(scored, new).differences(about(calm(), new)) == []


def test_a_partition_that_nothing_came_to_for_long_goes_on_at_its_checkpoint(
    scored: ThreadedCrew, calm, monkeypatch: pytest.MonkeyPatch
):
    """Its log begins behind its start, so it could not be rebuilt; the renewed checkpoint carries what comes next."""
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)
    scored.here("w").wait_for("live", PARTITIONS)
    new = more(scored)
    settle(scored, scored.workers["w"])

    assert {reason for *_, reason in scored.workers["w"].values("recovering")} == {"checkpoint"}
    assert since(scored, new).differences(about(calm(), new)) == []


def test_a_checkpoint_left_behind_by_its_log_is_refused_by_its_own_name(
    scored: ThreadedCrew, monkeypatch: pytest.MonkeyPatch
):
    more(scored)
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)
    told = refusal(scored)

    assert "was not renewed for so long" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial"))


# --- another topic, another number of partitions, another state ------------------------------------------------------


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
