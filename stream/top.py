"""The live view: what workers do, read from their metrics each interval; plain lines where there is no terminal."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import orjson
from rich.console import Console
from rich.live import Live

from stream.dashboard import Dashboard, bytes_text, count_text, secs_text
from stream.observer import Observer
from stream.scrape import Rates, Sample, Scrape, fetch, metrics_url, take_sample

__all__ = ["Recent", "run_top"]

HEADER_EVERY: Final = 20  # lines, so that the columns' names never scroll far away
RECENT: Final = 6  # the view then fits 24 lines of 80 columns

_COLUMNS: Final = (
    *(("time", 8), ("events/s", 9), ("lag", 10), ("p50", 8), ("p99", 8), ("approve", 7), ("review", 7)),
    *(("decline", 7), ("dead", 6), ("batch", 6), ("users", 9), ("memory", 9), ("stored", 8), ("store", 5), ("up", 5)),
)


class Recent(Observer):
    """Keeps the newest declined decisions, for a view in the same process."""

    def __init__(self, size: int = RECENT) -> None:
        self._lock = threading.Lock()
        self._declines: deque[dict[str, Any]] = deque(maxlen=size)

    def decision(self, value: bytes) -> None:
        """Keep it where it is a decline."""
        decision = orjson.loads(value)
        if decision["decision"] == "decline":
            with self._lock:
                self._declines.appendleft(decision)

    def declines(self) -> list[dict[str, Any]]:
        """Return them, newest first."""
        with self._lock:
            return list(self._declines)


class Stop(Protocol):
    """What ends the view; threading.Event is one."""

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds; True once the view is to end."""


def run_top(
    urls: Sequence[str],
    interval_secs: float,
    console: Console,
    clock: Callable[[], float] = time.monotonic,
    stop: Stop | None = None,
    *,
    recent: Recent | None = None,
    fetch: Callable[[str], str] = fetch,
    title: str = "fraudstream",
) -> Rates:
    """Show the workers behind these addresses until stopped or interrupted; return their totals since they started.

    urls: host:port or URLs; UsageError where one is neither. clock: monotonic seconds. recent: a source of declines in
    this process. The totals are as of each worker's last answer.
    """
    addresses = [metrics_url(url) for url in urls]
    watch = _Watch(addresses, console, clock, fetch, recent, Dashboard(title))
    stop = stop or threading.Event()
    try:
        if console.is_terminal:
            with Live(watch.dashboard, console=console, auto_refresh=False) as live:
                watch.run(stop, interval_secs, lambda _: live.refresh())
        else:
            watch.run(stop, interval_secs, _Lines(console).print)
    except KeyboardInterrupt:
        pass
    return watch.totals()


class _Watch:
    """Samples taken one after another."""

    def __init__(
        self,
        urls: Sequence[str],
        console: Console,
        clock: Callable[[], float],
        fetch: Callable[[str], str],
        recent: Recent | None,
        dashboard: Dashboard,
    ) -> None:
        self._urls, self._console, self._clock, self._fetch = urls, console, clock, fetch
        self._recent = recent
        self._last: dict[str, Scrape] = {}
        self.dashboard = dashboard

    def run(self, stop: Stop, interval_secs: float, show: Callable[[Rates], None]) -> None:
        """Show each interval; the first picture tells how things stand before anything can be said about speed."""
        before = self._sample()
        self._show(Rates.between(before, before), show)
        while True:
            ended = stop.wait(interval_secs)
            after = self._sample()
            self._show(Rates.between(before, after), show)
            if ended:
                return
            before = after

    def totals(self) -> Rates:
        """Return everything since the workers' starts, as of their last answers."""
        return Rates.between(None, Sample(self._clock(), tuple(self._last.values())))

    def _sample(self) -> Sample:
        sample = take_sample(self._urls, self._clock, self._fetch)
        self._last.update({worker.url: worker for worker in sample.workers if not worker.down})
        return sample

    def _show(self, rates: Rates, show: Callable[[Rates], None]) -> None:
        now_secs = self._console.get_datetime().timestamp()
        self.dashboard.update(rates, now_secs, self._recent.declines() if self._recent else None)
        show(rates)


class _Lines:
    """A table that grows by a line an interval, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = 0

    def print(self, rates: Rates) -> None:
        """Print one line, and what does not answer."""
        if self._printed % HEADER_EVERY == 0:
            self._write(name.rjust(width) for name, width in _COLUMNS)
        self._printed += 1
        self._write(text.rjust(width) for text, (_, width) in zip(self._texts(rates), _COLUMNS, strict=True))
        for worker in rates.down:
            self._write([f"{worker.url} is down: {worker.down}"])

    def _texts(self, rates: Rates) -> list[str]:
        total = sum(rates.decisions.values())
        shares = {name: f"{count / total:.1%}" for name, count in rates.decisions.items()} if total else {}
        return [
            self._console.get_datetime().strftime("%H:%M:%S"),
            count_text(rates.events_per_sec),
            count_text(rates.lag),
            secs_text(rates.p50_secs),
            secs_text(rates.p99_secs),
            *(shares.get(outcome, "–") for outcome in ("approve", "review", "decline")),
            count_text(sum(rates.dead_letters.values())),
            count_text(rates.batch_mean),
            count_text(rates.users),
            bytes_text(rates.size_bytes),
            secs_text(rates.checkpoint_age_secs),
            "down" if rates.breaker_open else "ok",
            f"{rates.workers - len(rates.down)}/{rates.workers}",
        ]

    def _write(self, texts: Any) -> None:
        self._console.print("  ".join(texts), markup=False, highlight=False, soft_wrap=True)
