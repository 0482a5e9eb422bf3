"""Doctor says what is wrong, part by part, on a real broker, and how to mend it."""

import json
import zlib
from dataclasses import replace

import pytest
from confluent_kafka import TopicPartition

from kafka_server import free_port
from kafka_topics import Row
from line_output import create_line
from redis_server import RedisServer
from state.store import Namespace
from stream.app import make_store
from stream.doctor import examine
from stream.murmur2 import partition_of
from stream.settings import load_settings
from stream.topics import describe_cluster, topic_id


@pytest.fixture
def look(kafka, model_bundle, tmp_path):
    """look(line, **overrides) returns {part: [(level, text)]}."""

    def look(line, **overrides):
        settings = settings_of(kafka, model_bundle, tmp_path, line, **overrides)
        found = {}
        for check in examine(settings):
            found.setdefault(check.name, []).append((check.level, check.text))
        return found

    return look


def settings_of(kafka, model_bundle, tmp_path, line, **overrides):
    given = {
        "kafka.bootstrap_servers": kafka.bootstrap,
        "kafka.group": line.transactions,
        "model.bundle": str(model_bundle),
        "store.path": str(tmp_path / "state.sqlite"),
        **line.settings(),
        **overrides,
    }
    return load_settings(None, {}, given)


def transaction(number, user):
    return json.dumps(
        {
            "transaction_id": f"t{number}",
            "user_id": user,
            "amount": 1.5,
            "currency": "EUR",
            "event_time": 1_700_000_000_000 + number,
        }
    ).encode()


def keyed(count, place=lambda _: -1):
    """Transactions of 50 users, on the partition that `place` gives a key."""
    for number in range(count):
        user = f"user-{number % 50}"
        yield Row(user.encode(), transaction(number, user), partition=place(user.encode()))


def levels(found):
    return {name: [level for level, _ in each] for name, each in found.items()}


def test_everything_in_order_is_one_ok_each(look, topics, produce):
    line = create_line(topics)
    produce(line.transactions, keyed(400))
    found = look(line)
    assert levels(found) == {
        name: ["OK"]
        for name in (
            *("broker", "topics", "partitions", "records", "keys", "partitioner"),
            *("model", "feature set", "store", "recovery", "telemetry"),
        )
    }
    assert "400 transactions are keyed by user" in found["keys"][0][1]
    assert "murmur2" in found["partitioner"][0][1]
    assert "would begin at the earliest offset: 400 ahead" in found["recovery"][0][1]


def test_a_missing_topic_of_telemetry_is_worth_a_word_and_prevents_nothing(look, topics):
    line = replace(create_line(topics), telemetry="nobody-made-this")
    found = look(line)
    assert levels(found)["telemetry"] == ["WARN"]
    assert "create it with `fraudstream topics create`" in found["telemetry"][0][1]
    assert levels(look(replace(line, telemetry="")))["telemetry"] == ["SKIP"]
    line = replace(line, telemetry=topics.create("telemetry", 2))
    assert "has 2 partitions" in look(line)["telemetry"][0][1]


def test_a_broker_that_is_down_leaves_the_rest_to_be_looked_at(look, topics):
    line = create_line(topics)
    found = look(line, **{"kafka.bootstrap_servers": f"127.0.0.1:{free_port()}"})
    assert levels(found)["broker"] == ["FAIL"]
    assert "kafka.bootstrap_servers" in found["broker"][0][1]
    assert levels(found)["model"] == levels(found)["feature set"] == levels(found)["store"] == ["OK"]
    for name in ("topics", "partitions", "records", "keys", "partitioner", "recovery"):
        assert found[name] == [("SKIP", "not looked at, because the broker does not answer")]


def test_missing_topics_are_named(look, topics):
    line = create_line(topics)
    topics.delete(line.decisions)
    found = look(line)
    assert levels(found)["topics"] == ["FAIL"]
    assert f"The topic {line.decisions} (topics.decisions) does not exist" in found["topics"][0][1]
    assert levels(found)["partitions"] == ["SKIP"]


def test_too_few_partitions_of_the_decisions_are_a_failure(look, topics, topic):
    line = create_line(topics)
    found = look(line, **{"topics.decisions": topic("few", partitions=2)})
    assert levels(found)["partitions"] == ["FAIL"]
    assert "until it has as many" in found["partitions"][0][1]


def test_an_empty_topic_is_no_fault(look, topics):
    found = look(create_line(topics))
    assert levels(found)["records"] == levels(found)["keys"] == levels(found)["partitioner"] == ["SKIP"]
    assert "is empty" in found["keys"][0][1]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"merchant-1", "all of the newest 60 transactions have a key that is not the user id and"),
        (None, "(60 have none)"),
    ],
)
def test_keys_that_are_not_the_user_are_a_failure_that_names_rekey(look, topics, produce, key, says):
    line = create_line(topics)
    produce(line.transactions, [(key, transaction(n, f"user-{n}")) for n in range(60)])
    found = look(line)
    assert levels(found)["keys"] == ["FAIL"]
    assert says in found["keys"][0][1]
    assert "`fraudstream rekey`" in found["keys"][0][1]
    assert levels(found)["records"] == ["OK"]


def test_records_that_are_no_transactions_are_counted_by_reason(look, topics, produce):
    line = create_line(topics)
    produce(line.transactions, [*keyed(90), *[(b"u", b"no json")] * 7, *[(b"u", b"{}")] * 3])
    found = look(line)
    assert levels(found)["records"] == ["WARN"]
    assert "10 of the newest 100 are no transactions" in found["records"][0][1]
    assert "7 invalid_json, 3 missing_field transaction_id" in found["records"][0][1]
    assert levels(found)["keys"] == ["OK"]


