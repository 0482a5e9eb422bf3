"""What a line's store holds, beside what its group has committed: read as an operator would, from outside."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from committed import committed
from kafka_topics import Topics, wait_until
from line_thread import Hold
from state.record import UserRecord, decode
from state.store import Namespace, Store, Watermark
from stream.app import make_store
from stream.settings import load_settings
from stream.topics import look_around

Place = tuple[int, bytes]  # partition and user


class Crash(BaseException):
    """What a crash looks like to a worker in a thread: nothing of the product catches it."""


class CrashAt(Hold):
    """Ends the worker in whose hook `point` it is called for the count-th time."""

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached.set()
            raise Crash


@dataclass(frozen=True)
class Stored:
    """A store's content: W of each partition, each user's record as its bytes."""

    watermarks: dict[int, Watermark]
    records: dict[Place, bytes]

    @property
    def offsets(self) -> dict[int, int]:
        return {partition: watermark.offset for partition, watermark in self.watermarks.items()}

    def user(self, place: Place) -> UserRecord:
        return decode(self.records[place])


@contextmanager
def opened(settings: Mapping[str, object]) -> Iterator[Store]:
    """Open the store of a line under these settings; a sqlite file only while no worker has it."""
    read = load_settings(None, {}, dict(settings))
    around = look_around(read)
    topic, spec = read.topics.transactions, read.state_spec()
    store = make_store(
        read, Namespace(around.cluster_id, read.kafka.group, topic, around.topic_id, spec.hash, around.partitions)
    )
    store.open()
    try:
        yield store
    finally:
        store.close()


def stored(topics: Topics, settings: Mapping[str, object]) -> Stored:
    """Read everything that is stored of the users whose keys are in the input topic."""
    topic = str(settings["topics.transactions"])
    users: dict[int, dict[bytes, None]] = {partition: {} for partition in topics.ends(topic)}
    for record in topics.read(topic):
        if record.key is not None:
            users[record.partition][record.key] = None
    watermarks, records = {}, {}
    with opened(settings) as store:
        for partition, keys in users.items():
            watermark = store.watermark(partition)
            if watermark is None:
                continue
            watermarks[partition] = watermark
            for user, record in zip(keys, store.load(partition, list(keys)).records, strict=True):
                if record is not None:
                    records[partition, user] = record
    return Stored(watermarks, records)


def only_committed_work_is_stored(topics: Topics, settings: Mapping[str, object]) -> Stored:
    """Check rule W <= C, and that no stored user holds anything at or after C; return what is stored."""
    found = stored(topics, settings)
    needed = dict(found.offsets)
    for place in found.records:
        needed[place[0]] = max(needed[place[0]], found.user(place).applied_offset + 1)

    def vouched() -> bool:
        offsets = committed(topics, str(settings["kafka.group"]), str(settings["topics.transactions"]))
        return all(offset <= offsets.get(partition, 0) for partition, offset in needed.items())

    # A commit that was answered shows a moment later.
    wait_until(vouched, f"C has passed all that is stored, {needed}", 3)
    return found
