"""The stream's own clock: the newest timestamp of the telemetry topic, and what becomes of one that cannot be.

One worker whose clock says 2099 must not close every interval until then; a stream that paused over a weekend must go
on. No record alone can tell the two apart, but the next ones can: the clock moves further than JUMP_MS once that many
more records say so than keep to it (Boyer and Moore's majority vote).

    timestamps   12:00:01  12:00:01  2099  12:00:02  2099  12:00:03          2099 stays a minority: set aside
    timestamps   Fri 18:00  Mon 08:00  Mon 08:01  … ×32                      the clock moves on
"""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["JUMP_MS", "StreamClock"]

#: Further than this from the newest timestamp, a record is astray: no worker's telemetry waits that long.
JUMP_MS: Final = 600_000
# Half a minute of one worker alone.
VOTES_ONWARDS: Final = 32
# A worker cut off from the broker may bring a thousand old records at once; going back costs all that is known.
VOTES_BACK: Final = 2_000


@dataclass(slots=True)
class StreamClock:
    """now_ms: the newest timestamp believed, None before the first."""

    now_ms: int | None = None
    _onwards: int = 0
    _back: int = 0

    def observe(self, timestamp_ms: int) -> Literal["kept", "ahead", "behind", "moved_on", "moved_back"]:
        """Take a record's timestamp: kept, set aside as ahead or behind, or believed and the clock moved to it."""
        if self.now_ms is None:
            self.now_ms = timestamp_ms
            return "kept"
        if abs(timestamp_ms - self.now_ms) <= JUMP_MS:
            self.now_ms = max(self.now_ms, timestamp_ms)
            self._onwards, self._back = max(0, self._onwards - 1), max(0, self._back - 1)
            return "kept"
        if timestamp_ms > self.now_ms:
            self._onwards += 1
            if self._onwards < VOTES_ONWARDS:
                return "ahead"
            return self._move(timestamp_ms, "moved_on")
        self._back += 1
        if self._back < VOTES_BACK:
            return "behind"
        return self._move(timestamp_ms, "moved_back")

    def _move(self, timestamp_ms: int, how: Literal["moved_on", "moved_back"]) -> Literal["moved_on", "moved_back"]:
        self.now_ms, self._onwards, self._back = timestamp_ms, 0, 0
        return how
