"""Every label is joined once, whatever happens to the joiner, its index, its broker, or a twin."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition

from joined_topics import PARTITIONS, JoinedTopics, make
from joiner_process import POINTS, JoinerProcess
from kafka_topics import Topics
from labels_and_decisions import decision, label
from stream import label_index_file
from stream.errors import LabelIndexError
from stream.label_index import LabelIndex
from stream.topics import topic_id

pytestmark = pytest.mark.kafka

COUNT = 6_000


@pytest.fixture
def joined(topics: Topics) -> JoinedTopics:
    return JoinedTopics.create(topics)


@pytest.fixture
def start(request):
    """Start joiners; none outlives the test."""

    def begin(settings, point=None):
        process = JoinerProcess(settings, point)
        request.addfinalizer(process.close)
        return process

    return begin


def content(joined: JoinedTopics, settings):
    """What the index of a joiner that has ended holds."""
    named = (joined.decisions, joined.labels)
    identity = {f"topic {name}": topic_id(joined.topics.admin, name) for name in named}
    identity |= {"group": str(settings["monitor.group"]), "sample_rate": "1.0"}
    index = LabelIndex(Path(str(settings["labels.index"])), identity, 120 * 86_400_000)
    try:
        assert index.marks, "the index was made of something else"
        return index.content()
    finally:
        index.close()


def test_kills_at_every_point_lose_and_repeat_nothing(joined, start, tmp_path):
    made, settings = make(COUNT), joined.settings(tmp_path)
    first = start(settings)
    first.wait_for("live")
    assert first.stop() == 0, first.errors
    step = COUNT // 5
    for number, point in enumerate(POINTS):
        last = number == len(POINTS) - 1
        joined.produce(
            made.decisions[number * step : None if last else (number + 1) * step],
            made.labels[number * step : None if last else (number + 1) * step],
        )
        doomed = start(settings, f"{point}:{1 if point == 'committed' else 2}")
        assert doomed.end() == -signal.SIGKILL, doomed.errors
    joiner = start(settings)
    joiner.wait_for("live")
    joiner.wait_until(lambda: len(joined.written()) >= len(made.expected), "all labels are joined")
    assert joiner.stop() == 0, joiner.errors
    assert joined.written() == made.expected
    lived = content(joined, settings)

    # The index is a function of the log: read again, it is the same, and nothing is written a second time.
    Path(str(settings["labels.index"])).unlink()
    again = start(settings)
    again.wait_for("live")
    assert again.stop() == 0, again.errors
    assert again.count("rebuilding") == 6
    assert content(joined, settings) == lived
    assert joined.written() == made.expected


def test_a_graceful_stop_leaves_nothing_to_replay(joined, start, tmp_path):
    made, settings = make(500), joined.settings(tmp_path)
    joined.produce(made.decisions, made.labels)
    first = start(settings)
    joined.wait_for(made.expected, first)
    assert first.stop() == 0
    second = start(settings)
    second.wait_for("live")
    wait_for_no_lag(joined, second)
    assert second.count("rebuilding") == 0
    assert second.stop() == 0
    assert joined.written() == made.expected


def test_markers_at_the_end_of_a_log_are_no_lag(joined, start, tmp_path):
    producer = Producer({"bootstrap.servers": joined.topics.bootstrap, "transactional.id": joined.decisions})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(30):
        producer.produce(joined.decisions, decision(f"u-{number}", "t", event_time=1_000), f"u-{number}".encode())
    producer.commit_transaction(30)
    for _ in range(2):  # read, and begun behind what was read
        joiner = start(joined.settings(tmp_path))
        joiner.wait_for("live")
        wait_for_no_lag(joined, joiner)
        assert joiner.stop() == 0, joiner.errors


def test_a_log_deleted_up_to_a_marker_has_no_gap(joined, start, tmp_path):
    producer = Producer({"bootstrap.servers": joined.topics.bootstrap, "transactional.id": joined.decisions})
    producer.init_transactions(30)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(joined.decisions, decision("u", "t", event_time=1_000), b"u")
        producer.flush()
        end(30)
    first = start(joined.settings(tmp_path))
    first.wait_for("live")
    wait_for_no_lag(joined, first)
    assert first.stop() == 0, first.errors
    ends = [TopicPartition(joined.decisions, *place) for place in joined.topics.ends(joined.decisions).items()]
    for future in joined.topics.admin.delete_records(ends).values():
        future.result(30)
    second = start(joined.settings(tmp_path))
    second.wait_for("live")
    assert second.stop() == 0, second.errors
    assert second.count("rebuilding") == 0


def test_offsets_that_nothing_moves_are_committed_again_and_again(joined, start, tmp_path):
    settings = joined.settings(tmp_path)
    joined.produce([(b"u", decision("u", "t", event_time=1_000))], [(b"u", label("u", "t", True, 2_000))])
    joiner = start(settings, "refresh:0.3")
    joined.wait_for([b""], joiner)
    wait_for_no_lag(joined, joiner)
    before = committed(joined, settings)
    assert len(before) == 2 * PARTITIONS
    for _ in range(2):
        forget(joined, settings)
        joiner.wait_until(lambda: committed(joined, settings) == before, "all are committed again")
    assert joiner.stop() == 0, joiner.errors


def test_offsets_that_expired_while_nothing_was_written_are_no_trouble(joined, start, tmp_path):
    settings = joined.settings(tmp_path)
    joined.produce([(b"u", decision("u", "t", event_time=1_000))], [(b"u", label("u", "t", True, 2_000))])
    for number in range(2):
        joiner = start(settings)
        joiner.wait_for("live")
        joiner.wait_until(lambda: len(joined.written()) == 1, "the label is joined")
        if number:
            assert len(committed(joined, settings)) == 2 * PARTITIONS, "the start commits all"
            forget(joined, settings)
        assert joiner.stop() == 0, joiner.errors
        assert len(committed(joined, settings)) == 2 * PARTITIONS, "the stop commits all"
        forget(joined, settings)
    assert len(joined.written()) == 1


def test_a_lost_index_and_a_part_of_the_offsets_write_nothing_twice(joined, start, tmp_path):
    made, settings = make(300), joined.settings(tmp_path)
    joined.produce(made.decisions, made.labels)
    first = start(settings)
    joined.wait_for(made.expected, first)
    assert first.stop() == 0, first.errors
    kept = {place: at for place, at in committed(joined, settings).items() if place[1]}
    forget(joined, settings)
    rows = [TopicPartition(*place, at) for place, at in kept.items()]
    asked = [ConsumerGroupTopicPartitions(group(settings), rows)]
    joined.topics.admin.alter_consumer_group_offsets(asked)[group(settings)].result(30)
    Path(str(settings["labels.index"])).unlink()
    second = start(settings)
    assert second.end() == 1
    assert "has expired, those of other partitions have not, and the label index is gone" in second.errors
    third = start(settings | {"labels.recovery": "accept_partial"})
    third.wait_for("live")
    wait_for_no_lag(joined, third)
    assert third.stop() == 0, third.errors
    assert joined.written() == made.expected


def group(settings):
    return f"{settings['monitor.group']}-joiner"


def committed(joined, settings):
    """What the broker knows of the joiner's offsets."""
    asked = joined.topics.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group(settings))])
    found = asked[group(settings)].result(30).topic_partitions
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def forget(joined, settings):
    """Take all its offsets away, as their expiry does."""
    joined.topics.admin.delete_consumer_groups([group(settings)])[group(settings)].result(30)


