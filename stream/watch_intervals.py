"""Records wait until their interval is closed, then come out in an order that arrival has no part in.

    Kafka timestamp   ──┬───────────┬───────────┬──────────
    interval            │     i     │    i+1    │
                        └───────────┘  grace    │
                                    └───────┘► a record stamped here or later closes i

Closed intervals come out by (end, interval, worker, epoch, sequence). A record of a closed interval is late.
"""

from typing import Final, Literal

from stream.telemetry_record import Telemetry

__all__ = ["Intervals", "Sequences", "interval_end"]

# A repeat older than this many records of its worker is taken for one; 17 minutes at one a second.
REMEMBERED: Final = 1_024

Closed = list[tuple[int, list[Telemetry]]]


class Intervals:
    """Records whose interval is open; closed_ms: the end of the newest one closed."""

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._open: dict[int, list[Telemetry]] = {}
        self.closed_ms = 0

    def add(self, record: Telemetry) -> bool:
        """Keep the record until its interval closes; return False where it is late."""
        end_ms = interval_end(record)
        if end_ms <= self.closed_ms:
            return False
        self._open.setdefault(end_ms, []).append(record)
        return True

    def close(self, now_ms: int) -> Closed:
        """Return the intervals that end grace or longer before now, oldest first, each with its records in order."""
        self.closed_ms = max(self.closed_ms, now_ms - self._grace_ms)
        due = sorted(end for end in self._open if end <= self.closed_ms)
        return [(end, sorted(self._open.pop(end), key=_order)) for end in due]

    def reopen(self, now_ms: int) -> None:
        """Go back to this time: whatever waits is forgotten, and what ends after it is open."""
        self._open.clear()
        self.closed_ms = now_ms - self._grace_ms


class Sequences:
    """Which records were seen, by worker and its epoch: repeats are told, gaps counted, little remembered."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], _Seen] = {}
        self.lost = 0

    def arrived(self, record: Telemetry) -> Literal["new", "repeated"]:
        """Note a record; say whether it was seen before."""
        seen = self._seen.setdefault((record.worker, record.epoch), _Seen())
        seen.heard_ms = max(seen.heard_ms, interval_end(record))
        if record.sequence in seen.numbers or record.sequence < seen.floor:
            return "repeated"
        seen.numbers.add(record.sequence)
        return "new"

    def applied(self, record: Telemetry, end_ms: int) -> None:
        """Count what is missing between this record and the one of its worker applied before it."""
        seen = self._seen.setdefault((record.worker, record.epoch), _Seen())
        if seen.applied is not None:
            between = range(seen.applied + 1, record.sequence)
            self.lost += len(between) if len(between) > REMEMBERED else sum(n not in seen.numbers for n in between)
        seen.applied = record.sequence if seen.applied is None else max(seen.applied, record.sequence)
        seen.end_ms = end_ms
        if len(seen.numbers) > 2 * REMEMBERED:
            seen.floor = seen.applied - REMEMBERED
            seen.numbers = {number for number in seen.numbers if number >= seen.floor}

    def forget(self, before_ms: int) -> None:
        """Forget workers none of whose records reaches this time."""
        for name, seen in list(self._seen.items()):
            if seen.heard_ms < before_ms:
                del self._seen[name]

    def workers(self, since_ms: int) -> tuple[str, ...]:
        """Return the names of workers that a record ending since then is of, sorted."""
        return tuple(sorted({worker for (worker, _), seen in self._seen.items() if seen.end_ms >= since_ms}))


class _Seen:
    __slots__ = ("applied", "end_ms", "floor", "heard_ms", "numbers")

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.floor = 0
        self.applied: int | None = None
        self.end_ms = 0
        self.heard_ms = 0


def interval_end(record: Telemetry) -> int:
    """Return when the record's interval ends, epoch milliseconds."""
    return (record.interval + 1) * record.interval_ms


def _order(record: Telemetry) -> tuple[int, str, int, int]:
    return record.interval, record.worker, record.epoch, record.sequence
