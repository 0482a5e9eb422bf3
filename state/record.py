"""A user's durable record: its events and nothing derived, in a fixed little-endian format.

    offset    size   content
    0         4      magic "FSUR"
    4         2      format version, 1
    6         2      F, kept fields
    8         8      state hash (`StateSpec.hash` as bytes)
    16        8      applied offset, signed
    24        8      floor in ms, signed; -2⁶² while nothing was dropped
    32        4      n, events
    36        4      v, field values
    40        8 v    hashes of the field values, in the order the events first mention them
              8 n    event times in ms, signed, not falling
              8 n    transaction hashes
              8 n    amount_minor · 2¹⁶ + currency code, signed
              2 n F  an event's field values: 1 + place in the list above, 0 where missing; zeros up to a multiple of 8
              8      checksum: XXH3-64 of all before it, seeded with the XXH3-64 of the user's key

The bytes are a pure function of the log: the same user after the same events has the same record. The seed makes a
record that stands under another user's key as unreadable as a damaged one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from state.errors import DamagedRecord

MAGIC = b"FSUR"
VERSION = 1
HEADER_BYTES = 40
CHECKSUM_BYTES = 8
NEVER_MS = -(1 << 62)


@dataclass(frozen=True)
class UserRecord:
    """A record taken apart, for people and tests. n events, F fields; a missing field value is 0."""

    applied_offset: int
    floor_ms: int | None
    time_ms: npt.NDArray[np.int64]
    transaction: npt.NDArray[np.uint64]
    amount_minor: npt.NDArray[np.int64]
    currency: npt.NDArray[np.uint16]
    fields: npt.NDArray[np.uint64]  # [n, F]


def header_start(fields: int, state_hash: str) -> bytes:
    """Return the record's first 16 bytes."""
    return MAGIC + VERSION.to_bytes(2, "little") + fields.to_bytes(2, "little") + bytes.fromhex(state_hash)


def seal(body: bytes, user: bytes) -> bytes:
    """Return the record: the body and its checksum for this user."""
    return body + _checksum(body, user)


def unseal(record: bytes, user: bytes, start: bytes, key: str) -> bytes:
    """Return a record's body; raise DamagedRecord, which names the key, unless it is whole and this user's.

    `start`: the 16 bytes a record of this state starts with.
    """
    if len(record) < HEADER_BYTES + CHECKSUM_BYTES:
        raise DamagedRecord(key, f"has only {len(record)} bytes")
    if record[:4] != MAGIC:
        raise DamagedRecord(key, "is no user's record (its first bytes are others)")
    version = int.from_bytes(record[4:6], "little")
    if version != VERSION:
        raise DamagedRecord(key, f"has format version {version}, and this program reads {VERSION}")
    body = record[:-CHECKSUM_BYTES]
    if _checksum(body, user) != record[-CHECKSUM_BYTES:]:
        raise DamagedRecord(key, "fails its checksum, or belongs to another user")
    if record[:16] != start:
        raise DamagedRecord(key, f"belongs to the state {record[8:16].hex()}, not to {start[8:].hex()}")
    return body


def applied_offset(record: bytes) -> int | None:
    """Return the applied offset that a record says of itself, None where it is no record; only unseal proves it."""
    if len(record) < HEADER_BYTES or record[:4] != MAGIC:
        return None
    return int.from_bytes(record[16:24], "little", signed=True)


def decode(body: bytes) -> UserRecord:
    """Take an unsealed body apart."""
    fields = int.from_bytes(body[6:8], "little")
    applied, floor = (int(number) for number in np.frombuffer(body, "<i8", 2, 16))
    events, values = (int(number) for number in np.frombuffer(body, "<u4", 2, 32))
    hashes = np.concatenate(([np.uint64(0)], np.frombuffer(body, "<u8", values, HEADER_BYTES)))
    at = HEADER_BYTES + 8 * values
    packed = np.frombuffer(body, "<i8", events, at + 16 * events)
    codes = np.frombuffer(body, "<u2", events * fields, at + 24 * events)
    return UserRecord(
        applied_offset=applied,
        floor_ms=None if floor == NEVER_MS else floor,
        time_ms=np.frombuffer(body, "<i8", events, at),
        transaction=np.frombuffer(body, "<u8", events, at + 8 * events),
        amount_minor=packed >> 16,
        currency=(packed & 0xFFFF).astype(np.uint16),
        fields=hashes[codes].reshape(events, fields),
    )


def _checksum(body: bytes, user: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(body, seed=xxhash.xxh3_64_intdigest(user)).to_bytes(CHECKSUM_BYTES, "little")
