"""A store in Redis (or Valkey), single or clustered, for any number of workers.

Keys, under a prefix; the braces are Redis' hash tag, so a partition's users and W share one slot::

    fraudstream:{<namespace>:<partition>}:w                 W: "<offset> <token> <written_at_ms>"; never expires
    fraudstream:{<namespace>:<partition>}:<token>:<user>    applied offset + 2^63 as 8 bytes big-endian, then the record
    fraudstream:<family>:namespaces                         a hash of the namespaces registered, as JSON

The token stands in the users' keys, so that ``begin`` forgets them all by writing one key, and a late write of a former
owner lands where nobody reads. The users of a former incarnation go when they expire.

Users expire ``expire_after_ms`` after they were last *written*, by the wall clock, never by event time: a backfill of
last year's events writes users whose newest event is long past, and they must live for as long as the backfill may
need them. It is the retention plus a margin. The margin has to cover how far the worker may fall behind: a user is gone
too early if event time moves on by less than the retention in that time. No less than the topic's own retention is
always enough, since what is further behind cannot be read any more.
"""

import struct
from collections.abc import Callable, Iterator, Sequence

from state.errors import DamagedRecord, StoreMismatch, StoreUnavailable
from state.record import applied_offset
from state.redis_connection import RedisConnection, Script, WrongType
from state.store import (
    LastSeen,
    Loaded,
    Namespace,
    Row,
    Watermark,
    advanced,
    begun,
    check_registered,
    verified,
    wall_clock_ms,
)

__all__ = ["RedisStore"]

_APPLIED = struct.Struct(">Q")
_BIAS = 1 << 63  # makes signed offsets compare as their bytes do
_READ_CHUNK = 1000  # users an MGET: about 1 ms of the server's one thread
_WRITE_CHUNK = 500  # users a script call: about 1 ms too
_WRITE_CHUNK_BYTES = 4 << 20  # a few heavy users must not make a call that outlasts the timeout
_SWAPS = 20  # each failed one is another worker's success; two of them meet for moments


