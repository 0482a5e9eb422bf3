"""Fixtures of the stores: each of them in turn, and a namespace of a test's own."""

from collections.abc import Iterator

import pytest

from state.store import Namespace
from store_backends import Backend, Memory, Redis, Sqlite, new_namespace


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
