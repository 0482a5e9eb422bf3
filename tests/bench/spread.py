"""How figures of several rounds are said: the median, the least and the most, and whether they bear their claim."""

import re
import statistics
from collections.abc import Sequence

FAILED = "failed: "  # begins what a figure says that could not be measured

_BOUND = re.compile(r"([≤≥])\s*([0-9.,]+)\s*(%?)")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return "median (least to most)"; one value alone stands alone."""
    median = f"{statistics.median(values):,.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def claim(values: Sequence[float], bound: str, digits: int = 2) -> str:
    """Return the spread and, beside a bound such as "≥ 0.6" or "≤ 2", whether all of it, none or a part meets it."""
    found = _BOUND.search(bound)
    if found is None:
        return spread(values, digits)
    limit = float(found[2].replace(",", "")) / (100 if found[3] else 1)
    met = [value >= limit if found[1] == "≥" else value <= limit for value in values]
    word = "met" if all(met) else "the spread exceeds the claim" if any(met) else "missed"
    return f"{spread(values, digits)}: {word}"


def first_number(measured: str) -> float | None:
    """Return a measured figure's first number, the median of a spread; None where there is none or it failed."""
    if measured.startswith(FAILED):
        return None
    found = re.search(r"[-+]?[0-9][0-9,]*(?:\.[0-9]+)?", measured)
    return float(found[0].replace(",", "")) if found else None


def failure(error: BaseException) -> str:
    """Return what a figure says that an exception has ended: its kind and first line."""
    lines = str(error).strip().splitlines()
    return f"{FAILED}{type(error).__name__}{': ' + lines[0] if lines else ''}"
