"""What the monitor tells whoever watches it. Every hook is a no-op here: it knows neither Prometheus nor logs."""

from models.quality_watch import QualitySnapshot
from stream.alert_record import Alert
from stream.joiner_observer import JoinerObserver
from stream.watch_snapshot import WatchSnapshot

__all__ = ["MonitorObserver", "MonitorObservers"]


class MonitorObserver(JoinerObserver):
    """Does nothing; subclass and override what you watch. The joiner's hooks come from its thread, these from one."""

    def turned(self) -> None:
        """The loop has gone round, which it does about once a second."""

    def kept_too_short(self, sentence: str) -> None:
        """A topic deletes what a restart would need; looked at once, at the start."""

    def standby(self) -> None:
        """Another monitor of the group holds the topics."""

    def reading_back(self) -> None:
        """The topics are held; what was committed is read again."""

    def read_back(self, topic: str, done: int, total: int) -> None:
        """So many of the topic's offsets are read back; from a thread of its own."""

    def caught_up(self, watch: WatchSnapshot | None) -> None:
        """Reading back is over; from now on everything is judged. watch: what was known then."""

    def read(self, topic: str) -> None:
        """A record of telemetry or labelled was taken."""

    def label_read(self, frauds: int, honest: int) -> None:
        """So many labelled decisions of either kind were read since the last time."""

    def raised(self, alert: Alert) -> None:
        """An alert was published, raised or cleared."""

    def state(self, watch: WatchSnapshot | None, quality: QualitySnapshot) -> None:
        """Tell what is known now, about once a second."""

    def left(self) -> None:
        """The monitor has left its group."""


class MonitorObservers(MonitorObserver):
    """Hands each hook to several observers."""

    def __init__(self, *observers: MonitorObserver) -> None:
        for name in dir(MonitorObserver):
            if not name.startswith("_"):
                setattr(self, name, _to_all([getattr(one, name) for one in observers]))


def _to_all(hooks: list[object]) -> object:
    def call(*args: object, **kwargs: object) -> None:
        for hook in hooks:
            hook(*args, **kwargs)  # type: ignore[operator]

    return call