def test_a_mapping_that_fits_no_record_is_a_failure(look, topics, produce):
    line = create_line(topics)
    produce(line.transactions, keyed(50))
    found = look(line, **{"codec.fields": {"amount": "TX_AMOUNT"}})
    assert levels(found)["records"] == ["FAIL"]
    assert "50 of the newest 50" in found["records"][0][1]
    assert levels(found)["keys"] == ["SKIP"]


@pytest.mark.parametrize(
    ("place", "level", "says"),
    [
        (lambda key: zlib.crc32(key) % 4, "WARN", "CRC32, librdkafka's default"),
        (lambda key: partition_of(key, 4), "OK", "murmur2"),
        (lambda key: int(key[5:]) % 4, "WARN", "neither murmur2 nor CRC32"),
    ],
)
def test_the_producers_partitioner_is_told_from_where_the_keys_lie(look, topics, produce, place, level, says):
    line = create_line(topics)
    produce(line.transactions, keyed(200, place))
    found = look(line)
    assert levels(found)["partitioner"] == [level]
    assert says in found["partitioner"][0][1]


def test_users_on_two_partitions_are_a_failure(look, topics, produce):
    line = create_line(topics)
    produce(line.transactions, [*keyed(100), *keyed(100, lambda key: zlib.crc32(key) % 4)])
    found = look(line)
    assert levels(found)["partitioner"] == ["FAIL"]
    assert "are on more than one partition" in found["partitioner"][0][1]


def test_a_missing_bundle_and_a_foreign_feature_set_are_told_apart(look, topics, tmp_path):
    line = create_line(topics)
    found = look(line, **{"model.bundle": str(tmp_path / "none")})
    assert levels(found)["model"] == ["FAIL"]
    assert levels(found)["feature set"] == ["OK"]
    assert "not compared with the model" in found["feature set"][0][1]
    other = tmp_path / "mine.toml"
    other.write_text('name = "mine"\n[[feature]]\nname = "n"\naggregate = "count"\nwindow = "1h"\ntext = "{value}"\n')
    found = look(line, **{"state.feature_set": str(other)})
    assert levels(found)["model"] == ["OK"]
    assert levels(found)["feature set"] == ["FAIL"]
    assert "was trained on feature set default" in found["feature set"][0][1]


def test_an_altered_bundle_is_a_failure_of_the_model(look, topics, model_bundle, tmp_path):
    import shutil

    altered = tmp_path / "altered"
    shutil.copytree(model_bundle, altered)
    (altered / "meta.json").write_text("{}")
    found = look(create_line(topics), **{"model.bundle": str(altered)})
    assert levels(found)["model"] == ["FAIL"]
    assert "meta.json does not match its checksum" in found["model"][0][1]


def test_state_that_keeps_too_little_for_the_features_is_a_failure(look, topics):
    found = look(create_line(topics), **{"state.retention": "7d"})
    assert levels(found)["feature set"] == ["FAIL"]
    assert "looks back 30d, but the state keeps 7d" in found["feature set"][0][1]


def test_a_redis_that_evicts_or_is_down_is_a_failure_and_a_good_one_is_not(look, topics, redis: RedisServer):
    line = create_line(topics)
    good = {"store.kind": "redis", "store.url": redis.url}
    assert "redis answers, evicts nothing, has no state yet" in look(line, **good)["store"][0][1]
    down = look(line, **{"store.kind": "redis", "store.url": f"redis://127.0.0.1:{free_port()}"})
    assert levels(down)["store"] == levels(down)["recovery"] == ["FAIL"]
    assert "cannot be used now" in down["store"][0][1]


def open_store(settings, topics, line, partitions):
    """The store as a worker opens it whose input has so many partitions."""
    name = line.transactions
    cluster, state = describe_cluster(topics.admin), settings.state_spec().hash
    store = make_store(settings, Namespace(cluster, name, name, topic_id(topics.admin, name), state, partitions))
    store.open()
    return store


def test_state_ahead_of_the_committed_offsets_is_a_failure(look, kafka, topics, produce, model_bundle, tmp_path):
    line = create_line(topics)
    produce(line.transactions, keyed(100))
    settings = settings_of(kafka, model_bundle, tmp_path, line)
    store = open_store(settings, topics, line, partitions=4)
    for partition in range(4):
        store.begin(partition, 10)
    store.close()
    commit(topics, line.transactions, dict.fromkeys(range(4), 5))
    found = look(line)
    assert "holds this state" in found["store"][0][1]
    assert levels(found)["recovery"] == ["FAIL"]
    assert "ahead of the committed offset 5" in found["recovery"][0][1]
    assert "3 more partitions" in found["recovery"][0][1]
    commit(topics, line.transactions, dict.fromkeys(range(4), 12))
    found = look(line)
    assert "8 to replay without output" in found["recovery"][0][1]


def test_state_of_another_partition_count_is_refused_with_the_choices(look, kafka, topics, model_bundle, tmp_path):
    line = create_line(topics)
    settings = settings_of(kafka, model_bundle, tmp_path, line)
    store = open_store(settings, topics, line, partitions=2)
    store.begin(0, 0)
    store.close()
    found = look(line)
    assert levels(found)["store"] == ["FAIL"]
    assert "its state was built with 2" in found["store"][0][1]


def test_looking_changes_nothing(look, topics, produce, tmp_path):
    line = create_line(topics)
    produce(line.transactions, keyed(20))
    look(line)
    assert not (tmp_path / "state.sqlite").exists()
    assert list(tmp_path.glob(".fraudstream*")) == []


def commit(topics, group, offsets):
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": topics.bootstrap, "group.id": group, "enable.auto.commit": False})
    consumer.commit(
        offsets=[TopicPartition(group, partition, offset) for partition, offset in offsets.items()], asynchronous=False
    )
    consumer.close()
