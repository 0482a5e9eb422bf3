"""Which partitions a worker holds, where each goes on, and what a rebalance does to them.

The group uses the eager protocol: between two assignments nothing is held, and a new generation of the group cannot
begin before the revocation has been served. Group metadata taken when an assignment arrives is therefore right for all
of that assignment, and is what every commit of its records is fenced by. (Metadata asked for later may belong to a
generation that gave the partition to somebody else, or to none at all, which the broker does not check.)

Assigned
    Step 1  a producer of our own, which ends a predecessor's open transaction
    Step 2  C from the broker, W from the store, and a plan for each partition
    Step 3  memory is kept where C is where we last stood, dropped otherwise
Revoked
    Step 1  what is in flight is committed or aborted
    Step 2  what is unwritten is stored, as far as time allows: the next owner then has nothing to replay
    Step 3  memory is parked, in case the partition comes back at once
Lost
    Step 1  what is in flight is aborted: its offsets may be somebody else's by now
"""

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from state.errors import StoreUnavailable
from state.store import Store, Watermark
from state.windows import Windows
from stream.breaker import Breaker
from stream.checkpoint import Checkpointer
from stream.clients import LastingConsumer
from stream.coverage import Coverage
from stream.delivery import Delivery
from stream.errors import BatchAborted, BrokerSilent, ProducerFenced, RecoveryError, StateAhead
from stream.observer import Observer
from stream.partition import Partition, Phase
from stream.recovery import Choice, Facts, Start, plan

__all__ = ["Assignment"]

BROKER_SECS = 20.0  # for one answer, beyond what a predecessor's open transaction keeps its offsets unstable
REVOKE_SECS = 5.0  # well below the session timeout, so that the group does not wait for a slow store
RENEW_SECS = 2.0  # longer than what changed since the last checkpoint takes; else the old windows stay for now


