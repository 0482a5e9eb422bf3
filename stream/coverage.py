"""From which offset on the log still covers the retention, in event time.

With every commit a few samples (offset, newest event time before it) go into its metadata. If everything before offset
R is older than the newest event less the retention, no window of a payment that is as late as the retention allows for
reaches below R, and replaying from R rebuilds them all. (A payment that is later may find its user's windows short, and
then they say so.) Record timestamps prove nothing: a backfill is stamped today.
"""

from dataclasses import dataclass, field

__all__ = ["Coverage"]

SAMPLES_A_RETENTION = 16  # a rebuild reads at most 1/16 more than the retention; about 300 bytes a commit
MAX_SAMPLES = 40


@dataclass
class Coverage:
    """Samples of one partition, oldest first: all that counts before `offset` has an event time <= `newest_ms`.

    floor_ms: the state was rebuilt from a part of the log, and what lies before has event times up to this.
    """

    samples: list[tuple[int, int]] = field(default_factory=list)
    newest_ms: int | None = None
    floor_ms: int | None = None

    @classmethod
    def begun(cls, offset: int, retention_ms: int) -> "Coverage":
        """State begins at this offset: whatever lies before it is in no window, however new."""
        return cls([(offset, 0)], retention_ms)

    def observe(self, next_offset: int, newest_ms: int, retention_ms: int) -> None:
        """Note that the records below next_offset have event times up to newest_ms (of these and all before)."""
        newest = newest_ms if self.newest_ms is None else max(self.newest_ms, newest_ms)
        self.newest_ms = newest
        if not self.samples or newest - self.samples[-1][1] >= retention_ms // SAMPLES_A_RETENTION:
            self.samples.append((next_offset, newest))
            while len(self.samples) > 1 and self.samples[1][1] <= newest - retention_ms:
                del self.samples[0]
            del self.samples[: max(0, len(self.samples) - MAX_SAMPLES)]

    def covered_from(self, retention_ms: int) -> int | None:
        """Return the highest offset known to cover the retention, None if none is known."""
        if self.newest_ms is None:
            return None
        proven = [offset for offset, newest in self.samples if newest <= self.newest_ms - retention_ms]
        return proven[-1] if proven else None

    def rebuilt_from(self, offset: int) -> None:
        """Note what may be missing from windows that are rebuilt from here; from the log's first record nothing is."""
        before = [newest for at, newest in self.samples if at >= offset]
        self.floor_ms = min(before) if before and offset > 0 else None

    def text(self) -> str:
        """Encode for a commit's metadata: newest_ms, /floor_ms if any, then offset:newest pairs, in base 36."""
        if self.newest_ms is None:
            return ""
        floor = "" if self.floor_ms is None else "/" + _b36(self.floor_ms)
        return ",".join([_b36(self.newest_ms) + floor, *(f"{_b36(o)}:{_b36(t)}" for o, t in self.samples)])

    @classmethod
    def parse(cls, text: str) -> "Coverage":
        """Decode; text that is not ours (another tool set the offset) proves nothing and gives an empty coverage."""
        try:
            first, *pairs = text.split(",")
            newest, _, floor = first.partition("/")
            samples = [(int(o, 36), int(t, 36)) for o, t in (pair.split(":") for pair in pairs)]
            return cls(samples, int(newest, 36), int(floor, 36) if floor else None)
        except ValueError:
            return cls()


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _b36(number: int) -> str:
    if number < 0:
        return "-" + _b36(-number)
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if number == 0:
            return digits
