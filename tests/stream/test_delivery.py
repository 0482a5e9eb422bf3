"""What a batch leaves behind: its transaction, its offsets, and what becomes of records that cannot be written."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition

from committed import committed
from kafka_topics import Topics, wait_until
from line_output import LineTopics
from line_thread import LineThread, ThreadedCrew, line_settings, readable_to_its_end, threaded_crew, wait_until_ended
from redis_server import RedisServer
from stream.delivery import ExactlyOnce
from stream.errors import BrokerSilent, StartupError
from stream.observer import Observer
from traffic import traffic

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]


@pytest.fixture
def crew_of(topics: Topics) -> Callable[..., object]:
    """crew_of(source, **settings) gives a crew on that topic."""

    def make(source: str, **settings: object) -> object:
        return threaded_crew(topics, source, line_settings(topics.bootstrap) | settings)

    return make


def test_a_transaction_begins_when_its_batch_is_scored_and_holds_nothing_but_its_output(crew_of, calm):
    with crew_of(calm.source) as crew:
        worker = crew.here("w1", start=False)
        order = record_order(worker)
        worker.start().wait_for("committed", 5)
        worker.stop()

    on_the_loop = [step for step in order if step != "commit"]
    batches = "".join(
        {"consume": "c", "line": "l", "begin": "b", "produce": "p", "queued": "q"}[s] for s in on_the_loop
    )
    assert batches.replace("c", "").replace("p", "").count("lbq") >= 5
    assert "cl" in batches
    for batch in batches.split("b")[1:]:
        assert "q" in batch, batches
        assert set(batch[: batch.index("q")]) <= {"p"}, f"something waited between begin and the commit: {batch}"


def test_a_killed_worker_holds_up_readers_until_its_timeout_or_until_it_is_back(crew_of, topics, calm):
    with crew_of(calm.source, **{"kafka.transaction_timeout_ms": 60_000}) as crew:
        kill_within_a_transaction(crew, "w1")
        back_at = time.monotonic()
        crew.here("w1").wait_for("assigned")
        wait_until_ended(topics, crew.line.decisions, 5)
        assert time.monotonic() - back_at < 10, "its own timeout is 60 s"
        assert crew.finish().differences(calm.output) == []

    with crew_of(calm.source, **{"kafka.transaction_timeout_ms": 3_000}) as crew:
        kill_within_a_transaction(crew, "dynamic-1")
        wait_until_ended(topics, crew.line.decisions, 10)


def test_an_input_written_in_transactions_is_scored_as_far_as_it_was_committed(
    crew_of, topics, calm, redis: RedisServer
):
    source = topics.create("transactions", 1)
    with crew_of(source, **{"store.kind": "redis", "store.url": redis.url}) as crew:
        writer = Producer({"bootstrap.servers": topics.bootstrap, "transactional.id": source})
        writer.init_transactions(20)
        sent = [payment(n) for n in range(40)]
        write_in_transactions(writer, source, sent, aborted=lambda n: n % 3 == 1)
        worker = crew.here("w1")
        output = crew.finish()
        good = [n for n in range(40) if (n // 5) % 3 != 1]
        assert [d["transaction_id"] for d in output.decisions.values()] == [f"t-{n}" for n in good]

        # Where an operator sets the group to the log's end, only aborted records and markers lie before it.
        write_in_transactions(writer, source, sent[:10], aborted=lambda _: True)
        end = topics.ends(source)[0]
        set_offsets(topics, crew.group, {TopicPartition(source, 0): end})
        worker = crew.here("w1")
        worker.wait_for("live")
        [[_, replay_from, live_from, _]] = worker.values("recovering")
        assert replay_from < live_from == end
        write_in_transactions(writer, source, [payment(99)], aborted=lambda _: False)
        assert len(crew.finish().decisions) == len(good) + 1


def test_the_very_first_start_commits_where_it_begins_before_anything_else(crew_of, topics):
    source = topics.create("transactions")
    topics.produce(source, traffic(50))
    with crew_of(source, **{"kafka.start": "latest"}) as crew:
        crew.start("w1", "assigned:1").end()
        sent = topics.produce(source, traffic(100, seed=2))
        crew.here("w1")
        output = crew.finish()

    assert output.decisions.keys() | output.dead_letters.keys() == {(r.partition, r.offset) for r in sent}


def test_records_deleted_before_they_were_scored_end_the_worker_by_name(crew_of, topics, tmp_path):
    source = topics.create("transactions", 1)
    topics.produce(source, traffic(100))
    with crew_of(source) as crew:
        crew.here("w1")
        crew.finish()
        topics.produce(source, traffic(100, seed=2))
        topics.admin.delete_records([TopicPartition(source, 0, 150)])[TopicPartition(source, 0)].result(20)
        code, said = command(crew.settings | crew.line.settings() | {"store.path": str(tmp_path / "s.sqlite")})

    assert code == 1, said
    assert f"Records 100 to 149 of {source}[0] were deleted before they were scored" in said
    assert "Traceback" not in said


def test_records_deleted_under_a_running_worker_end_it_by_name(crew_of, topics):
    source = topics.create("transactions", 1)
    slow = {"queued.min.messages": "1", "queued.max.messages.kbytes": "8", "max.partition.fetch.bytes": "2000"}
    rows = list(traffic(400))
    for at in range(0, 400, 10):  # batches of their own, of which the client fetches a few
        topics.produce(source, rows[at : at + 10])
    with crew_of(source, **{"kafka.consumer": slow, "worker.max_batch": 4}) as crew:
        worker = crew.here("w1", start=False)
        hold = worker.hold("produced", 2)
        worker.start()
        assert hold.reached.wait(20)
        topics.admin.delete_records([TopicPartition(source, 0, 390)])[TopicPartition(source, 0)].result(20)
        hold.release()
        assert worker.end() == 1

    assert "to 389 of" in str(worker.error)
    assert "were deleted before they were scored" in str(worker.error)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_decision_or_a_dead_letter_that_is_too_large_is_replaced_by_a_dead_letter_without_value(
    topics, crew_of, delivery
):
    source = topics.create("transactions", 1)
    rng = random.Random(1)
    long_id = {"transaction_id": rng.randbytes(450).hex()}  # nothing that compresses below the limit
    rows = [payment(n, **(long_id if n in (7, 60) else {})) for n in range(80)]
    rows[20] = (b"u-1", rng.randbytes(3_000))
    rows[21] = (rng.randbytes(3_000), b"not json")
    topics.produce(source, rows)
    line = LineTopics(
        source,
        topics.create("decisions", 1, {"max.message.bytes": "800"}),
        topics.create("dlq", 1, {"max.message.bytes": "1500"}),
        topics.create("features", 1, {"max.message.bytes": "3000"}),
    )
    settings = {"codec.limits.max_id_length": 1_000, "kafka.delivery": delivery, "worker.max_consecutive_aborts": 1}
    with crew_of(source, **settings) as crew:
        crew.line = line
        crew.settings |= line.settings()
        worker = crew.here("w1")
        output = crew.finish()

    assert sorted(output.decisions) == [(0, n) for n in range(80) if n not in (7, 20, 21, 60)]
    assert output.features.keys() == output.decisions.keys() | {(0, 7), (0, 60)}
    assert sorted(output.dead_letters) == [(0, 7), (0, 20), (0, 21), (0, 60)]
    errors = {offset: dict(headers)["error"] for (_, offset), (_, _, headers) in output.dead_letters.items()}
    assert errors[7] == errors[60] == b"too_large"
    assert output.dead_letters[0, 20][:2] == (b"u-1", None)
    assert output.dead_letters[0, 21][:2] == (None, None)
    assert worker.count("aborted") <= 12  # one or two for each of the six refusals; never without end
    if delivery == "exactly_once":
        assert output.repeated == []


def test_a_batch_of_only_bad_records_is_committed_like_any_other(topics, crew_of):
    source = topics.create("transactions", 1)
    topics.produce(source, [(b"u-1", b"not json")] * 10)
    with crew_of(source) as crew:
        worker = crew.here("w1")
        output = crew.finish()
        assert committed(topics, crew.group, source) == {0: 10}

    assert (len(output.decisions), len(output.dead_letters), worker.count("aborted")) == (0, 10, 0)


def test_a_missing_output_topic_is_an_error_at_the_start_that_names_it(topics, crew_of):
    source = topics.create("transactions")
    with crew_of(source) as crew, pytest.raises(StartupError, match=r"nobody-made-this \(topics.features\) does not"):
        crew.here("w1", **{"topics.features": "nobody-made-this"})


def test_an_unknown_broker_is_an_error_at_the_start(monkeypatch):
    monkeypatch.setattr("stream.topics.REQUEST_SECS", 2.0)
    with pytest.raises(StartupError, match=r"No broker answered within 2 s: check kafka.bootstrap_servers"):
        LineThread(line_settings("127.0.0.1:1"))


def test_at_least_once_decides_every_record_and_repeats_identically(topics, crew_of, calm, redis: RedisServer):
    shared = {"kafka.delivery": "at_least_once", "store.kind": "redis", "store.url": redis.url}
    with crew_of(calm.source, **shared) as crew:
        for point in ("produced:4", "committing:3"):
            crew.start("w1", point).end()
        crew.here("w1")
        output = crew.finish()
        decided = [orjson.loads(r.value) for r in topics.read(crew.line.decisions, read_committed=False)]

    repeats = output.repeated
    output.repeated = []
    assert output.differences(calm.output) == []
    assert repeats, "nobody was killed between writing and committing"
    seen: dict[tuple[int, int], dict] = {}
    for decision in decided:
        decision.pop("scored_at")
        assert seen.setdefault((decision["partition"], decision["offset"]), decision) == decision


def kill_within_a_transaction(crew: ThreadedCrew, name: str) -> None:
    """Kill a worker whose decisions are written and not committed."""
    worker = crew.start(name, "committing:3:WAIT")
    worker.wait_for("committing", 3)
    wait_until(lambda: not readable_to_its_end(crew.topics, crew.line.decisions), "its decisions are written")
    worker.kill()


def payment(number: int, **more: object) -> tuple[bytes, bytes]:
    value = {
        "transaction_id": f"t-{number}",
        "user_id": "u-1",
        "amount": 1 + number,
        "currency": "EUR",
        "event_time": 1_750_000_000_000 + number,
    }
    return b"u-1", orjson.dumps(value | more)


def write_in_transactions(
    writer: Producer, topic: str, rows: list[tuple[bytes, bytes]], aborted: Callable[[int], bool]
) -> None:
    """Write five rows a transaction; aborted(n) tells which ones end in vain."""
    for number, at in enumerate(range(0, len(rows), 5)):
        writer.begin_transaction()
        for key, value in rows[at : at + 5]:
            writer.produce(topic, value, key, 0)
        writer.flush(20)
        writer.abort_transaction(20) if aborted(number) else writer.commit_transaction(20)


def set_offsets(topics: Topics, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Set a group's offsets as an operator does; the group must have no members."""
    places = [TopicPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items()]

    def done() -> bool:
        try:
            request = [ConsumerGroupTopicPartitions(group, places)]
            altered = topics.admin.alter_consumer_group_offsets(request)[group].result(20)
        except KafkaException:
            return False
        return all(tp.error is None for tp in altered.topic_partitions)  # a static member is one until its session ends

    wait_until(done, f"the offsets of {group} are set")


