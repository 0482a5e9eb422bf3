"""A compiled function is taken from its cache on disk, or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["NotOnDisk", "found_or_nothing"]


class NotOnDisk(Exception):
    """The function was not compiled before, for these types or from these sources."""


@contextmanager
def found_or_nothing(function: Callable[..., Any]) -> Iterator[None]:
    """Raise NotOnDisk from a call of a Numba function that would compile it; a call that finds it on disk goes on."""

    def refuse(*_: object) -> None:
        raise NotOnDisk

    compiler: Any = getattr(function, "_compiler")  # noqa: B009 - Numba offers no public way
    compiler.compile = refuse
    try:
        yield
    finally:
        del compiler.compile
