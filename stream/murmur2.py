"""Kafka's murmur2: which partition Java's producer, and librdkafka's murmur2 partitioners, give a key.

Source: org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey in Apache Kafka.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["KeySample", "PartitionerName", "Verdict", "judge_partitioner", "murmur2", "partition_of"]

PartitionerName = Literal["murmur2", "crc32", "other", "unknown"]

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF

# Two partitions and ten keys chosen at random agree with a partitioner once in a thousand; with twenty, in a million.
ENOUGH_KEYS: Final = 20


def murmur2(data: bytes) -> int:
    """Return the hash of `data` as an unsigned 32-bit integer (Java shows the same bits as a signed one)."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k ^= k >> 24
        h = (h * _M & _MASK) ^ (k * _M & _MASK)
    if length > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of `key` among `partitions`, as Java's default partitioner chooses it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


@dataclass(frozen=True, slots=True)
class KeySample:
    """One record's key (None: it had none) and the partition it was found on."""

    key: bytes | None
    partition: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a sample says of the producers: `name` fits every key seen; "unknown" where too few keys were.

    keys: distinct keys judged. keyless: records without a key. scattered: keys found on more than one partition.
    """

    name: PartitionerName
    keys: int
    keyless: int
    scattered: int


def judge_partitioner(samples: Iterable[KeySample], partitions: int) -> Verdict:
    """Say which partitioner placed the sampled keys among `partitions`.

    A single partition, or fewer than 20 distinct keys, proves nothing and is "unknown" unless a key contradicts both.
    """
    keyless = 0
    places: dict[bytes, set[int]] = {}
    for sample in samples:
        if sample.key is None:
            keyless += 1
        else:
            places.setdefault(sample.key, set()).add(sample.partition)
    scattered = sum(len(found) > 1 for found in places.values())
    by_murmur2 = all(found == {partition_of(key, partitions)} for key, found in places.items())
    by_crc32 = all(found == {zlib.crc32(key) % partitions} for key, found in places.items())
    return Verdict(_name(len(places), partitions, by_murmur2, by_crc32), len(places), keyless, scattered)


def _name(keys: int, partitions: int, by_murmur2: bool, by_crc32: bool) -> PartitionerName:
    if not by_murmur2 and not by_crc32:
        return "other"
    if keys < ENOUGH_KEYS or partitions == 1 or by_murmur2 == by_crc32:
        return "unknown"
    return "murmur2" if by_murmur2 else "crc32"
