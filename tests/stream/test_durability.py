"""The whole line keeps its durability rules: what is stored is a pure function of the log, never ahead of C, enough.

Equal means decisions, dead letters and feature rows by source partition and offset, and stored records byte for byte.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from redis import Redis

import stream.assignment
from committed import committed
from disturbed import POINTS, undisturbed
from kafka_topics import Topics, wait_until
from line_thread import Hold, LineThread, ThreadedCrew, line_settings, threaded_crew
from redis_server import RedisServer
from stored import Crash, CrashAt, only_committed_work_is_stored, opened, stored
from stream.errors import RecoveryError
from stream.partition import Partition, Phase
from traffic import START_MS, traffic
from worker_process import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

HALF_A_YEAR_MS = 180 * 86_400_000
LATENESS_MS = 86_400_000  # what the default retention allows for beyond the longest window
NEVER_MS = 3_600_000  # a checkpoint interval that no test lives to see


@pytest.fixture
def line(topics: Topics, redis: RedisServer, calm) -> Iterator[ThreadedCrew]:
    """A crew over the calm run's input."""
    settings = line_settings(topics.bootstrap) | {"store.kind": "redis", "store.url": redis.url}
    with threaded_crew(topics, calm.source, settings) as workers:
        yield workers


@pytest.fixture
def own(topics: Topics, redis: RedisServer) -> Iterator[ThreadedCrew]:
    """A crew over an input of its own, to which a test may add."""
    source = topics.create("transactions")
    topics.produce(source, traffic(1_000))
    settings = line_settings(topics.bootstrap) | {"store.kind": "redis", "store.url": redis.url}
    with threaded_crew(topics, source, settings) as workers:
        yield workers


def crashed(crew: ThreadedCrew, name: str, point: str, count: int, **more: object) -> LineThread:
    """Run the worker `name` until it crashes at a point."""
    worker = crew.here(name, start=False, **more)
    worker._watch.holds.append(CrashAt(point, count))
    inside = worker.app.worker
    inside._leave = inside._store.close  # which frees the sqlite file's lock; a dead process closes nothing else
    worker.start()
    worker._thread.join(40)
    assert not worker.alive, f"{point} was not reached; last {worker.events[-5:]}"
    assert isinstance(worker.error, Crash), worker.errors
    worker.error = None  # as it was meant to
    return worker


def settle(crew: ThreadedCrew, worker: LineThread | WorkerProcess) -> None:
    """Wait until every record that is in the input now is committed."""
    worker.wait_for("assigned")
    wait_until(lambda: _caught_up(crew, worker), "all input is committed")


def _caught_up(crew: ThreadedCrew, worker) -> bool:
    assert worker.alive, worker.errors
    ends = crew.topics.ends(crew.line.transactions)
    return committed(crew.topics, crew.group, crew.line.transactions) == {p: end for p, end in ends.items() if end}


def reports(worker: LineThread, name: str) -> int:
    return sum(getattr(report, name) for report in worker.values("batch"))


def test_what_is_stored_is_a_pure_function_of_the_log(topics: Topics, calm, line: ThreadedCrew, tmp_path: Path):
    """Other batches, checkpoints, evictions, crashes and another store: the same records and W, byte for byte."""
    line.here("undisturbed", **{"worker.max_batch": 1024, "store.checkpoint_interval_ms": NEVER_MS})
    assert line.finish().differences(calm.output) == []
    plain = stored(topics, line.settings)

    sqlite = {"store.kind": "sqlite", "store.path": str(tmp_path / "state.sqlite"), "state.memory_limit_bytes": 250_000}
    with threaded_crew(topics, calm.source, line_settings(topics.bootstrap) | sqlite) as other:
        for number, point in enumerate((*POINTS, "checkpointed", "evicted", "loaded")):
            crashed(other, "w", point, 2 + number % 3, **{"worker.max_batch": 17 + number})
            only_committed_work_is_stored(topics, other.settings)
        other.here("w")
        assert other.finish().differences(calm.output) == []
        shaken = stored(topics, other.settings)

    assert shaken.records == plain.records
    assert shaken.offsets == plain.offsets == committed(topics, line.group, calm.source)


