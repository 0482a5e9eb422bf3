"""Durations and sizes as people write them in settings: "31d", "90s", "1GiB", or a bare number."""

import re
from typing import Final, Self

__all__ = ["Duration", "Size"]

_MS: Final = {"": 1, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES: Final = {
    "": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip


def _scaled(text: str, units: dict[str, int]) -> int:
    found = re.fullmatch(r"\s*([0-9]+)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2] not in units:
        raise ValueError(text)
    return int(found[1]) * units[found[2]]


class Duration(int):
    """Milliseconds; written "31d", "12h", "5m", "90s", "250ms" or as a bare number of milliseconds."""

    expectation = 'a duration such as "31d", "12h", "5m", "90s" or a number of milliseconds'

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Read a TOML number or text; raises ValueError."""
        return cls(_scaled(str(raw), _MS))

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s"):
            if self and self % _MS[unit] == 0:
                return f"{self // _MS[unit]}{unit}"
        return f"{int(self)}ms"


class Size(int):
    """Bytes; written "1GiB", "256MiB", "1MB" or as a bare number of bytes."""

    expectation = 'a size such as "1GiB", "256MiB" or a number of bytes'

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Read a TOML number or text; raises ValueError."""
        return cls(_scaled(str(raw), _BYTES))

    def __str__(self) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return f"{int(self)}"
