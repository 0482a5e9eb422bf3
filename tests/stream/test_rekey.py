"""A copy keyed by user holds every record exactly once, whatever happens to the process that makes it."""

import json
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict

import pytest
from confluent_kafka import Producer, TopicPartition

from kafka_topics import Row, wait_until
from stream.copy_check import check_copy
from stream.errors import BatchAborted, ProducerFenced, RecoveryError, StartupError, UsageError
from stream.mapping import Mapping
from stream.murmur2 import partition_of
from stream.rekey import rekey
from stream.settings import load_settings
from stream.topic_check import TopicState
from stream.user_finder import NoUserError, UserFinder

NOW_MS = 1_700_000_000_000


@pytest.fixture
def three(topic):
    """Source, target and dead letters."""
    return (
        topic("source", partitions=3),
        topic("target", partitions=4),
        topic("dlq", partitions=2, config={"max.message.bytes": "1200000"}),
    )


def settings_for(kafka, three, **overrides):
    return load_settings(
        None,
        {},
        {
            "kafka.bootstrap_servers": kafka.bootstrap,
            "topics.dead_letters": three[2],
            "codec.fields": {"user_id": ["card", "account"]},
            **overrides,
        },
    )


def payments(count, partitions=3, users=40):
    """Rows placed on any partition, each value naming its user, source partition and place in it."""
    rng = random.Random(7)
    at = [0] * partitions
    rows = []
    for n in range(count):
        p = rng.randrange(partitions)
        value = json.dumps({"card": rng.randrange(users), "p": p, "n": at[p]}).encode()
        rows.append(Row(b"%d" % n, value, p, [("trace", b"%d" % n)], NOW_MS + n))
        at[p] += 1
    return rows


def source_order(records):
    """The places of copies in their source, by (source partition, target partition), in the copies' order."""
    order = defaultdict(list)
    for record in records:
        value = json.loads(record.value)
        order[value["p"], record.partition].append(value["n"])
    return order


def test_a_copy_is_keyed_by_user_and_otherwise_the_same(kafka, three, produce, consume_all):
    source, target, _ = three
    produce(source, payments(3_000))
    seen = []
    copied = rekey(settings_for(kafka, three), source, target, progress=lambda c: seen.append(c.copied))
    assert (copied.copied, copied.dead, copied.total, copied.warning) == (3_000, 0, 3_000, "")
    assert seen[-1] == 3_000
    copies = consume_all(target)
    assert all(r.key == str(json.loads(r.value)["card"]).encode() for r in copies)
    assert all(r.partition == partition_of(r.key, 4) for r in copies)
    assert sorted((r.value, r.headers, r.timestamp_ms) for r in copies) == sorted(
        (row.value, tuple(row.headers), row.timestamp_ms) for row in payments(3_000)
    )
    for order in source_order(copies).values():
        assert order == sorted(order)
    for partition in range(4):  # of one source by time: a user's payments on several partitions come in their order
        times = [r.timestamp_ms for r in copies if r.partition == partition]
        assert times == sorted(times)


def test_a_second_run_copies_only_what_came_since(kafka, three, produce, topics):
    source, target, _ = three
    produce(source, payments(50))
    settings = settings_for(kafka, three)
    assert rekey(settings, source, target).copied == 50
    assert rekey(settings, source, target).copied == 0
    produce(source, payments(30))
    assert rekey(settings, source, target).copied == 30
    assert len(topics.read(target)) == 80


def test_records_without_a_user_go_to_the_dead_letters_as_they_came(kafka, three, produce, consume_all):
    source, target, dead_letters = three
    bad = {
        b"": "empty_value",
        None: "empty_value",
        b"{": "invalid_json",
        b"[1]": "wrong_type",
        b'{"card": 1.5}': "wrong_type",
        b'{"card": null, "account": ""}': "missing_field",
        b"[" * 100_000: "invalid_json",
    }
    rows = [Row(b"key", value, 0, [("h", b"1")], NOW_MS) for value in bad]
    produce(source, [*rows, Row(None, b'{"account": "ann"}', 0, (), NOW_MS)])
    copied = rekey(settings_for(kafka, three), source, target)
    assert (copied.copied, copied.dead) == (1, len(bad))
    assert [(r.key, r.value) for r in consume_all(target)] == [(b"ann", b'{"account": "ann"}')]
    letters = consume_all(dead_letters)
    assert {(r.key, r.value, r.timestamp_ms) for r in letters} == {(b"key", value, NOW_MS) for value in bad}
    assert all(r.headers[0] == ("h", b"1") for r in letters)
    errors = {r.value: dict(r.headers)["error"].decode() for r in letters}
    assert errors.pop(b"[" * 100_000) in ("invalid_json", "too_deep", "wrong_type")
    assert errors == {value: error for value, error in bad.items() if value != b"[" * 100_000}
    assert {dict(r.headers)["source.offset"] for r in letters} == {b"%d" % n for n in range(len(bad))}