def test_a_worker_killed_between_users_and_w_is_recovered_by_another(topics: Topics, calm, line: ThreadedCrew):
    """Stored users are ahead of W then: the replay skips what they hold."""
    killed = line.start("dynamic-1", "users_written:6")
    wait_until(lambda: killed.killed, "it has killed itself")
    held = only_committed_work_is_stored(topics, line.settings)
    ahead = [place for place in held.records if held.user(place).applied_offset >= held.offsets[place[0]]]
    assert ahead, "no stored user is ahead of W"
    line.here("w2")

    assert line.finish().differences(calm.output) == []


def test_a_late_checkpoint_of_a_former_owner_is_harmless(topics: Topics, calm, line: ThreadedCrew):
    """Suspended between its users and W; another takes over, goes on to the end and stores; then it continues."""
    line.settings["kafka.session_timeout_ms"] = 1500
    former = line.start("dynamic-1", "users_written:4:STOP")
    wait_until(lambda: psutil.Process(former.process.pid).status() == psutil.STATUS_STOPPED, "it is suspended")
    line.here("dynamic-2")
    settle(line, line.workers["dynamic-2"])
    assert line.workers["dynamic-2"].stop() == 0
    before = stored(topics, line.settings)
    former.resume()
    former.wait_until(lambda: former.count("lost") or former.count("revoked"), "it has learnt that it lost all")
    former.wait_for("live", 4)

    assert line.finish().differences(calm.output) == []
    after = stored(topics, line.settings)
    assert after.records == before.records
    assert after.watermarks.keys() == before.watermarks.keys()
    assert after.offsets == before.offsets == committed(topics, line.group, calm.source)


def test_a_former_owner_that_meets_users_of_its_successor_begins_again(line: ThreadedCrew, calm):
    """Held up within a batch until another worker has decided and stored everything; then it reads the next users."""
    former = line.here(
        "dynamic-1", start=False, **{"worker.max_batch": 1024, "kafka.consumer": {"max.poll.interval.ms": "3000"}}
    )
    hold = former.hold("loaded")
    former.start()
    assert hold.reached.wait(30)
    successor = line.here("dynamic-2")
    settle(line, successor)
    assert successor.stop() == 0, successor.errors
    hold.release()
    former.wait_for("assigned", 2)

    assert line.finish().differences(calm.output) == []


def test_a_recovery_replays_the_gap_without_output_and_reads_each_user_once(topics: Topics, own: ThreadedCrew):
    own.here("w")
    own.finish()
    topics.produce(own.line.transactions, traffic(600, seed=2, start_ms=START_MS + 2_000_000))
    crashed(own, "w", "committed", 4, **{"store.checkpoint_interval_ms": NEVER_MS})
    kept = stored(topics, own.settings).offsets

    worker = own.here("w", **{"store.checkpoint_interval_ms": NEVER_MS})
    settle(own, worker)

    done = {p: live for p, _, live, _ in worker.values("recovering")}
    assert worker.values("recovering") == [(p, kept[p], done[p], "checkpoint") for p in kept]
    news = [r for r in topics.read(own.line.transactions) if r.offset >= kept[r.partition]]
    decided = own.finish()
    replayed = [r for r in news if r.offset < done[r.partition] and (r.partition, r.offset) in decided.decisions]
    assert reports(worker, "replayed") == len(replayed) > 0
    assert decided.repeated == []
    wanted = {(r.partition, r.key) for r in news if (r.partition, r.offset) in decided.decisions}
    loads = [users for users, _ in worker.values("loaded")]
    assert sum(loads) == len(wanted)  # nobody is read before he appears, nor twice
    assert len(loads) <= 4 * worker.count("batch")  # a partition's unknown users of a batch are one read
    assert max(loads) > 5


