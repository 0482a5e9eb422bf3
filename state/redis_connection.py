"""The connection behind ``RedisStore``: which server may be used, and its errors as sentences.

Nothing is retried here: the worker has a circuit breaker, and a retry hidden below it would stretch every outage.
"""

import contextlib
import hashlib
import importlib.resources
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from state.errors import StoreMismatch, StoreUnavailable

__all__ = ["RedisConnection", "Script", "WrongType"]

_OLDEST_VERSION = (6, 2)  # the oldest that the tests have run on


class WrongType(Exception):
    """A key holds another type than the command reads. Stays inside the package: the store knows which key."""


class Script:
    """A Lua file of this package, sent by its hash and in full only where the server has not seen it."""

    def __init__(self, name: str) -> None:
        self.text = importlib.resources.files("state").joinpath(name).read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class RedisConnection:
    """One Redis server or cluster. Safe under threads: each call takes a connection of a pool."""

    def __init__(self, url: str, *, cluster: bool, timeout_ms: int) -> None:
        self.address = _address(url)
        self._url = url
        self._cluster = cluster
        self._timeout_secs = timeout_ms / 1000
        self._client: Any = None  # redis-py annotates its commands for sync and async at once

    def open(self) -> None:
        """Connect and check version, mode and eviction policy of every primary."""
        try:
            with self._in_sentences(opening=True):
                self._client = self._connect()
                for node in self._client.get_primaries() if self._cluster else [None]:
                    self._check(self._info(node))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def command(self, *args: bytes | str | int) -> Any:
        """Run one command whose keys all share a slot. Raises StoreUnavailable, or WrongType."""
        client = self._client
        if client is None:
            raise StoreUnavailable("the store is closed")
        with self._in_sentences():
            return client.execute_command(*args)

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Run a script on keys that share a slot."""
        client = self._client
        if client is None:
            raise StoreUnavailable("the store is closed")
        with self._in_sentences():
            try:
                return client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    def _connect(self) -> Any:
        options: dict[str, Any] = {
            "socket_timeout": self._timeout_secs,
            "socket_connect_timeout": self._timeout_secs,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # the older protocol has all that is needed, and no push messages to look out for
        }
        if self._cluster:
            return RedisCluster.from_url(self._url, **options)
        return redis.Redis.from_url(self._url, **options)

    def _info(self, node: Any) -> dict[str, Any]:
        where = {} if node is None else {"target_nodes": node}
        server: dict[str, Any] = self._client.execute_command("INFO", "server", **where)
        memory: dict[str, Any] = self._client.execute_command("INFO", "memory", **where)
        return server | memory

    def _check(self, info: dict[str, Any]) -> None:
        version = str(info.get("redis_version", ""))
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if numbers and numbers < _OLDEST_VERSION:
            raise StoreMismatch(
                f"{self.address} runs Redis {version}: upgrade it to {'.'.join(map(str, _OLDEST_VERSION))} or newer"
            )
        if not self._cluster and info.get("redis_mode") == "cluster":
            raise StoreMismatch(f"{self.address} is a Redis Cluster: set the store's cluster option to true")
        # From INFO, because managed servers forbid CONFIG. An evicted user would come back as one never seen.
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise StoreMismatch(
                f"{self.address} may evict users (maxmemory-policy {policy}), which would falsify their windows: "
                "run redis-cli CONFIG SET maxmemory-policy noeviction and set the same in redis.conf"
            )

    @contextlib.contextmanager
    def _in_sentences(self, *, opening: bool = False) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            if isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE"):
                raise WrongType from error
            if opening and isinstance(error, AuthenticationError | NoPermissionError):
                raise StoreMismatch(
                    f"{self.address} refuses these credentials ({error}): mend user, password or its ACL"
                ) from error
            if opening and "Cluster mode is not enabled" in str(error):
                raise StoreMismatch(
                    f"{self.address} is no Redis Cluster: set the store's cluster option to false"
                ) from error
            raise StoreUnavailable(f"{self.address} cannot be used now: {type(error).__name__}: {error}") from error


def _address(url: str) -> str:
    """Name the server without user and password. Raises StoreMismatch for what redis-py would read otherwise."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        port = None
    # A password with a bare # or ? in it cuts the address short: its first half would pass for host and port.
    cut_short = parts.fragment or "@" in parts.query
    if port is None or cut_short or parts.scheme not in ("redis", "rediss", "unix"):
        raise StoreMismatch(
            "the store's address cannot be read: write redis://user:password@host:port/db, rediss://… or unix://…, "
            "with special characters of the password percent-encoded"
        )
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