# A copy that kills itself with SIGKILL at a named point of its fourth transaction; at no point where there is none.
COPY = """
import os, signal, sys
from confluent_kafka import Producer
from stream import rekey
from stream.settings import load_settings

bootstrap, source, target, dead_letters, point = sys.argv[1:]
transactions = 0

def die(at):
    if at == point and transactions == 4:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(Producer):
    def begin_transaction(self):
        global transactions
        transactions += 1
        super().begin_transaction()

    def send_offsets_to_transaction(self, *arguments):
        self.flush(20)
        die("produced")
        super().send_offsets_to_transaction(*arguments)
        die("offsets sent")

    def commit_transaction(self, *arguments):
        super().commit_transaction(*arguments)
        die("committed")

rekey.Producer = Dying
rekey.BATCH = 400
settings = load_settings(None, {}, {
    "kafka.bootstrap_servers": bootstrap, "topics.dead_letters": dead_letters,
    "codec.fields": {"user_id": ["card", "account"]},
})
rekey.rekey(settings, source, target)
"""


def test_a_copy_killed_at_every_point_of_a_transaction_is_whole_in_the_end(kafka, three, produce, topics):
    source, target, dead_letters = three
    rows = payments(8_000)
    rows[3_000:3_000] = [Row(b"bad", b"{", 1, (), NOW_MS + 3_000)] * 7
    produce(source, rows)
    ends = []
    for point in ("produced", "offsets sent", "committed", "nowhere"):
        arguments = [sys.executable, "-c", COPY, kafka.bootstrap, *three, point]
        ends.append(subprocess.run(arguments, check=False, timeout=60).returncode)
    assert ends == [-signal.SIGKILL, -signal.SIGKILL, -signal.SIGKILL, 0], "each point was reached"
    copies = topics.read(target)
    assert sorted(r.value for r in copies) == sorted(row.value for row in rows if row.value != b"{")
    for order in source_order(copies).values():
        assert order == sorted(order)
    assert [r.value for r in topics.read(dead_letters)] == [b"{"] * 7
    # The killed transactions really had written something, which a reader must not see.
    assert len(topics.read(target, read_committed=False)) > len(copies)


def test_following_goes_on_until_told_to_stop_and_a_second_copy_of_the_same_fences_the_first(
    kafka, three, produce, topics
):
    source, target, _ = three
    settings = settings_for(kafka, three)
    raised, stopped = [], threading.Event()

    def follow():
        try:
            rekey(settings, source, target, follow=True, stop=stopped.is_set)
        except ProducerFenced as fenced:
            raised.append(fenced)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        produce(source, payments(10))
        wait_until(lambda: len(topics.read(target)) == 10, "the first ten are copied")
        assert rekey(settings, source, target).copied == 0
        produce(source, payments(10))
        thread.join(30)
    finally:
        stopped.set()
        thread.join(30)
    assert "if the same copy runs elsewhere, let that one finish" in str(raised)
    assert rekey(settings, source, target).copied == 10
    assert rekey(settings, source, target, follow=True, stop=lambda: True).copied == 0


def test_a_record_too_large_for_its_copy_becomes_a_dead_letter_without_its_value(kafka, three, topics):
    source, target, dead_letters = three
    large = json.dumps({"card": 1, "text": "x" * 2_000_000}).encode()
    squeezed = {"bootstrap.servers": kafka.bootstrap, "compression.type": "gzip", "message.max.bytes": 4_000_000}
    producer = Producer(squeezed)
    for value in (b'{"card": 1}', large, b'{"card": 2}'):
        producer.produce(source, value, b"k", partition=0)
    assert producer.flush(20) == 0
    settings = settings_for(kafka, three, **{"kafka.producer": {"compression.type": "none"}})
    copied = rekey(settings, source, target)
    assert (copied.copied, copied.dead) == (2, 1)
    assert sorted(r.value for r in topics.read(target)) == [b'{"card": 1}', b'{"card": 2}']
    (letter,) = topics.read(dead_letters)
    assert (letter.key, letter.value, dict(letter.headers)["error"]) == (b"k", None, b"too_large")


