"""Fixtures of the stores: a real Redis server, shared or a test's own."""

import os
from collections.abc import Iterator

import pytest

from redis_server import RedisMissingError, RedisServer
from state.store import Namespace
from store_backends import Backend, Memory, Redis, Sqlite, new_namespace


def started(*options: str, cluster: bool = False) -> RedisServer:
    """Start a server; where there is none, skip with the command that brings one, or fail where CI=true."""
    try:
        return RedisServer(options, cluster=cluster).start()
    except RedisMissingError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A real Redis for the whole session. A test that stops or wipes it starts one of its own instead."""
    server = started()
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisServer]:
    """A real Redis Cluster of one node, for the whole session: it refuses commands across slots as any does."""
    server = started(cluster=True)
    yield server
    server.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A real Redis for one test alone, which may stop, kill, wipe and put it back."""
    server = started()
    yield server
    server.close()


@pytest.fixture(
    scope="session",
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("cluster", marks=pytest.mark.redis),
    ],
)
def every_backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """Each store in turn, kept for the session: tests stay apart by their namespaces."""
    match request.param:
        case "memory":
            return Memory()
        case "sqlite":
            return Sqlite(tmp_path_factory.mktemp("sqlite"))
        case "redis":
            return Redis(request.getfixturevalue("redis"), cluster=False)
        case _:
            return Redis(request.getfixturevalue("redis_cluster"), cluster=True)


@pytest.fixture
def backend(every_backend: Backend) -> Iterator[Backend]:
    """Each store in turn; what a test opened is closed."""
    yield every_backend
    every_backend.close()


@pytest.fixture
def namespace() -> Namespace:
    """A namespace of the test's own."""
    return new_namespace()