def wait_for_no_lag(joined, joiner):
    zero = [[joined.decisions, 0], [joined.labels, 0]]
    joiner.wait_until(lambda: joiner.values("lag")[-2:] == zero, "there is no lag")


def test_a_twin_fences_the_first_which_ends_with_one_sentence(joined, start, tmp_path):
    first = start(joined.settings(tmp_path))
    first.wait_for("live")
    second = start(joined.settings(tmp_path / "elsewhere"))
    second.wait_for("live")
    joined.produce([(b"u", decision("u", "t", event_time=1_000))], [(b"u", label("u", "t", True, 2_000))])
    assert first.end() == 1
    assert "Another joiner of monitor.group = " in first.errors
    assert first.errors.count("\n") == 1
    second.wait_for("labelled")
    assert second.stop() == 0
    assert len(joined.written()) == 1


def test_a_second_joiner_on_the_same_file_is_refused(joined, start, tmp_path):
    first = start(joined.settings(tmp_path))
    first.wait_for("live")
    second = start(joined.settings(tmp_path))
    assert second.end() == 1
    assert "labels.sqlite is in use by another process" in second.errors
    assert first.stop() == 0


def test_what_is_no_label_goes_to_the_dead_letters_and_what_is_no_decision_is_counted(joined, start, tmp_path):
    bad = [b"{", b"", b'{"transaction_id":"t","user_id":"u","is_fraud":"yes","label_time":1}']
    joined.produce(
        [(b"u", b"no decision"), (b"u", decision("u", "t", event_time=1_000))],
        [*((b"u", value) for value in bad), (b"u", label("u", "t", False, 2_000))],
    )
    joiner = start(joined.settings(tmp_path))
    joiner.wait_for("labelled")
    assert joiner.stop() == 0, joiner.errors
    letters = joined.topics.read(joined.dead_letters)
    assert [(letter.key, letter.value) for letter in letters] == [(b"u", value) for value in bad]
    assert [dict(letter.headers)["error"] for letter in letters] == [b"invalid_json", b"empty_value", b"wrong_type"]
    assert {dict(letter.headers)["source.topic"] for letter in letters} == {joined.labels.encode()}
    assert [joined.decisions, "invalid_json", 1] in joiner.values("set_aside")
    assert len(joined.written()) == 1


