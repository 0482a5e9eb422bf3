"""Every client configuration is one librdkafka accepts, and what exactly-once fixes wins over the user's properties."""

import logging

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from kafka_topics import wait_until
from stream.clients import (
    admin_config,
    consumer_config,
    copier_configs,
    producer_config,
    publisher_config,
    transactional_id,
)
from stream.sections import KafkaSettings, Properties
from stream.settings import Settings


def settings(**kafka):
    return Settings(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1", **kafka))


def test_librdkafka_knows_every_property_and_warns_of_none(kafka, caplog):
    own = Settings(kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap, instance_id="a"))
    copier, copying = copier_configs(own, "from", "to", 500_000)
    consumers = [Consumer(consumer_config(own)), Consumer(copier)]
    producers = [
        Producer(producer_config(own, transactional=True)),
        Producer(producer_config(own, transactional=False)),
        Producer(publisher_config(own)),
        Producer(copying),
    ]
    admin = AdminClient(admin_config(own))
    with caplog.at_level(logging.INFO, logger="fraudstream.kafka"):
        for client in [*consumers, *producers, admin]:
            client.list_topics(timeout=20)
            client.poll(0)
    for consumer in consumers:
        consumer.close()
    assert [record.getMessage() for record in caplog.records if "CONF" in record.getMessage()] == []


@pytest.mark.parametrize(("session_ms", "poll_ms"), [(45_000, 120_000), (1_800_000, 1_800_000)])
def test_a_rebalance_waits_for_a_silent_member_no_longer_than_a_loop_may_be_silent(session_ms, poll_ms):
    config = consumer_config(settings(session_timeout_ms=session_ms))
    Consumer(config).close()
    assert config["max.poll.interval.ms"] == poll_ms
    own = settings(consumer=Properties({"max.poll.interval.ms": "600000"}))
    assert consumer_config(own)["max.poll.interval.ms"] == "600000"


def test_what_a_client_reports_besides_messages_is_handed_on():
    said = []
    consumer = Consumer(consumer_config(settings(), on_error=said.append))
    wait_until(lambda: consumer.poll(0.05) or said, "the broker that is not there is reported")
    consumer.close()


def test_the_users_properties_win_over_defaults_and_lose_to_what_is_fixed():
    passed = Properties(
        {"linger.ms": "50", "acks": "1", "fetch.wait.max.ms": "7", "isolation.level": "read_uncommitted"}
    )
    own = settings(properties=passed)
    producer, consumer = producer_config(own, transactional=False), consumer_config(own)
    assert (producer["linger.ms"], producer["acks"]) == ("50", "all")
    assert (consumer["fetch.wait.max.ms"], consumer["isolation.level"]) == ("7", "read_committed")


def test_a_role_gets_its_own_properties_only():
    own = settings(consumer=Properties({"fetch.min.bytes": "9"}), producer=Properties({"linger.ms": "9"}))
    assert consumer_config(own)["fetch.min.bytes"] == "9"
    assert "linger.ms" not in consumer_config(own)
    assert {"fetch.min.bytes", "linger.ms"}.isdisjoint(admin_config(own))


@pytest.mark.parametrize(("session_ms", "heartbeat_ms"), [(45_000, 3_000), (1_000, 333)])
def test_three_heartbeats_fit_into_a_session(session_ms, heartbeat_ms):
    assert consumer_config(settings(session_timeout_ms=session_ms))["heartbeat.interval.ms"] == heartbeat_ms


def test_a_named_worker_keeps_its_transactional_id_and_a_nameless_one_gets_a_new_one():
    assert transactional_id("group", "a") == transactional_id("group", "a") == "group-a"
    assert transactional_id("group", "") != transactional_id("group", "")
    assert "group.instance.id" not in consumer_config(settings())


def test_batches_are_no_larger_than_the_smallest_topic_takes():
    assert producer_config(settings(), transactional=True)["batch.size"] == 1_000_000
    assert producer_config(settings(), transactional=True, batch_bytes=5_000)["batch.size"] == 5_000


def test_no_record_outlives_its_transaction():
    config = producer_config(settings(transaction_timeout_ms=4_000), transactional=True)
    assert (config["transaction.timeout.ms"], config["delivery.timeout.ms"]) == (4_000, 4_000)


def test_the_embedded_brokers_address_replaces_the_settings():
    assert consumer_config(settings(), bootstrap="127.0.0.1:9")["bootstrap.servers"] == "127.0.0.1:9"
