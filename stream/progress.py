"""A progress bar for long work, on standard error, and nothing at all where that is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["Tell", "counting", "waiting"]

REFRESHES_A_SEC: Final = 5


class _Count(ProgressColumn):
    """How many are done, of how many, and how fast: 12,345 / 50,000   4,100/s."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f" / {task.total:,.0f}"
        speed = "" if not task.speed else f"  {task.speed:,.0f}/s"
        return Text(f"{task.completed:,.0f}{total}{speed}")


class Tell(Protocol):
    """To be told how many are done so far, and of how many where that was not known at first."""

    def __call__(self, done: int, total: int | None = None, /) -> object:
        """Show it."""


def _nobody(done: int, total: int | None = None, /) -> None:
    pass


@contextmanager
def counting(what: str, total: int | None) -> Iterator[Tell]:
    """Show a bar inside the context; total None: not known (yet)."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _nobody
        return
    columns = [TextColumn("{task.description}"), BarColumn(20), _Count()]
    remaining = [TimeElapsedColumn()] if total is None else [TimeRemainingColumn()]
    with Progress(
        *columns, *remaining, console=console, transient=True, refresh_per_second=REFRESHES_A_SEC
    ) as progress:
        task = progress.add_task(what, total=total)

        def tell(done: int, total: int | None = None, /) -> None:
            progress.update(task, completed=done, total=total)

        yield tell


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], object]]:
    """Show a status line inside the context; yields what to call with another text."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(what) as status:
        yield status.update
