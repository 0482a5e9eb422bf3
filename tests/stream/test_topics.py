"""Topics are created as they should be, and everything wrong with them is named before a start."""

import dataclasses

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from kafka_server import free_port
from kafka_topics import wait_until
from stream.clients import admin_config
from stream.errors import StartupError
from stream.sections import KafkaSettings, TopicSettings
from stream.settings import Settings
from stream.topic_check import TopicState, check_telemetry, check_topics
from stream.topics import (
    create_topics,
    describe_cluster,
    describe_topics,
    look_around,
    plan_topics,
    plan_watch_topics,
    topic_id,
    topic_names,
    watermarks,
)

DAY_MS = 86_400_000
RETENTION_MS = 31 * DAY_MS


@pytest.fixture
def settings(kafka, request):
    name = request.node.name.split("[")[0][-150:]
    topics = TopicSettings(
        transactions=f"{name}.in",
        decisions=f"{name}.decisions",
        features=f"{name}.features",
        dead_letters=f"{name}.dlq",
        telemetry=f"{name}.telemetry",
    )
    return Settings(kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap), topics=topics)


@pytest.fixture
def admin(settings):
    return AdminClient(admin_config(settings))


def allow_only(admin, topic, operation):
    """Once anything is allowed on a topic, whatever is not is denied."""
    acl = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        operation,
        AclPermissionType.ALLOW,
    )
    for future in admin.create_acls([acl]).values():
        future.result(20)


def plan_worker_topics(settings, partitions):
    """The topics that a worker has to do with."""
    watched = plan_watch_topics(settings, partitions)
    return [*plan_topics(settings, partitions), *(plan for plan in watched if plan.name == settings.topics.telemetry)]


def test_created_topics_pass_every_check_and_creating_them_again_changes_nothing(settings, admin):
    created = create_topics(admin, plan_worker_topics(settings, 3))
    assert sorted(created) == sorted([*topic_names(settings).values(), settings.topics.telemetry])
    around = look_around(settings)
    assert around.partitions == 3
    assert around.cluster_id == describe_cluster(admin)
    assert around.topic_id == topic_id(admin, settings.topics.transactions)
    assert around.feature_bytes == 4 << 20
    assert around.batch_bytes == 1_000_000
    assert around.warnings == []
    assert create_topics(admin, plan_topics(settings, 5)) == []
    assert look_around(settings).partitions == 3


def test_a_topic_created_again_under_its_name_has_another_id(admin, topics, topic):
    name = topic()
    before = topic_id(admin, name)
    assert topic_id(admin, name) == before
    topics.delete(name)
    topics.create_exactly(name)
    assert topic_id(admin, name) != before


def test_a_missing_topic_is_named(settings, admin):
    create_topics(admin, plan_topics(settings, 2)[:3])
    with pytest.raises(StartupError, match=r"dlq \(topics.dead_letters\) does not exist: create it"):
        look_around(settings)
    with pytest.raises(StartupError, match="is missing"):
        topic_id(admin, settings.topics.dead_letters)


def test_a_topic_nobody_lets_us_write_is_named_and_hidden_settings_are_said(settings, admin):
    create_topics(admin, plan_worker_topics(settings, 2))
    allow_only(admin, settings.topics.transactions, AclOperation.READ)
    wait_until(lambda: hidden(admin, settings.topics.transactions), "the rule holds")
    assert [finding.code for finding in look_around(settings).warnings] == ["settings_hidden"]
    allow_only(admin, settings.topics.decisions, AclOperation.READ)
    wait_until(lambda: hidden(admin, settings.topics.decisions), "the rule holds")
    with pytest.raises(StartupError, match=r"may not write the topic .*decisions"):
        look_around(settings)


def test_a_topic_nobody_lets_us_see_is_named(settings, admin):
    create_topics(admin, plan_topics(settings, 2))
    allow_only(admin, settings.topics.transactions, AclOperation.ALTER_CONFIGS)
    name = settings.topics.transactions
    wait_until(lambda: describe_topics(admin, [name])[name].absent == "denied", "the rule holds")
    with pytest.raises(StartupError, match=r"may not read the topic .*\.in \(topics.transactions\): grant it Read"):
        look_around(settings)


def hidden(admin, name):
    return describe_topics(admin, [name])[name].config is None