def test_a_copy_that_can_never_be_written_ends_with_the_brokers_reason(kafka, topic, produce):
    strict = {"message.timestamp.before.max.ms": "1000"}
    three = topic("source"), topic("target", config=strict), topic("dlq")
    produce(three[0], [Row(b"k", b'{"card": 1}', 0, (), NOW_MS)])
    with pytest.raises(BatchAborted, match=r"cannot go on: .*[Tt]imestamp"):
        rekey(settings_for(kafka, three), three[0], three[1])


def test_records_deleted_before_they_were_copied_are_an_error(kafka, three, produce, topics):
    source, target, _ = three
    settings = settings_for(kafka, three)
    produce(source, [Row(b"k", b'{"card": 1}', 0, (), NOW_MS)] * 3)
    assert rekey(settings, source, target).copied == 3
    produce(source, [Row(b"k", b'{"card": 1}', 0, (), NOW_MS)] * 3)
    topics.admin.delete_records([TopicPartition(source, 0, 5)])[TopicPartition(source, 0)].result(20)
    with pytest.raises(RecoveryError, match=r"stands at 3, but the log now goes from 5 to 6"):
        rekey(settings, source, target)


def test_a_topic_is_not_copied_into_itself_or_into_one_that_is_not_there(kafka, three):
    with pytest.raises(UsageError, match="into itself"):
        rekey(settings_for(kafka, three), three[0], three[0])
    with pytest.raises(StartupError, match="no-such does not exist"):
        rekey(settings_for(kafka, three), three[0], "no-such")


GOOD = {"max.message.bytes": "1000000", "cleanup.policy": "delete", "message.timestamp.type": "CreateTime"}


def state(name, allowed=("READ", "WRITE"), absent="", **config):
    settings = {**GOOD, **{key.replace("_", "."): value for key, value in config.items()}}
    return TopicState(name, absent=absent, partitions=1, allowed=frozenset(allowed), config=settings)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (state("s", allowed=["WRITE"]), state("t"), "may not read the topic s"),
        (state("s"), state("t", allowed=["READ"]), "may not write the topic t"),
        (state("s", absent="denied"), state("t"), "may not read the topic s"),
        (state("s"), state("t", message_timestamp_type="LogAppendTime"), "stamps records anew"),
        (state("s"), state("t", cleanup_policy="compact"), "is compacted"),
        (state("s"), state("t", max_message_bytes="999999"), "set its max.message.bytes to 1000000"),
    ],
)
def test_a_copy_that_would_lose_or_change_records_is_refused(source, target, reason):
    check_copy(state("s"), state("t"), state("d"))
    with pytest.raises(StartupError, match=reason):
        check_copy(source, target, state("d"))


def test_a_target_that_deletes_earlier_than_its_source_is_warned_of(kafka, topic):
    three = topic("source"), topic("target", config={"retention.ms": "604800000"}), topic("dlq")
    assert "keeps records for 7d, less than" in rekey(settings_for(kafka, three), three[0], three[1]).warning


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"card": 42}', b"42"),
        (b'{"card": "42", "account": "x"}', b"42"),
        (b'{"card": null, "account": "x"}', b"x"),
        ('{"card": "Zoë"}'.encode(), "Zoë".encode()),
        (b'{"card": 1, "card": 2}', b"2"),
        (b'{"card": true}', "wrong_type"),
        (b'{"card": 9223372036854775808}', "wrong_type"),
        (b"null", "wrong_type"),
        (b"{}", "missing_field"),
        (b'{"card": "\xff"}', "invalid_utf8"),
    ],
)
def test_the_user_is_found_as_the_mapping_says_or_the_reason_is_named(value, expected):
    finder = UserFinder(Mapping(fields={"user_id": ("card", "account")}))
    if isinstance(expected, bytes):
        assert finder(value) == expected
    else:
        with pytest.raises(NoUserError) as raised:
            finder(value)
        assert raised.value.error == expected
