"""The known name that a mistyped one was probably meant to be."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like this one, capitals aside; None where none is like it."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_lower, 1, 0.5)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?", or nothing."""
    found = nearest(name, known)
    return f"; did you mean {found}?" if found else ""