class Assignment:
    """Owned by the loop's thread, which is also the one that serves the callbacks (inside consume and close).

    begins_now: as in Facts. partitions: how many the topic had at the start. vouches_ms: for how long after its last
    write a watermark vouches for users the store lets expire. now_ms: wall clock, used for nothing else. full: intake
    of all partitions is stopped, because too much is unwritten.
    """

    def __init__(
        self,
        consumer: LastingConsumer,
        topic: str,
        delivery: Delivery,
        store: Store,
        checkpointer: Checkpointer,
        breaker: Breaker,
        make_windows: Callable[[], Windows],
        observer: Observer,
        *,
        start: Start,
        choice: Choice,
        begins_now: bool,
        partitions: int,
        retention_ms: int,
        transaction_secs: float,
        vouches_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._delivery = delivery
        self._store = store
        self._checkpointer = checkpointer
        self._breaker = breaker
        self._make_windows = make_windows
        self._observer = observer
        self._start: Start = start
        self._choice: Choice = choice
        self._begins_now = begins_now
        self._partitions = partitions
        self._retention_ms = retention_ms
        self._broker_secs = BROKER_SECS + transaction_secs
        self._vouches_ms = vouches_ms
        self._now_ms = now_ms
        self._parked: dict[int, Partition] = {}
        self._distrusted: set[int] = set()
        self.held: dict[int, Partition] = {}
        self.group: object = None
        self.leaving = False
        self.full = False

    def join(self) -> None:
        """Subscribe; assignments arrive through the callbacks."""
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def rejoin(self, *, anew: bool = False) -> None:
        """Give everything back, keep no memory, and join again. anew: with a new consumer, in place of a fenced one."""
        self.held, self._parked = {}, {}
        if anew:
            self._consumer.renew()
        else:
            self._consumer.unsubscribe()
        self.join()

    def recover(self, partitions: Iterable[Partition]) -> None:
        """Drop these partitions' memory and begin again at C: after an aborted batch, or a store that was put back."""
        self._checkpointer.wait(self._broker_secs)
        fresh = [self._fresh(p.number) for p in partitions]
        self._plan(fresh)
        for partition in fresh:
            self.held[partition.number] = partition
            self._seek(partition)

    def doubt(self, ahead: StateAhead) -> None:
        """Ask the broker again: where another worker has moved C on, only our place is wrong, and to recover helps.

        Otherwise the stored state is forgotten at the partition's next plan, if that was chosen, or `ahead` raised.
        """
        ((committed, _),) = self._committed([ahead.partition])
        if committed is not None and committed > ahead.offset:
            return
        if not self.distrust(ahead.partition):
            raise ahead

    def distrust(self, number: int) -> bool:
        """Forget a partition's stored state at its next plan; returns False if that was not chosen."""
        if self._choice == "rebuild":
            self._distrusted.add(number)
        return self._choice == "rebuild"

    def renew(self, make_windows: Callable[[], Windows]) -> bool:
        """At a boundary: go on with windows of another feature set. False if the store does not take part now.

        Step 1  everything is stored, so that a user not yet carried over is in the store as it is in memory
        Step 2  empty windows; each user comes over when its next event does, or from the store
        """
        # Step 1
        held = list(self.held.values())
        settled = [p for p in held if p.phase is not Phase.WAITING]
        self._checkpointer.complete(held, RENEW_SECS)
        if any(p.behind or p.unwritten is not None for p in settled):
            return False
        # Step 2: parked memory would come back with the old windows.
        self._make_windows, self._parked = make_windows, {}
        for partition in held:
            partition.renew(make_windows())
        return True

    def retry_waiting(self) -> None:
        """Plan partitions that were assigned while the store was down."""
        waiting = [p for p in self.held.values() if p.phase is Phase.WAITING]
        if not waiting or not self._breaker.allows():
            return
        self._plan(waiting)
        for partition in waiting:
            self._seek(partition)

    def pause(self, partitions: list[Partition], reason: str) -> None:
        """Stop intake; the worker keeps polling and keeps its place in the group."""
        if partitions:
            self._consumer.pause([TopicPartition(self._topic, p.number) for p in partitions])
            self._observer.paused([p.number for p in partitions], reason)

    def resume(self, partitions: list[Partition]) -> None:
        """Go on with intake."""
        if partitions:
            self._consumer.resume([TopicPartition(self._topic, p.number) for p in partitions])
            self._observer.resumed([p.number for p in partitions])

    def _assigned(self, consumer: Consumer, assigned: list[Any]) -> None:
        if any(tp.partition >= self._partitions for tp in assigned):
            raise RecoveryError(
                f"Partitions were added to {self._topic} since this worker started with {self._partitions}, so some "
                f"users' histories lie in another partition: copy the topic into a new one with `fraudstream rekey` "
                f"and score that, or start again with store.recovery = accept_partial for a cold start of the users "
                f"that moved."
            )
        # Step 1: first, because a predecessor's open transaction keeps its offsets unstable.
        self._delivery.ready()
        self.group = consumer.consumer_group_metadata()
        # Steps 2 and 3.
        self.held = {tp.partition: self._parked.get(tp.partition) or self._fresh(tp.partition) for tp in assigned}
        self._parked = {}
        partitions = list(self.held.values())
        self._plan(partitions)
        consumer.assign([TopicPartition(self._topic, p.number, p.position) for p in self.held.values()])
        self._set_intake(partitions)
        self._commit_first()
        self._observer.assigned(sorted(self.held))

    def _revoked(self, consumer: Consumer, revoked: list[Any]) -> None:
        if not self.leaving:
            # Step 1
            try:
                self.note(self._delivery.finish())
            except (BatchAborted, ProducerFenced):
                self.held = {}  # memory holds what was not committed
                self._delivery.renew()
            # Step 2
            self._checkpointer.complete(list(self.held.values()), REVOKE_SECS)
            # Step 3
            self._parked = self.held
        self.held = {}
        consumer.unassign()
        self._observer.revoked([tp.partition for tp in revoked], lost=False)

    def _lost(self, consumer: Consumer, lost: list[Any]) -> None:
        self.note(self._delivery.give_up())
        self.held, self._parked = {}, {}
        consumer.unassign()
        self._observer.revoked([tp.partition for tp in lost], lost=True)

    def note(self, offsets: dict[int, int] | None) -> None:
        """Note acknowledged offsets."""
        if not offsets:
            return
        for number, offset in offsets.items():
            if number in self.held:
                self.held[number].committed = offset
        self._observer.acknowledged(offsets)

    def _fresh(self, number: int) -> Partition:
        return Partition(number, self._make_windows())

    def _plan(self, partitions: list[Partition]) -> None:
        """Step 2: ask broker and store; a store that does not answer leaves the partition waiting at C."""
        for partition, found in zip(partitions, self._committed([p.number for p in partitions]), strict=True):
            self._plan_one(partition, *found)

    def _committed(self, numbers: list[int]) -> list[tuple[int | None, str]]:
        """Return C, None where there is none, and what was committed with it."""
        try:
            found = self._consumer.committed(
                [TopicPartition(self._topic, number) for number in numbers], timeout=self._broker_secs
            )
        except KafkaException as error:
            raise BrokerSilent(f"the committed offsets cannot be read: {error.args[0].str()}") from error
        for tp in found:
            if tp.error is not None:
                raise BrokerSilent(f"the committed offset of partition {tp.partition} cannot be read: {tp.error}")
        return [(tp.offset if tp.offset >= 0 else None, tp.metadata or "") for tp in found]

    def _plan_one(self, partition: Partition, committed: int | None, metadata: str) -> None:
        number = partition.number
        if partition.phase is Phase.LIVE and committed == partition.position:
            partition.held_back = []
            self._observer.live(number)
            return
        partition.phase = Phase.WAITING
        partition.begin_anew(self._make_windows())
        try:
            log_start, log_end = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=self._broker_secs
            )
        except KafkaException as error:
            raise BrokerSilent(f"the log's ends cannot be read: {error.args[0].str()}") from error
        partition.position = committed if committed is not None else log_start
        if not self._breaker.allows():
            return
        try:
            watermark = self._store.watermark(number)
            if committed is not None and watermark is not None and watermark.offset > committed:
                # Where another worker still goes on, W may have passed the C that was read before it.
                ((committed, metadata),) = self._committed([number])
            if committed is not None and number in self._distrusted:
                watermark = None
            coverage = Coverage.parse(metadata)
            facts = Facts(
                self._topic,
                number,
                log_start,
                log_end,
                committed,
                None if watermark is None else watermark.offset,
                coverage.covered_from(self._retention_ms),
                stale=watermark is not None and self._stale(watermark, log_end),
                begins_now=watermark is None and self._begins_now,
            )
            chosen = plan(facts, self._start, self._choice)
            if chosen.begin and chosen.commit:
                coverage = Coverage.begun(chosen.live_from, self._retention_ms)
            commit_first = chosen.commit
            if chosen.commit and watermark is None:
                # Before W: a watermark without a committed offset would look like an offset that has expired.
                self._commit({number: chosen.live_from}, {number: coverage.text()})
                commit_first = False
            if chosen.begin and not chosen.commit and chosen.replay_from < chosen.live_from:
                coverage.rebuilt_from(chosen.replay_from)
                # Before the state: one that is short without saying so would be taken for whole.
                self._commit({number: chosen.live_from}, {number: coverage.text()})
            if chosen.begin:
                watermark = self._store.begin(number, chosen.replay_from)
                self._distrusted.discard(number)
        except StoreUnavailable as error:
            self._breaker.failed(str(error))
            return
        self._breaker.succeeded()
        partition.watermark = watermark
        partition.coverage = coverage
        partition.windows.floor_new_users(coverage.floor_ms)
        partition.held_back = []
        partition.position, partition.live_from = chosen.replay_from, chosen.live_from
        partition.committed = chosen.live_from
        partition.decided_ahead = chosen.decided_ahead
        partition.commit_first = commit_first
        self._observer.recovering(
            number, replay_from=chosen.replay_from, live_from=chosen.live_from, reason=chosen.reason
        )
        partition.phase = Phase.REPLAYING
        partition.advance(chosen.replay_from, self._observer)

    def _stale(self, watermark: Watermark, log_end: int) -> bool:
        """Whether W may vouch for users that are gone: nobody wrote it for long, and the log went on meanwhile.

        Where nothing came, nothing is behind: users that expired are those that expire under a worker, too.
        """
        return self._now_ms() - watermark.written_at_ms > self._vouches_ms and watermark.offset < log_end

    def _seek(self, partition: Partition) -> None:
        if partition.phase is not Phase.WAITING:
            try:
                self._consumer.seek(TopicPartition(self._topic, partition.number, partition.position))
            except KafkaException as error:
                raise BrokerSilent(f"offset {partition.position} cannot be sought: {error.args[0].str()}") from error
            self._commit_first()
        self._set_intake([partition])

    def _set_intake(self, partitions: list[Partition]) -> None:
        """Begin with intake, or not: what the client was told to pause stays paused through rebalances and seeks."""
        for partition in partitions:
            partition.paused = False
        waiting = [p for p in partitions if p.phase is Phase.WAITING]
        ready = [p for p in partitions if p.phase is not Phase.WAITING]
        self.pause(waiting, "the store is not available")
        if self.full:
            self.pause(ready, "too much is unwritten")
        elif ready:
            self._consumer.resume([TopicPartition(self._topic, p.number) for p in ready])

    def _commit_first(self) -> None:
        """The very first start says explicitly where it begins, and commits that at once."""
        first = [p for p in self.held.values() if p.commit_first]
        if not first:
            return
        self._commit({p.number: p.live_from for p in first}, {p.number: p.coverage.text() for p in first})
        for partition in first:
            partition.commit_first = False

    def _commit(self, offsets: dict[int, int], metadata: dict[int, str]) -> None:
        places = [TopicPartition(self._topic, p, offset, metadata=metadata[p]) for p, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise BrokerSilent(f"the first offsets cannot be committed: {error.args[0].str()}") from error
