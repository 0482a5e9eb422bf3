"""How the workers stand, as a picture for a terminal: two columns of panels, or four where there is room."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from stream.scrape import Rates

__all__ = ["Dashboard", "bytes_text", "count_text", "secs_text"]

WIDE: Final = 112  # four panels in a row need this many columns
LABEL: Final = 10
SCORE: Final = 5
HISTORY: Final = 60
BARS: Final = "▁▂▃▄▅▆▇█"
NOTHING: Final = "–"
OUTCOME_STYLES: Final = {"approve": "green", "review": "yellow", "decline": "red"}


class Dashboard:
    """A rich renderable; update() gives it each interval's rates."""

    def __init__(self, title: str = "fraudstream") -> None:
        self._title = title
        self._rates: Rates | None = None
        self._declines: Sequence[dict[str, Any]] | None = None
        self._now_secs = 0.0
        self._speeds: deque[float] = deque(maxlen=HISTORY)
        self._tails: deque[float] = deque(maxlen=HISTORY)

    def update(self, rates: Rates, now_secs: float, declines: Sequence[dict[str, Any]] | None = None) -> None:
        """Show these from now on. now_secs: epoch seconds. declines: newest first, None where there is no source."""
        self._rates, self._now_secs, self._declines = rates, now_secs, declines
        if rates.secs > 0:
            self._speeds.append(rates.events_per_sec)
            self._tails.append(rates.p99_secs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw."""
        rates = self._rates
        if rates is None:
            return
        columns = 4 if options.max_width >= WIDE else 2
        inner = options.max_width // columns - 4
        panels = [self._flow(rates, inner), self._latency(rates, inner), self._mix(rates, inner), self._state(rates)]
        yield self._head(rates)
        grid = Table.grid(expand=True)
        for _ in range(columns):
            grid.add_column(ratio=1)
        for first in range(0, len(panels), columns):
            grid.add_row(*panels[first : first + columns])
        yield grid
        yield from _trouble(rates)
        if self._declines is not None:
            yield _declines(self._declines, max(3, options.max_width - 4))

    def _head(self, rates: Rates) -> Text:
        parts = [
            f"{rates.workers - len(rates.down)} of {rates.workers} workers" if rates.workers > 1 else "",
            f"up {_span(self._now_secs - rates.started_at)}" if not math.isnan(rates.started_at) else "",
            *(f"model {model} on {engine}, features {features[:8]}" for model, engine, features in rates.models),
        ]
        text = Text(f" {self._title}", style="bold", no_wrap=True, overflow="ellipsis")
        return text.append("".join(f"  ·  {part}" for part in parts if part), Style(bold=False, dim=True))

    def _flow(self, rates: Rates, width: int) -> Panel:
        partition, lag = rates.worst
        worst = f"{count_text(lag)} on {partition}" if lag else NOTHING
        return _panel(
            "throughput",
            ("events/s", Text(count_text(rates.events_per_sec), style="bold")),
            ("", Text(_spark(self._speeds, width - LABEL), style="cyan")),
            ("lag", count_text(rates.lag)),
            ("worst", worst),
            ("batch", count_text(rates.batch_mean)),
        )

    def _latency(self, rates: Rates, width: int) -> Panel:
        busy = {stage: secs for stage, secs in rates.stages.items() if stage != "consume"}  # which mostly waits
        total = sum(busy.values())
        stage = max(busy, key=lambda name: busy[name]) if total else ""
        return _panel(
            "broker to decision",
            ("p50", Text(secs_text(rates.p50_secs), style="bold")),
            ("p99", Text(secs_text(rates.p99_secs), style="bold")),
            ("", Text(_spark(self._tails, width - LABEL), style="magenta")),
            ("commit", secs_text(rates.commit_p50_secs)),
            ("busiest", f"{stage} {busy[stage] / total:.0%}" if stage else NOTHING),
        )

    def _mix(self, rates: Rates, width: int) -> Panel:
        total = sum(rates.decisions.values())
        counts = rates.decisions or dict.fromkeys(OUTCOME_STYLES, 0.0)
        rows = [
            (outcome, _share(count, total, width - LABEL, OUTCOME_STYLES.get(outcome, "cyan")))
            for outcome, count in counts.items()
        ]
        dead = sum(rates.dead_letters.values())
        worst = max(rates.dead_letters, key=lambda reason: rates.dead_letters[reason], default="")
        return _panel(
            "decisions",
            *rows,
            ("dead", Text(f"{count_text(dead)} {worst}".rstrip(), style="red" if dead else "")),
            ("replayed", count_text(rates.replayed)),
        )

    def _state(self, rates: Rates) -> Panel:
        live = f"{rates.live} of {rates.assigned}" + (f", {rates.paused} paused" if rates.paused else "")
        store = Text("does not answer", style="bold red") if rates.breaker_open else Text("answers", style="green")
        return _panel(
            "state",
            ("users", Text(count_text(rates.users), style="bold")),
            ("memory", bytes_text(rates.size_bytes)),
            ("stored", NOTHING if math.isnan(age := rates.checkpoint_age_secs) else f"{secs_text(age)} ago"),
            ("store", store),
            ("live", Text(live, style="yellow" if rates.paused or rates.live < rates.assigned else "")),
        )


def _panel(title: str, *rows: tuple[str, str | Text]) -> Panel:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=LABEL - 1, style="dim")
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for label, value in rows:
        grid.add_row(label, value)
    return Panel(grid, title=title, title_align="left", border_style="dim", padding=(0, 1))


def _share(count: float, total: float, width: int, style: str) -> Text:
    share = count / total if total else math.nan
    text = Text(f"{NOTHING:>6}" if math.isnan(share) else f"{share:>6.1%}")
    if share > 0:
        text.append(" " + "█" * max(1, round(share * (width - 7))), style)
    return text


def _trouble(rates: Rates) -> Iterator[Text]:
    for worker in rates.down:
        yield Text(f" {worker.url} is down: {worker.down}", style="bold red", overflow="ellipsis", no_wrap=True)
    if rates.aborts:
        yield Text(f" {count_text(rates.aborts)} batches aborted", style="yellow")


def _declines(declines: Sequence[dict[str, Any]], width: int) -> Panel:
    grid = Table.grid(padding=(0, 1))
    longest = max((len(decision["user_id"]) for decision in declines), default=0)
    grid.add_column(style="dim", width=min(longest, width // 4))
    grid.add_column(style="bold red", width=SCORE)
    grid.add_column()  # the only one to give way, so its texts, not itself, are kept to one line
    for decision in declines:
        reasons = "; ".join(reason["text"] for reason in decision["reasons"])
        grid.add_row(_printable(decision["user_id"]), f"{decision['score']:.3f}", _printable(reasons))
    body = grid if declines else Text("none yet", style="dim")
    return Panel(
        body, title="newest declines: user, score, why", title_align="left", border_style="dim", padding=(0, 1)
    )


def _printable(text: str) -> Text:
    """Leave out what a terminal would obey: these texts come from outside."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Text(shown, no_wrap=True, overflow="ellipsis")


def _spark(values: Sequence[float], width: int) -> str:
    shown = list(values)[-max(0, width) :] if width > 0 else []
    top = max((v for v in shown if not math.isnan(v)), default=0.0)
    if top <= 0:
        return ""
    return "".join(" " if math.isnan(v) else BARS[min(7, int(v / top * 7.999))] for v in shown)


def count_text(value: float) -> str:
    """Return a count in full, thousands apart; one decimal below 10 where there is one."""
    if math.isnan(value):
        return NOTHING
    return f"{value:,.1f}" if value < 10 and value != int(value) else f"{value:,.0f}"


def secs_text(secs: float) -> str:
    """Return a time in the unit that suits it."""
    if math.isnan(secs):
        return NOTHING
    if secs < 1:
        return f"{secs * 1000:.1f} ms" if secs < 0.1 else f"{secs * 1000:.0f} ms"
    return f"{secs:.1f} s" if secs < 120 else _span(secs)


def bytes_text(size: float) -> str:
    """Return a size in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _span(secs: float) -> str:
    """Return a duration by its two largest units."""
    whole = max(0, int(secs))
    for size, unit, smaller, part in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {part}"
    return f"{whole} s"
