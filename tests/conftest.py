"""Fixtures every test may ask for: a real Kafka broker, topics on it, records in and out, a real Redis.

A part that is missing skips the tests that need it, with the command that brings it, and fails them where CI=true.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import pytest
from hypothesis import settings

from kafka_server import KafkaMissingError, KafkaServer
from kafka_topics import Record, Row, Topics
from model_bundle import model_bundle  # noqa: F401 - a fixture: a small real model, trained once a session
from redis_server import RedisMissingError, RedisServer

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """A real broker for the whole session. A test that stops or kills it starts one of its own instead."""
    with kafka_or_absent() as server:
        yield server


@pytest.fixture
def own_kafka() -> Iterator[KafkaServer]:
    """A real broker for one test alone, which may stop, kill, suspend and restart it."""
    with kafka_or_absent() as server:
        yield server


@pytest.fixture
def topics(kafka: KafkaServer) -> Topics:
    """Topics on the session's broker."""
    return Topics(kafka.bootstrap)


@pytest.fixture
def topic(topics: Topics) -> Callable[..., str]:
    """topic(name="topic", partitions=4, config=None) creates a topic and returns its unique name."""
    return topics.create


@pytest.fixture
def produce(topics: Topics) -> Callable[[str, Iterable[Row | tuple[bytes | None, bytes | None]]], list[Record]]:
    """produce(topic, rows) writes rows or (key, value) pairs in order and returns them with their places."""
    return topics.produce


@pytest.fixture
def consume_all(topics: Topics) -> Callable[..., list[Record]]:
    """consume_all(topic, read_committed=True) reads a topic to its present end, by partition and offset."""
    return topics.read


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A real Redis for the whole session. A test that stops or wipes it starts one of its own instead."""
    with redis_or_absent() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisServer]:
    """A real Redis Cluster of one node, for the whole session: it refuses commands across slots as any does."""
    with redis_or_absent(cluster=True) as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A real Redis for one test alone, which may stop, kill, wipe and put it back."""
    with redis_or_absent() as server:
        yield server


def kafka_or_absent() -> KafkaServer:
    try:
        return KafkaServer()
    except KafkaMissingError as missing:
        absent(str(missing))


def redis_or_absent(*, cluster: bool = False) -> RedisServer:
    try:
        return RedisServer(cluster=cluster)
    except RedisMissingError as missing:
        absent(str(missing))


def absent(reason: str) -> NoReturn:
    """Skip, or fail where CI=true, because a real part is missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make chaos` run the crash test at length."""
    parser.addoption("--chaos-kills", type=int, default=12, help="kill -9 so many times in the crash test")
    parser.addoption("--chaos-events", type=int, default=50_000, help="over so many events")
    parser.addoption("--monitor-kills", type=int, default=4, help="kill -9 the monitor so many times")
    parser.addoption("--promotions", type=int, default=20, help="promote so many times while workers score")
    parser.addoption("--promotion-events", type=int, default=40_000, help="over so many events")


@pytest.fixture
def chaos_kills(request: pytest.FixtureRequest) -> int:
    """How many kills the crash test makes."""
    kills: int = request.config.getoption("--chaos-kills")
    return kills


@pytest.fixture
def chaos_events(request: pytest.FixtureRequest) -> int:
    """How many events the crash test runs over."""
    events: int = request.config.getoption("--chaos-events")
    return events


@pytest.fixture
def monitor_kills(request: pytest.FixtureRequest) -> int:
    """How many times the monitor is killed."""
    kills: int = request.config.getoption("--monitor-kills")
    return kills


@pytest.fixture
def promotions(request: pytest.FixtureRequest) -> int:
    """How many promotions the test of swaps makes."""
    count: int = request.config.getoption("--promotions")
    return count


@pytest.fixture
def promotion_events(request: pytest.FixtureRequest) -> int:
    """How many events it runs over."""
    count: int = request.config.getoption("--promotion-events")
    return count
