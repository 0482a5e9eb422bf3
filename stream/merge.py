"""Merges partitions into one sequence by record timestamp, keeping the order within each.

A partition read far ahead of the others would bring a user's newest events before the older ones that lie elsewhere:

    partition 0   09:00 ──── 09:05 ──── 17:00          what may go out: all up to 10:10, the point that every
    partition 1   09:02 ──── 10:10 │                   partition still being read has reached
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Final

__all__ = ["Lane", "Merge"]

# Read ahead on one partition while another is behind; then the one that is ahead waits.
LANE_RECORDS: Final = 10_000
LANE_BYTES: Final = 8 << 20


@dataclass(slots=True)
class Lane:
    """One partition's records that wait for their turn.

    reached_ms: the newest timestamp read; an older one behind it is taken as equal, so that order is kept.
    ended: nothing that must be waited for will come.
    """

    number: int
    waiting: deque[tuple[int, Any]] = field(default_factory=deque)
    size_bytes: int = 0
    reached_ms: int = -1
    ended: bool = False

    @property
    def full(self) -> bool:
        """Whether reading should pause."""
        return len(self.waiting) >= LANE_RECORDS or self.size_bytes >= LANE_BYTES


class Merge:
    """Records in by partition, out in one order. Messages are Kafka's: partition(), timestamp(), value()."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.lanes = {number: Lane(number) for number in partitions}

    def put(self, message: Any) -> None:
        """Add the next record of its partition."""
        lane = self.lanes[message.partition()]
        lane.reached_ms = max(lane.reached_ms, message.timestamp()[1])
        lane.waiting.append((lane.reached_ms, message))
        lane.size_bytes += len(message.value() or b"")

    def take(self) -> list[Any]:
        """Remove and return all that may go out: no partition still being read can bring anything older."""
        behind = [lane.reached_ms for lane in self.lanes.values() if not lane.ended]
        horizon_ms = min(behind, default=None)
        ready = [self._ready(lane, horizon_ms) for lane in self.lanes.values()]
        # The sort is stable and timestamps never fall within a lane: each partition's order stays.
        return [message for _, message in sorted(chain.from_iterable(ready), key=itemgetter(0))]

    def _ready(self, lane: Lane, horizon_ms: int | None) -> list[tuple[int, Any]]:
        waiting, ready = lane.waiting, []
        while waiting and (horizon_ms is None or waiting[0][0] <= horizon_ms):
            entry = waiting.popleft()
            lane.size_bytes -= len(entry[1].value() or b"")
            ready.append(entry)
        return ready