def test_windows_rebuilt_from_a_part_of_the_log_are_whole_or_say_that_they_are_not(
    topics: Topics, redis: RedisServer, tmp_path: Path
):
    """Half a year in which payments are up to 40 days late; the store is lost, and the log covers the retention."""
    source, rows = topics.create("transactions"), traffic(4_000, users=1_000, step_ms=2 * HALF_A_YEAR_MS // 4_000)
    topics.produce(source, islice(rows, 3_000))
    settings = line_settings(topics.bootstrap) | {"store.kind": "redis", "store.url": redis.url}
    with threaded_crew(topics, source, settings) as crew:
        settle(crew, crew.here("w"))
        assert crew.workers["w"].stop() == 0
        redis.flush()
        topics.produce(source, islice(rows, 500))
        worker = crew.here("w")  # rebuilds, and
        settle(crew, worker)
        assert [reason for *_, reason in worker.values("recovering")] == ["rebuilt from a covered offset"] * 4
        assert worker.stop() == 0
        topics.produce(source, rows)
        output = (crew.here("w"), crew.finish())[1]  # starts from what was stored of it
    calm = undisturbed(topics, source, settings | {"store.kind": "memory"})
    assert output.decisions.keys() == calm.decisions.keys()
    newest: Counter[int] = Counter()
    short = 0
    for place, decision in sorted(calm.decisions.items()):
        at_ms, ours = decision["event_time"], output.decisions[place]
        newest[place[0]] = max(newest[place[0]], at_ms)
        equal = ours == decision and output.features[place] == calm.features[place]
        assert equal or at_ms < newest[place[0]] - LATENESS_MS, f"{place}: {ours}, not {decision}"
        assert equal or {"truncated", "late"} & set(ours["flags"]), f"{place} does not say what it lacks: {ours}"
        short += not equal
    assert 0 < short < len(calm.decisions) // 50


def test_a_graceful_stop_leaves_nothing_to_replay(topics: Topics, own: ThreadedCrew):
    """SIGTERM, in a process: W = C in the store, and the next start is live at once."""
    worker = own.start("w", **{"store.checkpoint_interval_ms": NEVER_MS})
    settle(own, worker)
    assert worker.stop() == 0, worker.errors

    found = only_committed_work_is_stored(topics, own.settings)
    assert found.offsets == committed(topics, own.group, own.line.transactions)
    again = own.here("w")
    again.wait_for("live", 4)
    assert all(replay == live for _, replay, live, _ in again.values("recovering"))
    assert reports(again, "replayed") == 0


def test_an_idle_partitions_w_advances_to_its_committed_offset(topics: Topics, own: ThreadedCrew):
    """Only dead letters come, which change no user."""
    worker = own.here("w")
    settle(own, worker)
    topics.produce(own.line.transactions, [(b"u-%d" % n, b"not json") for n in range(40)])
    settle(own, worker)
    done = committed(topics, own.group, own.line.transactions)

    wait_until(lambda: stored(topics, own.settings).offsets == done, "W has followed")


def test_a_partition_handed_back_as_it_was_left_keeps_its_memory(topics: Topics, own: ThreadedCrew):
    """A worker joins and leaves: the partition that comes back at once is neither replayed nor read again."""
    first = own.here("dynamic-1")
    settle(own, first)
    second = own.here("dynamic-2")
    first.wait_for("assigned", 2)
    second.wait_for("assigned")
    kept = set(first.values("assigned")[1])
    assert kept
    assert kept < {0, 1, 2, 3}
    assert second.stop() == 0, second.errors
    first.wait_until(lambda: first.values("assigned")[-1] == [0, 1, 2, 3], "everything is back")
    first.wait_for("live", 4 + len(kept) + 4)
    read_before = first.count("loaded")
    sent = topics.produce(own.line.transactions, traffic(300, seed=3, start_ms=START_MS + 2_000_000))
    settle(own, first)

    assert {p for p, *_ in first.values("recovering")[4:]} == {0, 1, 2, 3} - kept
    decided = own.finish().decisions
    new = {(r.partition, r.offset) for r in sent}
    known = {decided[place]["user_id"] for place in decided.keys() - new if place[0] in kept}
    wanted = {decided[place]["user_id"] for place in decided.keys() & new}
    assert wanted & known
    assert sum(users for users, _ in first.values("loaded")[read_before:]) == len(wanted - known)


@pytest.mark.parametrize("store_down", [False, True])
def test_a_partition_that_others_have_moved_on_loses_its_memory(own: ThreadedCrew, store_down: bool):
    worker = own.here("w", start=False)
    assignment, store = worker.app.worker._assignment, worker.app.worker._store
    store.begin(0, 0)
    stale = assignment._make_windows()
    partition = Partition(0, stale, Phase.LIVE, position=5, committed=5, watermark=store.watermark(0))
    if store_down:
        store.close()

    assignment._plan_one(partition, 7, "")

    assert partition.windows is not stale
    if store_down:
        assert (partition.phase, partition.position) == (Phase.WAITING, 7)
    else:
        assert (partition.phase, partition.position, partition.live_from) == (Phase.REPLAYING, 0, 7)
    worker.app.worker._leave()


def test_evicted_users_come_back_as_they_were_and_memory_stays_bounded(topics: Topics, calm, line: ThreadedCrew):
    limit = 300_000
    worker = line.here("w", start=False, **{"state.memory_limit_bytes": limit, "worker.max_batch": 32})
    scales = Scales(worker)
    worker._watch.holds.append(scales)
    worker.start()

    assert line.finish().differences(calm.output) == []
    users = {decision["user_id"] for decision in calm.output.decisions.values()}
    assert sum(worker.values("evicted")) > 100
    assert sum(count for count, _ in worker.values("loaded")) > len(users)  # some of them again
    assert max(scales.bytes) < 1.5 * limit  # what a few batches between two checkpoints add


class Scales(Hold):
    """Weighs a worker's windows after each batch."""

    def __init__(self, worker: LineThread) -> None:
        super().__init__("batch", 0)
        self._worker = worker
        self.bytes: list[int] = []

    def __call__(self) -> None:
        self.bytes.append(sum(p.windows.bytes for p in self._worker.app.worker._assignment.held.values()))


def test_intake_pauses_while_too_much_is_unwritten(
    topics: Topics, calm, line: ThreadedCrew, monkeypatch: pytest.MonkeyPatch
):
    """The store holds up a checkpoint between users and W; a rebalance meanwhile changes nothing about the pause."""
    monkeypatch.setattr(stream.assignment, "REVOKE_SECS", 0.5)
    worker = line.here("dynamic-1", start=False, **{"worker.max_unwritten_bytes": 60_000, "worker.max_batch": 32})
    hold = worker.hold("users_written")
    worker.start()
    worker.wait_until(lambda: any("unwritten" in why for _, why in worker.values("paused")), "intake is paused")
    gauges = worker.count("memory")
    worker.wait_for("memory", gauges + 4)
    stands = committed(topics, line.group, calm.source)
    worker.wait_for("memory", gauges + 12)
    assert committed(topics, line.group, calm.source) == stands
    assert line.left() > 0

    joined = line.here("dynamic-2")
    joined.wait_for("assigned")
    worker.wait_for("assigned", 2)
    assert joined.stop() == 0, joined.errors
    hold.release()

    assert line.finish().differences(calm.output) == []


def test_stored_users_ahead_of_the_committed_offset_are_refused_by_name(topics: Topics, own: ThreadedCrew):
    """W says less than its users hold and than C: only loading them shows it. The choice it names mends it."""
    own.here("w")
    calm = own.finish()
    ends = committed(topics, own.group, own.line.transactions)
    back = {partition: end // 2 for partition, end in ends.items()}
    set_offsets(topics, own, back)
    lower_watermarks(own, {partition: offset // 2 for partition, offset in back.items()})
    refused = own.here("w")
    refused._thread.join(40)

    assert isinstance(refused.error, RecoveryError), refused.errors
    assert re.fullmatch(
        r"A stored user of partition \d stands at \d+, ahead of the committed offset \d+: choose store.recovery = "
        r"rebuild to replay the log\.",
        str(refused.error),
    )
    refused.error = None

    mended = own.here("w", **{"store.recovery": "rebuild"})
    settle(own, mended)
    again = own.finish()
    assert again.repeated != []  # the operator asked for them once more
    again.repeated.clear()
    assert again.differences(calm) == []


def set_offsets(topics: Topics, crew: ThreadedCrew, offsets: dict[int, int]) -> None:
    """Set the group's offsets, as kafka-consumer-groups --reset-offsets does."""
    places = [TopicPartition(crew.line.transactions, partition, offset) for partition, offset in offsets.items()]
    request = [ConsumerGroupTopicPartitions(crew.group, places)]

    def done() -> bool:
        try:
            topics.admin.alter_consumer_group_offsets(request)[crew.group].result(20)
        except KafkaException:  # the group still counts a member that just left
            return False
        return committed(topics, crew.group, crew.line.transactions) == offsets

    wait_until(done, "the offsets are set")


def lower_watermarks(crew: ThreadedCrew, offsets: dict[int, int]) -> None:
    """Write lower watermarks under the same token, which no store does by itself."""
    with opened(crew.settings) as store, Redis.from_url(str(crew.settings["store.url"])) as client:
        for partition, offset in offsets.items():
            key = store._watermark_key(partition)
            _, rest = client.get(key).split(b" ", 1)
            client.set(key, b"%d %s" % (offset, rest))