class RedisStore:
    """``Store`` in the Redis at ``url`` (redis://, rediss:// or unix://)."""

    def __init__(
        self,
        url: str,
        namespace: Namespace,
        *,
        expire_after_ms: int | None = None,
        prefix: str = "fraudstream",
        cluster: bool = False,
        timeout_ms: int = 2000,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Bind to a namespace under ``prefix``; connects in ``open``.

        ``expire_after_ms``: see the module; None keeps users for ever.
        ``timeout_ms``: for connecting and for each wait on the socket.
        """
        if set(prefix) & set("{}"):
            raise StoreMismatch(f"the store's key prefix {prefix!r} must not hold braces: they would move its keys")
        self._connection = RedisConnection(url, cluster=cluster, timeout_ms=timeout_ms)
        self._namespace = namespace
        self._namespaces_key = f"{prefix}:{namespace.family}:namespaces"
        self._key_stem = f"{prefix}:{{{namespace.digest}:"
        self._expire_after_ms = expire_after_ms or 0
        self._now_ms = now_ms
        self._last_seen = LastSeen()
        self._save_users = Script("save_users.lua")
        self._swap_watermark = Script("swap_watermark.lua")

    def open(self) -> None:
        """Connect; check version, mode and that nothing may be evicted."""
        self._connection.open()

    def close(self) -> None:
        """Close every connection."""
        self._connection.close()

    def registered(self) -> list[Namespace]:
        """List the namespaces begun under this prefix for the same cluster, group and topic."""
        return [Namespace.from_json(text) for text in self._connection.command("HVALS", self._namespaces_key)]

    def register(self) -> None:
        """Record the namespace with its number of partitions."""
        self._connection.command("HSET", self._namespaces_key, self._namespace.digest, self._namespace.to_json())

    def watermark(self, partition: int) -> Watermark | None:
        """Read W and remember it as last seen."""
        watermark = self._parsed(partition, self._read_watermark(partition))
        self._last_seen.put(partition, watermark)
        return watermark

    def begin(self, partition: int, offset: int) -> Watermark:
        """Start the partition anew by writing W with a new token."""
        digest = self._namespace.digest
        self._connection.command("HSETNX", self._namespaces_key, digest, self._namespace.to_json())
        held = self._connection.command("HGET", self._namespaces_key, digest)
        check_registered(self._namespace, Namespace.from_json(held))
        watermark = begun(offset, self._now_ms())
        self._connection.command("SET", self._watermark_key(partition), _watermark_bytes(watermark))
        self._last_seen.put(partition, watermark)
        return watermark

    def load(self, partition: int, users: Sequence[bytes]) -> Loaded:
        """Read users and W with one MGET, or one for each thousand, each verified by the W it brought."""
        known = self._known(partition)
        stem = self._users_stem(partition, known)
        records: list[bytes | None] = []
        lowest: Watermark | None = None
        for start in range(0, max(len(users), 1), _READ_CHUNK):
            keys = [stem + user for user in users[start : start + _READ_CHUNK]]
            watermark, values = self._read(partition, known, keys)
            records += self._records(keys, values)
            lowest = lowest or watermark
        assert lowest is not None
        return Loaded(records, lowest)

    def save(self, partition: int, rows: Sequence[Row]) -> None:
        """Keep the newer version of each user, one script call for each few hundred."""
        known = self._known(partition)
        stem = self._users_stem(partition, known)
        for chunk in _chunks(rows):
            keys = [self._watermark_key(partition), *(stem + row.user for row in chunk)]
            values = [_APPLIED.pack(row.applied + _BIAS) + row.record for row in chunk]
            watermark, damaged = self._connection.run(
                self._save_users, keys, [known.token, self._expire_after_ms, *values]
            )
            self._verified(partition, known, watermark)
            if damaged:
                raise DamagedRecord(_text(keys[damaged]), "is not one of ours")

    def advance(self, partition: int, known: Watermark, offset: int) -> Watermark:
        """Raise W by compare-and-set: what may follow what is judged here, the script only swaps."""
        key = self._watermark_key(partition)
        for _ in range(_SWAPS):
            stored = self._read_watermark(partition)
            watermark = advanced(partition, known, self._parsed(partition, stored), offset, self._now_ms())
            assert stored is not None
            if self._connection.run(self._swap_watermark, [key], [stored, _watermark_bytes(watermark)]):
                self._last_seen.rise(partition, watermark)
                return watermark
        raise StoreUnavailable(f"W of partition {partition} changed {_SWAPS} times while it was being advanced")

    def key(self, partition: int, user: bytes) -> str:
        """Name a user's record; a ``*`` for the token while none was seen."""
        known = self._last_seen.get(partition)
        return _text(self._users_stem(partition, known or Watermark(0, "*")) + user)

    def _watermark_key(self, partition: int) -> bytes:
        return f"{self._key_stem}{partition}}}:w".encode()

    def _users_stem(self, partition: int, watermark: Watermark) -> bytes:
        return f"{self._key_stem}{partition}}}:{watermark.token}:".encode()

    def _known(self, partition: int) -> Watermark:
        """Return W as last seen: taken before the command whose answer it judges, so that W may rise meanwhile."""
        return self._last_seen.get(partition) or self._verified(partition, None, self._read_watermark(partition))

    def _read_watermark(self, partition: int) -> bytes | None:
        key = self._watermark_key(partition)
        try:
            stored: bytes | None = self._connection.command("GET", key)
        except WrongType:
            raise DamagedRecord(_text(key), "is not a watermark") from None
        return stored

    def _parsed(self, partition: int, stored: bytes | None) -> Watermark | None:
        if stored is None:
            return None
        try:
            offset, token, written_at_ms = stored.decode("ascii").split(" ")
            return Watermark(int(offset), token, int(written_at_ms))
        except ValueError:
            raise DamagedRecord(_text(self._watermark_key(partition)), "is not a watermark") from None

    def _verified(self, partition: int, known: Watermark | None, stored: bytes | None) -> Watermark:
        watermark = verified(partition, known, self._parsed(partition, stored))
        self._last_seen.rise(partition, watermark)
        return watermark

    def _read(self, partition: int, known: Watermark, keys: list[bytes]) -> tuple[Watermark, list[bytes | None]]:
        """Read W and values in one snapshot. MGET has nothing for a key of another type: tell that from a new user."""
        while True:
            stored, *values = self._connection.command("MGET", self._watermark_key(partition), *keys)
            watermark = self._verified(partition, known, stored)
            missing = [key for key, value in zip(keys, values, strict=True) if value is None]
            if not missing or not self._connection.command("EXISTS", *missing):
                return watermark, values
            for key in missing:
                if self._connection.command("TYPE", key) not in (b"string", b"none"):
                    raise DamagedRecord(_text(key), "is not one of ours")
            # Another owner saved one of them between the two commands: read again.

    def _records(self, keys: list[bytes], values: list[bytes | None]) -> Iterator[bytes | None]:
        for key, value in zip(keys, values, strict=True):
            if value is None:
                yield None
            elif len(value) < _APPLIED.size:
                raise DamagedRecord(_text(key), f"is {len(value)} bytes long, too short to be one of ours")
            else:
                record = value[_APPLIED.size :]
                # The record's checksum does not cover the number before it, by which the newer version wins.
                sealed = applied_offset(record)
                if sealed is not None and sealed != _APPLIED.unpack_from(value)[0] - _BIAS:
                    raise DamagedRecord(_text(key), "is kept under another offset than the one it was sealed with")
                yield record


def _watermark_bytes(watermark: Watermark) -> bytes:
    return f"{watermark.offset} {watermark.token} {watermark.written_at_ms}".encode("ascii")


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut rows into calls that are bounded in users and in bytes."""
    start = size = 0
    for end, row in enumerate(rows):
        if end > start and (end - start >= _WRITE_CHUNK or size + len(row.record) > _WRITE_CHUNK_BYTES):
            yield rows[start:end]
            start, size = end, 0
        size += len(row.record)
    if start < len(rows):
        yield rows[start:]
