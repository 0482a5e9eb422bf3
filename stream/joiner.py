"""Joins labels with the decisions they are about, once each, whatever crashes in between.

Step 1  open      the index (stream.label_index); nobody else may have it open
Step 2  fence     init_transactions ends what a predecessor left open, and fences it if it still lives
Step 3  recover   read W and C of every partition, replay [W, C) into the index without output
Step 4  join      a batch of both topics changes the index and gives records for `labelled` (stream.join)
Step 5  commit    these records, dead letters of labels, and the offsets of both topics: one Kafka transaction; offsets
                  that do not move too, at the start, once an hour and at the end
Step 6  store     the index with W = C: one SQLite transaction, after a commit and not after every one

A crash, an aborted batch or a full disk loses what of the index was not stored, and Step 3 reads it again. The index is
a function of the log, and each pair is written in the transaction that covers the later of its two records, so a replay
never owes output and never repeats any.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.clients import admin_config, joiner_configs
from stream.coordinator import patiently
from stream.errors import BatchAborted, BrokerSilent, StartupError
from stream.join import Clocks, Join, Joined, by_place, horizon_ms
from stream.joiner_observer import JoinerObserver
from stream.joiner_recovery import Facts, Plan, plan
from stream.joiner_writer import JoinerWriter
from stream.label_index import LabelIndex, Mark
from stream.settings import Settings
from stream.topic_check import TopicState
from stream.topics import describe_topics, watermarks

__all__ = ["Joiner"]

Place = tuple[str, int]
Batch = Mapping[Place, Sequence[Message]]

#: Records of one transaction: some milliseconds of commit for a few hundred of work.
BATCH: Final = 20_000
#: How long a batch may fill; nobody waits for a label.
FILL_SECS: Final = 0.2

#: The group has no members, so the broker forgets each offset some days after it was committed last, even while the
#: joiner lives: 7 days unless offsets.retention.minutes says otherwise.
REFRESH_SECS: Final = 3_600.0

STORE_SECS: Final = 1.0
STORE_RECORDS: Final = 200_000

BROKER_SECS: Final = 30.0
#: A stop waits no longer for a broker: without this commit the offsets are an hour older.
LAST_COMMIT_SECS: Final = 5.0
RETRY_SECS: Final = 0.2

# Once the joiner is up it outlives its broker; but a batch that nothing gets through is no outage.
ABORTS: Final = 5


class Joiner:
    """One joiner; at most one of a monitor.group is active. bootstrap: where the broker listens if not as settings say.

    Blocks: it belongs into a thread of its own.
    """

    def __init__(
        self, settings: Settings, observer: JoinerObserver | None = None, bootstrap: str | None = None
    ) -> None:
        self._settings = settings
        self._observer = observer or JoinerObserver()
        self._bootstrap = bootstrap
        self._topics = (settings.topics.decisions, settings.topics.labels)
        self._clocks: Clocks = {}
        self._next: dict[Place, int] = {}
        self._stored_at = 0.0
        self._refreshed_at = 0.0
        self._unstored = 0
        self._live = False

    def run(self, stop: Callable[[], bool]) -> None:
        """Join until stop() says so, which is asked several times a second. Raises FraudstreamError."""
        self._admin = AdminClient(admin_config(self._settings, bootstrap=self._bootstrap))
        states = self._look_around()
        # Step 1
        self._index = LabelIndex(Path(self._settings.labels.index), self._identity(states), self._retention_ms)
        self._join = Join(self._index, self._settings.labels.sample_rate)
        try:
            self._partitions = {name: states[name].partitions for name in self._topics}
            outputs = (self._settings.topics.labelled, self._settings.topics.dead_letters)
            batch_bytes = min(states[name].number("max.message.bytes", 1 << 20) for name in outputs)
            self._consumer_settings, producer_settings = joiner_configs(
                self._settings, batch_bytes, bootstrap=self._bootstrap
            )
            self._consumer = Consumer(self._consumer_settings)
            self._writer = JoinerWriter(producer_settings, self._settings.monitor.group, *outputs, self._observer)
            try:
                self._run(stop)
            finally:
                self._writer.close()
                self._consumer.close()
        finally:
            self._index.close()

    @property
    def _retention_ms(self) -> int:
        return int(self._settings.labels.retention)

    def _look_around(self) -> dict[str, TopicState]:
        topics = self._settings.topics
        states = describe_topics(self._admin, [*self._topics, topics.labelled, topics.dead_letters])
        for state in states.values():
            if state.absent:
                raise StartupError(
                    f"The topic {state.name} is {state.absent}: create it with `fraudstream topics create`, or grant "
                    f"this user Describe on it."
                )
        return states

    def _identity(self, states: dict[str, TopicState]) -> dict[str, str]:
        ids = {f"topic {name}": states[name].topic_id for name in self._topics}
        rate = repr(self._settings.labels.sample_rate)
        return {**ids, "group": self._settings.monitor.group, "sample_rate": rate}

    def _run(self, stop: Callable[[], bool]) -> None:
        # Step 2
        self._writer.ready()
        self._recover(stop)
        aborts = 0
        while not stop():
            try:
                if messages := self._consume():
                    self._transact(by_place(messages))
                    aborts = 0
                if time.monotonic() - self._refreshed_at > REFRESH_SECS:
                    self._refresh()
                    aborts = 0
                self._store_if_due()
            except BatchAborted as aborted:
                self._live = False
                aborts += 1
                self._observer.aborted(aborted.reason)
                if aborts == ABORTS:
                    raise
                self._recover_patiently(stop)
            self._tell()
        if self._live:
            with suppress(BatchAborted, BrokerSilent):
                self._refresh(LAST_COMMIT_SECS)
            self._store()

    def _recover_patiently(self, stop: Callable[[], bool]) -> None:
        """Step 3 again, as often as it takes the broker to come back."""
        while not stop():
            try:
                self._writer.ready()
                self._recover(stop)
            except (BrokerSilent, StartupError, BatchAborted) as error:
                self._observer.aborted(str(error))
                time.sleep(RETRY_SECS)
            else:
                return

    def _recover(self, stop: Callable[[], bool]) -> None:
        """Step 3."""
        self._live = False
        self._index.roll_back()
        facts = self._facts()
        begin, plans = plan(facts, self._settings.labels.recovery)
        if begin:
            self._index.clear()
        self._clocks = {place: mark.clock_ms for place, mark in self._index.marks.items()}
        if not self._replay(plans, stop):
            return
        self._next = {place: one.live_from for place, one in plans.items()}
        self._assign(self._next)
        self._refresh()
        self._live = True
        self._observer.live()

    def _facts(self) -> list[Facts]:
        committed = self._committed()
        found = []
        for topic in self._topics:
            for number, (start, end) in watermarks(self._admin, topic, self._partitions[topic]).items():
                mark = self._index.marks.get((topic, number))
                found.append(Facts(topic, number, start, end, committed[topic, number], mark.offset if mark else None))
        return found

    def _committed(self) -> dict[Place, int | None]:
        places = [TopicPartition(topic, number) for topic in self._topics for number in range(self._partitions[topic])]
        try:
            found = patiently(lambda: self._consumer.committed(places, timeout=BROKER_SECS), BROKER_SECS)
        except KafkaException as error:
            raise BrokerSilent(f"the joiner's offsets cannot be read: {error.args[0].str()}") from error
        return {(one.topic, one.partition): one.offset if one.offset >= 0 else None for one in found}

    def _replay(self, plans: Mapping[Place, Plan], stop: Callable[[], bool]) -> bool:
        """Read [W, C) into the index; return whether it was read to its end."""
        left = {place: one for place, one in plans.items() if one.replay_from < one.live_from}
        for (topic, number), one in left.items():
            self._observer.rebuilding(
                topic, number, replay_from=one.replay_from, live_from=one.live_from, reason=one.reason
            )
        self._next = {place: one.replay_from for place, one in plans.items()}
        if left:
            self._assign({place: one.replay_from for place, one in left.items()})
        while left and not stop():
            batch = by_place(self._consume())
            for place, messages in batch.items():
                if messages[-1].offset() >= (end := plans[place].live_from):
                    batch[place] = [one for one in messages if one.offset() < end]
            self._apply(batch, behind=left)
            self._next.update({place: min(at, left[place].live_from) for place, at in self._moved(left).items()})
            done = [place for place, one in left.items() if self._next[place] == one.live_from]
            self._consumer.pause([TopicPartition(*place) for place in done])
            for place in done:
                del left[place]
            if self._unstored > STORE_RECORDS:
                self._store()
        return not left

    def _assign(self, begin: Mapping[Place, int]) -> None:
        """Read on from these offsets, with a new consumer: one that has read before tells its former positions."""
        self._consumer.close()
        self._consumer = Consumer(self._consumer_settings)
        self._consumer.assign([TopicPartition(*place, at) for place, at in begin.items()])

    def _moved(self, places: Iterable[Place]) -> dict[Place, int]:
        """Return the next offset of each partition that was read on since `_next`."""
        return {place: at for place, at in self._positions(places) if at > self._next[place]}

    def _positions(self, places: Iterable[Place]) -> list[tuple[Place, int]]:
        """Return each partition's next offset; it also passes markers of transactions, which are no messages."""
        asked = [TopicPartition(*place) for place in places]
        return [((one.topic, one.partition), one.offset) for one in self._consumer.position(asked)]

    def _consume(self) -> list[Message]:
        messages: list[Message] = self._consumer.consume(BATCH, FILL_SECS)
        for message in messages:
            if (error := message.error()) is not None:
                raise BatchAborted(f"{message.topic()}[{message.partition()}] cannot be read on: {error.str()}")
        return messages

    def _apply(self, batch: Batch, behind: Iterable[Place]) -> Joined:
        """Step 4."""
        decisions, labels = (
            {place: messages for place, messages in batch.items() if place[0] == topic} for topic in self._topics
        )
        joined = self._join.apply(decisions, labels, self._clocks)
        self._join.expire(horizon_ms(self._clocks, self._topics[0], behind), joined)
        self._unstored += sum(map(len, batch.values()))
        return joined

    def _transact(self, batch: Batch) -> None:
        joined = self._apply(batch, [place for place, left in self._lags().items() if left])
        # Step 5
        moved = self._moved(self._next)
        self._writer.write(joined.written, joined.letters, moved, self._consumer)
        self._next.update(moved)
        self._observer.committed(sum(map(len, batch.values())))
        self._report(joined)

    def _refresh(self, broker_secs: float = BROKER_SECS) -> None:
        """Commit where each partition stands, moved or not, and store it."""
        stands = self._next | self._moved(self._next)
        self._writer.write([], [], stands, self._consumer, broker_secs)
        self._next = stands
        self._refreshed_at = time.monotonic()
        self._store()

    def _store_if_due(self) -> None:
        due = time.monotonic() - self._stored_at > STORE_SECS or self._unstored > STORE_RECORDS
        if due and self._unstored:
            self._store()

    def _store(self) -> None:
        """Step 6."""
        self._observer.storing()
        marks = {place: Mark(at, self._clocks.get(place, -1)) for place, at in self._next.items()}
        self._index.store(marks)
        self._stored_at, self._unstored = time.monotonic(), 0
        self._observer.stored()
        self._observer.index(self._index.decisions, self._index.size_bytes, self._index.waiting)

    def _lags(self) -> dict[Place, int]:
        """Return how many offsets lie ahead of each partition; at least 1 where its end is not known yet."""
        lags = {}
        for place, at in self._positions(self._next):
            _, end = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            lags[place] = 1 if end < 0 else max(0, end - max(at, self._next[place]))
        return lags

    def _tell(self) -> None:
        lags = self._lags()
        for topic in self._topics:
            self._observer.lag(topic, sum(left for (name, _), left in lags.items() if name == topic))

    def _report(self, joined: Joined) -> None:
        observer, (decisions, labels) = self._observer, self._topics
        observer.indexed(joined.indexed)
        if joined.repeated:
            observer.repeated(joined.repeated)
        for outcome, count in joined.outcomes.items():
            observer.joined(outcome, count)
        for reason, count in joined.refused_decisions.items():
            observer.set_aside(decisions, reason, count)
        for letter in joined.letters:
            observer.set_aside(labels, letter.error, 1)
        if joined.delays_ms:
            observer.delay(np.array(joined.delays_ms, np.int64))
            observer.labelled(joined.frauds, len(joined.delays_ms) - joined.frauds)
        if joined.newest_label_ms >= 0:
            observer.last_label(joined.newest_label_ms, time.time_ns() // 1_000_000)
        if joined.dropped:
            observer.dropped(joined.dropped)
