"""What the tests of state that does not fit its log share: a small input, and what goes wrong with it."""

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from committed import committed
from kafka_topics import Topics, wait_until
from line_output import LineOutput
from line_thread import LineThread, ThreadedCrew, line_settings, threaded_crew
from stored import Crash, CrashAt
from stream.errors import RecoveryError
from traffic import START_MS

PARTITIONS = 2
RECORDS = 400


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


def decide(crew: ThreadedCrew) -> None:
    worker = crew.here("w")
    settle(crew, worker)
    assert worker.stop() == 0, worker.errors


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
