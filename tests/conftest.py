"""Fixtures every test may ask for: a real Kafka broker, topics on it, records in and out, a real Redis.

A part that is missing skips the tests that need it, with the command that brings it, and fails them where CI=true.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from absent import absent
from kafka_server import KafkaMissingError, KafkaServer
from kafka_topics import Record, Row, Topics
from model_bundle import model_bundle  # noqa: F401 - a fixture: a small real model, trained once a session
from redis_server import RedisMissingError, RedisServer
from tcp_proxy import TcpProxy

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
def proxied_kafka() -> Iterator[tuple[KafkaServer, TcpProxy]]:
    """A real broker for one test alone, and a way to it that can be slow, hang and break."""
    proxy = TcpProxy()
    with kafka_or_absent(proxy=proxy.port) as server, proxy.start(server.proxied_port):
        yield server, proxy


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
def proxied_redis(own_redis: RedisServer) -> Iterator[tuple[RedisServer, TcpProxy]]:
    """A real Redis for one test alone, and a way to it that can be slow, hang and break."""
    with TcpProxy().start(own_redis.port) as proxy:
        yield own_redis, proxy


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A real Redis for one test alone, which may stop, kill, wipe and put it back."""
    with redis_or_absent() as server:
        yield server


def kafka_or_absent(*, proxy: int = 0) -> KafkaServer:
    try:
        return KafkaServer(proxy=proxy)
    except KafkaMissingError as missing:
        absent(str(missing))


def redis_or_absent(*, cluster: bool = False) -> RedisServer:
    try:
        return RedisServer(cluster=cluster)
    except RedisMissingError as missing:
        absent(str(missing))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make chaos` and `make swaps` run their tests at length."""
    parser.addoption("--chaos", action="store_true", help="let the storm be long: 1,000,000 events, 600 trees")
    parser.addoption("--chaos-seed", type=int, default=20260101, help="draw the storm and the fuzzed inputs from this")
    parser.addoption("--monitor-kills", type=int, default=4, help="kill -9 the monitor so many times")
    parser.addoption("--promotions", type=int, default=10, help="promote so many times while workers score")
    parser.addoption("--promotion-events", type=int, default=20_000, help="over so many events")
    parser.addoption("--fuzzed", type=int, default=20_000, help="read so many messages that nobody should have sent")


def pytest_report_header(config: pytest.Config) -> str:
    """Name the seed before anything that is drawn from it can fail."""
    return f"drawn from --chaos-seed {config.getoption('--chaos-seed')}"


def _given(option: str, about: str) -> Any:
    """Return a fixture that is what the command line says, or the option's default."""

    def given(request: pytest.FixtureRequest) -> Any:
        return request.config.getoption(option)

    given.__doc__ = about  # as pytest --fixtures shows it
    return pytest.fixture(given)


fuzzed = _given("--fuzzed", "How many messages a fuzzing test reads.")
chaos = _given("--chaos", "Whether the storm is to be long.")
chaos_seed = _given("--chaos-seed", "What the storm and the fuzzed inputs are drawn from.")
monitor_kills = _given("--monitor-kills", "How many times the monitor is killed.")
promotions = _given("--promotions", "How many promotions the test of swaps makes.")
promotion_events = _given("--promotion-events", "How many events it runs over.")
