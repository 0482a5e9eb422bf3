"""Whether the store can be used, and where a worker would go on with it. Nothing is changed in it, and none is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition

from state.redis_store import RedisStore
from state.sqlite_store import SqliteStore
from state.store import Namespace, Store
from stream.check import Found, fail, ok, warn
from stream.clients import consumer_config
from stream.coverage import Coverage
from stream.errors import RecoveryError, StartupError
from stream.namespace import check_namespace
from stream.recovery import Facts, Plan, plan
from stream.settings import Settings

__all__ = ["StoreFacts", "check_recovery", "check_store"]

ANSWER_SECS: Final = 15.0


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What the broker says of whose state it is."""

    cluster_id: str
    topic_id: str
    partitions: int


def check_store(settings: Settings, facts: StoreFacts | None) -> Iterator[Found]:
    """Yield how the store stands; facts None: the broker is not there to say whose state it must be."""
    if settings.store.kind == "memory":
        yield warn("memory: every start rebuilds state from the log; sqlite or redis keep it")
        return
    if settings.store.kind == "sqlite" and not Path(settings.store.path).exists():
        yield _absent_file(Path(settings.store.path))
        return
    with _opened(settings, facts) as (store, own):
        what = f"{settings.store.kind} answers" + (
            ", evicts nothing" if settings.store.kind == "redis" else f" ({settings.store.path})"
        )
        if facts is None:
            yield ok(f"{what}; whose state it holds was not compared, because the broker does not answer")
            return
        registered = store.registered()
        check_namespace(store, own, registered, "refuse")
        held = any(n.digest == own.digest for n in registered)
        yield ok(f"{what}, {'holds this state' if held else 'has no state yet'} ({own.state_hash[:8]})")


def check_recovery(settings: Settings, facts: StoreFacts) -> Iterator[Found]:
    """Yield where a worker would go on: what it would replay, and what waits to be decided."""
    config = consumer_config(settings)
    config.pop("group.instance.id", None)
    consumer = Consumer(config)
    try:
        found = list(_facts(settings, facts, consumer))
    finally:
        consumer.close()
    refused: list[str] = []
    plans: list[tuple[Facts, Plan]] = []
    for one in found:
        try:
            plans.append((one, plan(one, settings.kafka.start, "refuse")))
        except RecoveryError as error:
            refused.append(str(error))
    if refused:
        more = f" ({len(refused) - 1} more partitions are as bad)" if len(refused) > 1 else ""
        yield fail(refused[0] + more)
        return
    replay = sum(p.live_from - p.replay_from for _, p in plans)
    ahead = sum(one.log_end - p.live_from for one, p in plans)
    if all(one.committed is None for one, _ in plans):
        yield ok(f"group {settings.kafka.group} would begin at the {settings.kafka.start} offset: {ahead:,} ahead")
        return
    again = f"{replay:,} to replay without output, " if replay else ""
    yield ok(f"group {settings.kafka.group} goes on where it was: {again}{ahead:,} to decide")


def _facts(settings: Settings, facts: StoreFacts, consumer: Consumer) -> Iterator[Facts]:
    topic = settings.topics.transactions
    places = [TopicPartition(topic, number) for number in range(facts.partitions)]
    committed = {place.partition: place for place in consumer.committed(places, timeout=ANSWER_SECS)}
    with _opened(settings, facts) as (store, _):
        for place in places:
            mine = committed[place.partition]
            if mine.error is not None:
                raise StartupError(f"The committed offset of {topic}[{place.partition}] cannot be read: {mine.error}.")
            start, end = consumer.get_watermark_offsets(place, timeout=ANSWER_SECS)
            watermark = store.watermark(place.partition)
            yield Facts(
                topic,
                place.partition,
                start,
                end,
                mine.offset if mine.offset >= 0 else None,
                None if watermark is None else watermark.offset,
                Coverage.parse(mine.metadata or "").covered_from(int(settings.state.retention)),
            )


class _Nothing:
    """Stands for a store that holds nothing: memory, or a file that is not there yet."""

    def watermark(self, _: int) -> None:
        return None


@contextmanager
def _opened(settings: Settings, facts: StoreFacts | None) -> Iterator[tuple[Any, Namespace]]:
    """Open the store beside a worker that may be using it."""
    known = facts or StoreFacts("", "", 0)
    own = Namespace(
        known.cluster_id,
        settings.kafka.group,
        settings.topics.transactions,
        known.topic_id,
        settings.state_spec().hash,
        known.partitions,
    )
    kept = settings.store
    store: Store
    if kept.kind == "redis":
        store = RedisStore(kept.url.reveal(), own, prefix=kept.prefix)
    elif kept.kind == "sqlite" and Path(kept.path).exists():
        store = SqliteStore(kept.path, own, exclusive=False)
    else:
        yield _Nothing(), own
        return
    store.open()
    try:
        yield store, own
    finally:
        store.close()


def _absent_file(path: Path) -> Found:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        return fail(f"{folder} is no folder, so {path} cannot be made there: correct store.path")
    try:
        probe = folder / f".fraudstream-{path.name}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return fail(f"{path} cannot be made in {folder} ({error.strerror}): correct store.path or the permissions")
    return ok(f"{path} will be made at the first start")