def record_order(worker: LineThread) -> list[str]:
    """Record in which order the worker consumes, scores, begins, produces and commits."""
    order: list[str] = []
    delivery, line, loop = worker.app.worker._delivery, worker.app.line, worker.app.worker
    make, run, consumer = delivery._make, line.run, loop._consumer

    class Recorded(Producer):
        def begin_transaction(self, *args):
            order.append("begin")
            super().begin_transaction(*args)

        def produce(self, *args, **kwargs):
            order.append("produce")
            super().produce(*args, **kwargs)

        def commit_transaction(self, *args):
            order.append("commit")
            super().commit_transaction(*args)

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(consumer, name)

        def consume(self, *args):
            order.append("consume")
            return consumer.consume(*args)

    def recorded_run(batch):
        order.append("line")
        return run(batch)

    original = make.__globals__["Producer"]
    fly = delivery._fly

    def recorded_fly(commit):
        order.append("queued")
        fly(commit)

    def make_recorded(report):
        make.__globals__["Producer"] = Recorded
        try:
            return make(report)
        finally:
            make.__globals__["Producer"] = original

    delivery._make, delivery._fly = make_recorded, recorded_fly
    loop._consumer, line.run = Watched(), recorded_run
    return order


def command(settings: Mapping[str, object]) -> tuple[int, str]:
    """Run `fraudstream worker`; return its exit code and what it said on standard error."""
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={orjson.dumps(value).decode()}")]
    done = subprocess.run(
        [sys.executable, "-m", "stream", *given, "worker"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


class Deaf:
    """A producer whose transaction coordinator never answers."""

    def __init__(self) -> None:
        self.asked = 0

    def list_topics(self, timeout: float) -> None:
        """A broker is there."""

    def init_transactions(self, timeout: float) -> None:
        self.asked += 1
        threading.Event().wait(timeout)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no coordinator", retriable=True))


def test_a_coordinator_that_does_not_answer_keeps_the_loop_for_three_timeouts_at_most():
    producers = []

    def make(_report: object) -> Deaf:
        producers.append(Deaf())
        return producers[-1]

    delivery = ExactlyOnce(make, "transactions", Observer(), timeout_secs=0.2)
    for _ in range(2):
        with pytest.raises(BrokerSilent, match="init_transactions"):
            delivery.ready()

    assert len(producers) == 2, "a client that believes in the wrong coordinator is not asked again"
    assert all(2 <= producer.asked <= 4 for producer in producers)