def test_a_broker_that_restarts_is_outlived(own_kafka, start, tmp_path):
    topics = Topics(own_kafka.bootstrap)
    joined, made = JoinedTopics.create(topics), make(2_000)
    half = len(made.decisions) // 2, len(made.labels) // 2
    joined.produce(made.decisions[: half[0]], made.labels[: half[1]])
    joiner = start(joined.settings(tmp_path))
    joiner.wait_for("labelled")
    own_kafka.restart(crash=True)
    joined.produce(made.decisions[half[0] :], made.labels[half[1] :])
    joiner.wait_until(lambda: len(joined.written()) >= len(made.expected), "all labels are joined")
    assert joiner.stop() == 0, joiner.errors
    assert joined.written() == made.expected


def test_offsets_that_were_set_back_are_an_error_with_choices(joined, start, tmp_path):
    made = make(300)
    joined.produce(made.decisions, made.labels)
    first = start(joined.settings(tmp_path))
    joined.wait_for(made.expected, first)
    assert first.stop() == 0
    with closing(sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE watermarks SET offset = offset + 5")
    second = start(joined.settings(tmp_path))
    assert second.end() == 1
    assert "the group's offsets were set back: choose labels.recovery = rebuild" in second.errors
    third = start(joined.settings(tmp_path, **{"labels.recovery": "rebuild"}))
    third.wait_for("live")
    assert third.stop() == 0, third.errors
    assert joined.written() == made.expected


def test_an_index_that_cannot_be_written_is_one_sentence_and_nothing_is_lost(joined, start, tmp_path):
    made, settings = make(3_000), joined.settings(tmp_path)
    joined.produce(made.decisions[:20], [])
    first = start(settings)
    first.wait_for("indexed")
    assert first.stop() == 0
    with closing(sqlite3.connect(tmp_path / "labels.sqlite")) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    joined.produce(made.decisions[20:], made.labels)
    full = start(settings | {"labels.index": str(tmp_path / "labels.sqlite")}, f"full:{pages + 2}")
    assert full.end() == 1
    assert "database or disk is full" in full.errors
    assert full.errors.count("\n") == 1
    last = start(settings)
    last.wait_until(lambda: len(joined.written()) >= len(made.expected), "all labels are joined")
    assert last.stop() == 0
    assert joined.written() == made.expected


def test_another_programs_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (a)")
    connection.close()
    with pytest.raises(LabelIndexError, match=r"is another program's file: give labels\.index a path of its own\.$"):
        LabelIndex(path, {}, 1_000)
    (tmp_path / "text.sqlite").write_text("not a database at all" * 100)
    with pytest.raises(LabelIndexError, match="is not a readable SQLite file"):
        LabelIndex(tmp_path / "text.sqlite", {}, 1_000)


def test_a_file_that_another_holds_is_refused_and_ours_can_be_held_by_no_other(tmp_path, monkeypatch):
    path = tmp_path / "labels.sqlite"
    monkeypatch.setattr(label_index_file, "LOCK_SECS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LabelIndexError, match="is in use by another process: stop that one"):
            LabelIndex(path, {}, 1_000)
    index = LabelIndex(path, {}, 1_000)
    with closing(sqlite3.connect(path, timeout=0.1)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM watermarks")
    index.store({("t", 0): index_mark()})
    index.close()


def test_an_index_made_of_other_topics_or_settings_begins_anew(tmp_path):
    for identity, retention_ms in (({"a": "1"}, 1_000), ({"a": "2"}, 1_000), ({"a": "2"}, 2_000)):
        index = LabelIndex(tmp_path / "labels.sqlite", identity, retention_ms)
        assert index.marks == {}
        index.store({("t", 0): index_mark()})
        index.close()
    index = LabelIndex(tmp_path / "labels.sqlite", {"a": "2"}, 2_000)
    assert index.marks == {("t", 0): index_mark()}
    index.close()


def index_mark():
    from stream.label_index import Mark

    return Mark(5, 7)
