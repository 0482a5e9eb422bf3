"""What one look at something finds: how it stands, and a sentence that says how to mend it."""

from typing import Literal

__all__ = ["Found", "Level", "fail", "ok", "skip", "warn"]

#: WARN would work; FAIL prevents the start, or loses what should be known; SKIP could not be looked at.
Level = Literal["OK", "WARN", "FAIL", "SKIP"]
Found = tuple[Level, str]


def ok(text: str) -> Found:
    """Nothing is wrong."""
    return "OK", text


def warn(text: str) -> Found:
    """It would work, but is worth knowing."""
    return "WARN", text


def fail(text: str) -> Found:
    """It must be mended."""
    return "FAIL", text


def skip(text: str) -> Found:
    """It could not be looked at."""
    return "SKIP", text