def test_a_broker_that_is_not_there_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr("stream.topics.REQUEST_SECS", 1.0)
    away = Settings(kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"))
    with pytest.raises(StartupError, match=r"No broker answered within 1 s: check kafka.bootstrap_servers"):
        look_around(away)


def test_a_topic_that_cannot_be_created_is_named_with_the_brokers_reason(settings, admin):
    with pytest.raises(StartupError, match=r"could not be created: .*replication factor"):
        create_topics(admin, plan_topics(settings, 2, replicas=3), replicas=3)


def test_watermarks_follow_deleted_and_written_records(admin, topic, produce):
    name = topic(partitions=2)
    produce(name, [(b"a", b"1")] * 5)
    (partition,) = (number for number, (_, end) in watermarks(admin, name, 2).items() if end == 5)
    deleted = admin.delete_records([TopicPartition(name, partition, 3)])
    for future in deleted.values():
        future.result(20)
    assert watermarks(admin, name, 2) == {partition: (3, 5), 1 - partition: (0, 0)}


def test_watermarks_of_a_missing_topic_are_an_error(admin):
    with pytest.raises(StartupError):
        watermarks(admin, "no-such-topic", 1)


GOOD = {
    "cleanup.policy": "delete",
    "retention.ms": str(RETENTION_MS),
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
}


def states(**changes):
    """Four topics as they should be, with changes to one of them: transactions=dict(partitions=3)."""
    plain = {
        role: TopicState(
            role, partitions=4, replicas=3, allowed=frozenset({"READ", "WRITE", "DESCRIBE"}), config=dict(GOOD)
        )
        for role in ("transactions", "decisions", "features", "dead_letters")
    }
    plain["dead_letters"] = changed(plain["dead_letters"], {"max.message.bytes": str(1_048_588 + 65_536)})
    return {role: changed(state, changes.get(role, {})) for role, state in plain.items()}


def changed(state, change):
    fields = {name: value for name, value in change.items() if "." not in name}
    config = {name: value for name, value in change.items() if "." in name}
    return dataclasses.replace(state, **{"config": {**state.config, **config}, **fields})


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({}, None, ""),
        ({"allowed": None}, None, ""),
        ({"config": None}, None, ""),
        ({"absent": "missing"}, "missing_topic", "create it with `fraudstream topics create`"),
        ({"absent": "denied"}, "no_rights", "grant it Write and Describe"),
        ({"allowed": frozenset({"READ"})}, "no_rights", "grant it Write and Describe"),
        ({"partitions": 4}, "partition_mismatch", "create it anew with 1"),
    ],
)
def test_whatever_is_wrong_with_the_topic_of_telemetry_is_only_worth_a_word(change, code, words):
    there = TopicState("telemetry", partitions=1, allowed=frozenset({"WRITE", "DESCRIBE"}), config=GOOD)
    found = check_telemetry(dataclasses.replace(there, **change))
    assert [(finding.code, finding.fatal) for finding in found] == ([(code, False)] if code else [])
    assert all(words in finding.sentence for finding in found)


@pytest.mark.parametrize(
    ("role", "change", "expected"),
    [
        ("transactions", {}, []),
        ("transactions", {"absent": "missing"}, [("missing_topic", True)]),
        ("decisions", {"absent": "denied"}, [("no_rights", True)]),
        ("transactions", {"allowed": frozenset({"WRITE"})}, [("no_rights", True)]),
        ("features", {"allowed": frozenset({"READ"})}, [("no_rights", True)]),
        ("features", {"allowed": None}, []),
        ("features", {"config": None}, [("settings_hidden", False)]),
        ("decisions", {"partitions": 3}, [("partition_mismatch", True)]),
        ("decisions", {"partitions": 5}, [("partition_mismatch", False)]),
        ("features", {"partitions": 3}, [("partition_mismatch", True)]),
        ("dead_letters", {"partitions": 1}, []),
        ("dead_letters", {"max.message.bytes": "1114123"}, [("dead_letter_limit", False)]),
        ("transactions", {"max.message.bytes": "1048589"}, [("dead_letter_limit", False)]),
        ("transactions", {"cleanup.policy": "compact,delete"}, [("compacted", True)]),
        ("decisions", {"cleanup.policy": "compact"}, [("compacted", False)]),
        ("transactions", {"retention.ms": str(RETENTION_MS - 1)}, [("short_retention", False)]),
        ("transactions", {"retention.ms": "-1"}, []),
        ("decisions", {"retention.ms": "1"}, []),
        ("transactions", {"retention.bytes": "1000000"}, [("short_retention", False)]),
        ("decisions", {"replicas": 1}, [("unwritable", True)]),
        ("decisions", {"min.insync.replicas": "1"}, [("one_copy_suffices", False)]),
        ("decisions", {"replicas": 1, "min.insync.replicas": "1"}, []),
        ("transactions", {"unclean.leader.election.enable": "true"}, [("unclean_election", False)]),
    ],
)
def test_each_thing_wrong_has_a_name_and_a_sentence(role, change, expected):
    findings = check_topics(states(**{role: change}), RETENTION_MS)
    assert [(finding.code, finding.fatal) for finding in findings] == expected
    assert all(finding.sentence.endswith(".") and ": " in finding.sentence for finding in findings)


def test_fatal_findings_come_first():
    findings = check_topics(
        states(transactions={"retention.ms": "1"}, decisions={"partitions": 1}), retention_ms=RETENTION_MS
    )
    assert [finding.fatal for finding in findings] == [True, False]
