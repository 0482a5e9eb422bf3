"""Whether the monitor is well, for /healthz and /readyz, and what it does, as log lines."""

# What a hook means stands at MonitorObserver.
# ruff: noqa: D102

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from stream.alert_record import Alert
from stream.health import stuck
from stream.monitor_observer import MonitorObserver
from stream.watch_snapshot import WatchSnapshot

__all__ = ["MonitorHealth", "MonitorLog", "Repeats"]

#: Alerts wait for a broker that is away: monitor_alerts.GIVE_UP_SECS, and three answers of 30 s that began before its
#: end. Nothing else holds the loop up for longer than the seconds that figures of a million labels take.
STUCK_SECS: Final = 240.0
#: One line for the same thing in so many seconds.
REPEAT_SECS: Final = 60.0
PROGRESS_SECS: Final = 10.0
READS_BACK: Final = "telemetry and labels are read back"

log = logging.getLogger("fraudstream.monitor")


class MonitorHealth(MonitorObserver):
    """/healthz: the loop goes round. /readyz: it has read back, and judges what comes. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, stuck_secs: float = STUCK_SECS) -> None:
        self._clock, self._stuck_secs = clock, stuck_secs
        self._turned_at = clock()
        self._unready: dict[str, Any] | None = {"reason": "it has not joined its group yet"}

    def turned(self) -> None:
        self._turned_at = self._clock()

    def standby(self) -> None:
        self._unready = {"reason": "another monitor of the group is active, and this one waits"}

    def reading_back(self) -> None:
        self._unready = {"reason": READS_BACK}

    def read_back(self, topic: str, done: int, total: int) -> None:
        self._unready = {"reason": READS_BACK, "topic": topic, "records": done, "of": total}

    def caught_up(self, watch: WatchSnapshot | None) -> None:  # noqa: ARG002 (what it watches is no matter of health)
        self._unready = None

    def left(self) -> None:
        self._unready = {"reason": "the monitor has left its group"}

    def unhealthy(self) -> dict[str, Any] | None:
        """Return why the process should be restarted, None while it should not."""
        return stuck(self._clock() - self._turned_at, self._stuck_secs)

    def unready(self) -> dict[str, Any] | None:
        """Return why nothing is judged now, None where it is."""
        return self._unready

    @property
    def about(self) -> dict[str, str]:
        """There is nothing to add."""
        return {}


class MonitorLog(MonitorObserver):
    """Writes to the logger "fraudstream.monitor". clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._progress_at = 0.0
        self._lock = threading.Lock()
        self._told_at: dict[tuple[str, str], float] = {}
        self._untold: dict[tuple[str, str], int] = {}

    def kept_too_short(self, sentence: str) -> None:
        _tell("short_retention", sentence, logging.WARNING)

    def standby(self) -> None:
        _tell("standby", "another monitor of the group is active, and this one waits", logging.WARNING)

    def reading_back(self) -> None:
        self._progress_at = self._clock() + PROGRESS_SECS
        _tell("reading_back", READS_BACK)

    def read_back(self, topic: str, done: int, total: int) -> None:
        """Say so every ten seconds."""
        if self._clock() >= self._progress_at:
            self._progress_at = self._clock() + PROGRESS_SECS
            _tell("read_back", "reading back goes on", topic=topic, records=done, of=total)

    def caught_up(self, watch: WatchSnapshot | None) -> None:
        records = 0 if watch is None else watch.totals.records
        _tell("caught_up", "read back; from now on everything is judged", records=records)

    def raised(self, alert: Alert) -> None:
        level = logging.WARNING if alert.state == "raised" else logging.INFO
        _tell("alert", alert.text, level, id=alert.id, state=alert.state, signal=alert.signal, subject=alert.subject)

    def set_aside(self, topic: str, reason: str, count: int) -> None:
        """Say so at once, then once a minute with how many came meanwhile."""
        with self._lock:
            key, now = (topic, reason), self._clock()
            self._untold[key] = self._untold.get(key, 0) + count
            if now < self._told_at.get(key, 0.0):
                return
            self._told_at[key] = now + REPEAT_SECS
            count = self._untold.pop(key)
        _tell("set_aside", "records that say nothing", logging.WARNING, topic=topic, reason=reason, count=count)

    def rebuilding(self, topic: str, partition: int, *, replay_from: int, live_from: int, reason: str) -> None:
        _tell(
            "rebuilding",
            "decisions and labels are read back into the index",
            topic=topic,
            partition=partition,
            offset=replay_from,
            to=live_from,
            reason=reason,
        )

    def live(self) -> None:
        _tell("joining", "the index of decisions is whole; labels are joined")

    def aborted(self, reason: str) -> None:
        _tell("aborted", "a batch of labels is joined again", logging.WARNING, reason=reason)

    def left(self) -> None:
        _tell("stopped", "the monitor has left its group")


class Repeats(logging.Filter):
    """Lets through of Faust, mode and aiokafka each message once a minute: a broker away is one line, not a flood."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        if record.name.partition(".")[0] not in ("faust", "mode", "aiokafka"):
            return True
        key, now = (record.name, str(record.msg)), self._clock()
        if now < self._until.get(key, 0.0):
            return False
        if len(self._until) > 1_000:
            self._until.clear()
        self._until[key] = now + REPEAT_SECS
        return True


def _tell(event: str, message: str, level: int = logging.INFO, **fields: Any) -> None:
    log.log(level, message, extra={"event": event, **fields})
