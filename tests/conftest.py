"""Fixtures every test may ask for: a real Kafka broker, topics on it, records in and out, a real Redis.

A part that is missing skips the tests that need it, with the command that brings it, and fails them where CI=true.
"""

from collections.abc import Callable, Iterable, Iterator

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
    parser.addoption("--chaos-seed", type=int, default=20260101, help="draw the storm from this")
    parser.addoption("--monitor-kills", type=int, default=4, help="kill -9 the monitor so many times")
    parser.addoption("--promotions", type=int, default=10, help="promote so many times while workers score")
    parser.addoption("--promotion-events", type=int, default=20_000, help="over so many events")
    parser.addoption("--fuzzed", type=int, default=20_000, help="read so many messages that nobody should have sent")


@pytest.fixture
def fuzzed(request: pytest.FixtureRequest) -> int:
    """How many messages a fuzzing test reads."""
    count: int = request.config.getoption("--fuzzed")
    return count


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> bool:
    """Whether the storm is to be long."""
    long: bool = request.config.getoption("--chaos")
    return long


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """What the storm is drawn from."""
    seed: int = request.config.getoption("--chaos-seed")
    return seed


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
