"""The monitor: reads back, watches, says what it finds, and joins labels beside it.

    Step 1  look at the topics; where the group never committed, commit where to begin
    Step 2  join the group, and wait until it gives us the topics      (a second monitor waits here)
    Step 3  become the only writer of alerts, and read what was said   `stream.monitor_alerts`
    Step 4  read back what lies before the committed offsets           `stream.monitor_state`
    Step 5  start the joiner in a thread of its own                    `stream.joiner`
    Step 6  take each record as Faust brings it: apply, publish what it raises, and only then let it be committed

Whatever was committed has thus been said, and what comes twice after a crash is said once, because an alert's id
follows from the log. A rebalance that leaves the topics here changes nothing; one that takes them away ends the
process.

Whatever may wait for a broker does so in a daemon thread, or in Faust's own: a stop waits for them LEAVE_SHARE of
worker.shutdown_timeout_ms, and then leaves them behind. Nothing that is only in memory is worth more.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from stream.alert_record import Alert
from stream.errors import FraudstreamError
from stream.joiner import Joiner
from stream.monitor_alerts import AlertLog
from stream.monitor_app import make_app, unread
from stream.monitor_aside import aside
from stream.monitor_observer import MonitorObserver
from stream.monitor_readback import LogReader
from stream.monitor_references import References
from stream.monitor_state import MonitorState, quality_memory_ms, telemetry_memory_ms
from stream.monitor_topics import check_topics
from stream.settings import Settings

__all__ = ["Monitor"]

TURN_SECS: Final = 1.0
LEAVE_SHARE: Final = 0.5
#: Records between two looks at how far reading back is.
STRIDE: Final = 1_000
#: Figures of a million labels take a second: they are shown that much less often.
REFRESH_SHARE: Final = 50.0

#: Loops that could not be closed, kept until the process ends.
_left_behind: list[object] = []


class Monitor:
    """One monitor; `run` until `stop` is called from another thread.

    bootstrap: where the broker listens if not as the settings say. clock: monotonic seconds. now_ms: epoch ms. join:
    joins labels until what it is given returns True; without it the joiner does.
    """

    def __init__(
        self,
        settings: Settings,
        observer: MonitorObserver,
        bootstrap: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        join: Callable[[Callable[[], bool]], None] | None = None,
    ) -> None:
        self._settings, self._observer, self._bootstrap = settings, observer, bootstrap
        self._clock, self._now_ms = clock, now_ms
        topics = settings.topics
        self._memory_ms = {
            topics.labelled: quality_memory_ms(settings),
            topics.telemetry: telemetry_memory_ms(settings),
        }
        self._alerts = AlertLog(settings, bootstrap)
        self._joins = join or Joiner(settings, observer, bootstrap).run
        self._references = References(settings)
        self._state: MonitorState | None = None
        self._following: dict[str, int] = {}
        self._unproven: set[str] = set()  # topics whose first record after an assignment has not come yet
        self._read_at = self._refresh_at = 0.0
        self._stopping = threading.Event()
        self._active = False
        self._all_ended = True
        self._end: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._joiner: threading.Thread | None = None

    def stop(self) -> None:
        """Leave in good order; for another thread."""
        self._stopping.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._finish)

    def run(self) -> None:
        """Watch until stopped; raises FraudstreamError for what ends it."""
        runner = asyncio.Runner()
        try:
            runner.run(self._run())
        finally:
            if self._all_ended:
                runner.close()
            else:
                _left_behind.append(runner)  # closing it would wait for what does not answer

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.create_future()
        self._ready, self._saying = asyncio.Event(), asyncio.Lock()
        if self._stopping.is_set():
            return
        with tempfile.TemporaryDirectory(prefix="fraudstream-monitor-", ignore_cleanup_errors=True) as scratch:
            app = make_app(self._settings, scratch, self._now_ms(), self._handle, self._following.get, self._bootstrap)
            app.on_partitions_assigned.connect(self._assigned)
            work = asyncio.ensure_future(self._work(app))
            try:
                await asyncio.wait({self._end, work}, return_when="FIRST_COMPLETED")
                (self._end if self._end.done() else work).result()
            finally:
                failed = await self._leave(app, work)
                self._observer.left()
            if failed:
                raise FraudstreamError(f"{failed}; nothing is lost, the next start reads it again.")

    async def _work(self, app: Any) -> None:
        # Step 1
        await aside(self._look_around)
        # Step 2
        await app.start()
        await self._turns(app)

    async def _leave(self, app: Any, work: asyncio.Future[None]) -> str:
        """End everything that is under way; return what could not be ended in time, "" where nothing is left."""
        self._stopping.set()
        work.cancel()
        stops = {
            asyncio.ensure_future(app.stop()): "Faust could not leave its group",
            asyncio.ensure_future(aside(self._stop_joiner)): "the joiner could not end its batch",
        }
        deadline_secs = LEAVE_SHARE * self._settings.worker.shutdown_timeout_ms / 1000
        ended, waited_for = await asyncio.wait({*stops, work}, timeout=deadline_secs)
        self._all_ended = not waited_for
        failed = [what for one, what in stops.items() if one not in ended or one.exception() is not None]
        return f"Asked to stop, but {' and '.join(failed)}: the broker does not answer" if failed else ""

    async def _turns(self, app: Any) -> None:
        assert self._end is not None
        crashed = asyncio.ensure_future(app.wait_until_stopped())
        try:
            while not self._end.done() and not self._stopping.is_set():
                done, _ = await asyncio.wait({self._end, crashed}, timeout=TURN_SECS, return_when="FIRST_COMPLETED")
                if crashed in done and not self._end.done():
                    raise FraudstreamError(
                        f"Faust gave up ({app.crash_reason or 'no reason given'}): look at the broker, and start again."
                    )
                await self._turn(app)
            if self._end.done():
                self._end.result()
        finally:
            crashed.cancel()

    async def _turn(self, app: Any) -> None:
        self._observer.turned()
        state = self._state
        if state is None:
            return
        lags = {topic: unread(app, topic, following) for topic, following in self._following.items()}
        for topic, lag in lags.items():
            if lag is not None:
                self._observer.lag(topic, lag)
        grace_ms = int(self._settings.monitor.grace)
        if lags.get(self._settings.topics.labelled) == 0 and self._clock() >= self._refresh_at:
            started = self._clock()
            state.refresh()
            self._refresh_at = self._clock() + REFRESH_SHARE * (self._clock() - started)
        # What was read back may have been followed by records that are only on their way.
        if lags.get(self._settings.topics.labelled) == 0 and self._clock() - self._read_at >= grace_ms / 1000:
            await self._say(state.idle(self._now_ms() - grace_ms))
        self._observer.label_read(state.frauds, state.honest)
        state.frauds = state.honest = 0
        self._observer.state(state.watch, state.quality)

    async def _assigned(self, _: Any, assigned: Iterable[Any], **__: Any) -> None:
        held = {place.topic for place in assigned}
        if not held:
            if self._active:
                self._fail(FraudstreamError("Another monitor of the same monitor.group took over, so this one ends."))
            else:
                self._observer.standby()
            return
        self._unproven = set(self._memory_ms)
        if not self._active:
            self._active = True
            self._observer.reading_back()
            self._activation = asyncio.ensure_future(self._activate())

    async def _activate(self) -> None:
        try:
            # Steps 3 and 4
            state = await aside(self._read_back)
        except BaseException as error:  # noqa: BLE001 (it ends the process, in _turns)
            self._fail(error)
            return
        if self._stopping.is_set():
            return
        # Step 5
        self._joiner = threading.Thread(target=self._join, name="joiner", daemon=True)
        self._joiner.start()
        self._state, self._read_at = state, self._clock()
        self._observer.caught_up(state.watch)
        self._observer.state(state.watch, state.quality)
        self._ready.set()

    async def _handle(self, topic: str, offset: int, timestamp_ms: int, value: bytes | None) -> None:
        """Step 6; an error ends the process, and the record with it: it is not acknowledged."""
        await self._ready.wait()
        try:
            following = self._following[topic]
            if offset < following:
                return  # read back, or brought again by a rebalance
            if topic in self._unproven and offset > following:
                # After a rebalance Faust may bring a record that it had fetched before (its issue 221).
                await self._fill(topic, following, offset)
            self._unproven.discard(topic)
            await self._take(topic, offset, timestamp_ms, value)
        except asyncio.CancelledError:
            raise  # Faust ends its agents
        except BaseException as error:  # noqa: BLE001 (as above)
            self._fail(error)
            await asyncio.Event().wait()

    async def _fill(self, topic: str, begin: int, end: int) -> None:
        def read() -> list[tuple[int, int, bytes | None]]:
            with LogReader(self._settings, self._bootstrap) as reader:
                return [(r.offset(), r.timestamp()[1], r.value()) for r in reader.read(topic, begin, end)]

        for offset, timestamp_ms, value in await aside(read):
            await self._take(topic, offset, timestamp_ms, value)

    async def _take(self, topic: str, offset: int, timestamp_ms: int, value: bytes | None) -> None:
        assert self._state is not None
        is_telemetry = topic == self._settings.topics.telemetry
        alerts = (self._state.telemetry if is_telemetry else self._state.labelled)(value, timestamp_ms)
        if not is_telemetry:
            self._read_at = self._clock()
        await self._say(alerts)
        self._following[topic] = offset + 1
        self._observer.read(topic)

    async def _say(self, alerts: list[Alert]) -> None:
        if not alerts:
            return
        async with self._saying:
            for alert in await aside(partial(self._alerts.publish, alerts)):
                self._observer.raised(alert)

    def _look_around(self) -> None:
        for sentence in check_topics(self._settings, self._bootstrap):
            self._observer.kept_too_short(sentence)
        with LogReader(self._settings, self._bootstrap) as reader:
            for topic, memory_ms in self._memory_ms.items():
                low, high = reader.range(topic)
                committed = reader.committed(topic)
                if committed is None or not low <= committed <= high:
                    reader.commit(topic, max(low, reader.offset_at(topic, self._now_ms() - memory_ms)))

    def _read_back(self) -> MonitorState:
        # Step 3
        said = self._alerts.open()
        # Step 4
        state = MonitorState(self._settings, self._references, said, self._set_aside)
        take = {
            self._settings.topics.labelled: state.labelled,
            self._settings.topics.telemetry: state.telemetry,
        }
        with LogReader(self._settings, self._bootstrap) as reader:
            for topic, memory_ms in self._memory_ms.items():
                low, high = reader.range(topic)
                committed = reader.committed(topic)
                end = low if committed is None else min(max(low, committed), high)
                last_ms = reader.last_time_ms(topic, end)
                cut_ms = 0 if last_ms is None else last_ms - memory_ms
                begin = end if last_ms is None else max(low, min(end, reader.offset_at(topic, cut_ms)))
                if topic == self._settings.topics.telemetry:
                    state.begins_with(whole_log=begin == 0, cut_ms=cut_ms if begin > low else None)
                for number, record in enumerate(reader.read(topic, begin, end)):
                    if number % STRIDE == 0:
                        if self._stopping.is_set():
                            return state
                        self._observer.read_back(topic, record.offset() - begin, end - begin)
                    take[topic](record.value(), record.timestamp()[1])
                self._following[topic] = end
        state.go_live()
        state.frauds = state.honest = 0
        return state

    def _set_aside(self, topic: str, reason: str, _: str) -> None:
        if self._state is not None:
            self._observer.set_aside(topic, reason, 1)

    def _join(self) -> None:
        try:
            self._joins(self._stopping.is_set)
        except BaseException as error:  # noqa: BLE001 (as above)
            if self._loop is not None and not self._stopping.is_set():
                self._loop.call_soon_threadsafe(self._fail, error)

    def _stop_joiner(self) -> None:
        if self._joiner is not None:
            self._joiner.join()

    def _fail(self, error: BaseException) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_exception(error)

    def _finish(self) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
