"""Which committed offsets no telemetry covers: what a worker that was killed never told.

    covered     [0 ────── 500)      [620 ─────── 900)          of one partition, from the ranges of all records
    gap                   [500, 620)                           seen when its interval closed; counts once it outlasts
                                                               the grace, for whoever had the partition may write late

A record that comes late fills its gap. Gaps are remembered for as long as an alert about them lasts; those older are
settled, and so is everything before them. Where a partition's offsets go back below that (the topic was made anew, or
offsets were reset on purpose), its coverage begins anew.
"""

from dataclasses import dataclass, field

from stream.telemetry_record import partition_number

__all__ = ["Coverage", "Gap"]

# More of them at once than any incident leaves; beyond it the oldest are settled early.
MAX_GAPS = 1_000


@dataclass(slots=True)
class Gap:
    """Offsets [first, next) that nothing covers; since_ms: end of the interval in which that was seen."""

    first: int
    next: int
    since_ms: int


@dataclass(slots=True)
class _Partition:
    """start: where coverage begins, known since start_ms; next: where it ends; gaps: between, ascending."""

    start: int
    next: int
    start_ms: int
    gaps: list[Gap] = field(default_factory=list)
    settled: int = 0


class Coverage:
    """Of every input partition. grace_ms: how long a gap may wait to be filled. kept_ms: how long it is remembered."""

    def __init__(self, grace_ms: int, kept_ms: int) -> None:
        self._grace_ms, self._kept_ms = grace_ms, kept_ms
        self._partitions: dict[int, _Partition] = {}

    def cover(self, offsets: dict[str, list[tuple[int, int]]], at_ms: int, *, late: bool = False) -> int:
        """Take a record's ranges, seen in the interval that ends at at_ms; return how many entries are no ranges.

        late: the record's interval was closed already, so its offsets may lie behind and are no sign of a reset.
        """
        wrong = 0
        for name, ranges in offsets.items():
            number = partition_number(name)
            if number is None:
                wrong += 1
                continue
            for first, following in ranges:
                if first > following:
                    wrong += 1
                elif first < following:
                    self._cover(number, first, following, at_ms, late=late)
        return wrong

    def settle(self, now_ms: int) -> None:
        """Forget gaps older than they are remembered."""
        for partition in self._partitions.values():
            gaps = partition.gaps
            old = 0
            while old < len(gaps) and (gaps[old].since_ms <= now_ms - self._kept_ms or len(gaps) - old > MAX_GAPS):
                old += 1
            if old:
                partition.start, partition.start_ms = gaps[old - 1].next, now_ms
                partition.settled += sum(gap.next - gap.first for gap in gaps[:old])
                del gaps[:old]

    def gaps(self, now_ms: int) -> dict[int, list[Gap]]:
        """Return, by partition, the remembered gaps that outlasted the grace; every known partition has an entry."""
        return {
            number: [gap for gap in partition.gaps if gap.since_ms <= now_ms - self._grace_ms]
            for number, partition in sorted(self._partitions.items())
        }

    def next_offsets(self) -> dict[int, int]:
        """Return where each partition's coverage ends."""
        return {number: partition.next for number, partition in sorted(self._partitions.items())}

    def totals(self, now_ms: int) -> dict[int, int]:
        """Return offsets uncovered since the beginning, by partition: settled ones and those that outlasted grace."""
        return {
            number: self._partitions[number].settled + sum(gap.next - gap.first for gap in gaps)
            for number, gaps in self.gaps(now_ms).items()
        }

    def _cover(self, number: int, first: int, following: int, at_ms: int, *, late: bool) -> None:
        partition = self._partitions.get(number)
        if partition is None:
            self._partitions[number] = _Partition(first, following, at_ms)
            return
        if following <= partition.start:
            if late:
                return
            if at_ms > partition.start_ms + self._grace_ms:
                self._partitions[number] = _Partition(first, following, at_ms, settled=partition.settled)
                return
        if first < partition.start:
            # Two workers within one interval, and the second of them comes first.
            if following < partition.start:
                partition.gaps.insert(0, Gap(following, partition.start, at_ms))
            partition.start = first
        if first > partition.next:
            partition.gaps.append(Gap(partition.next, first, at_ms))
        elif partition.gaps:
            partition.gaps = [left for gap in partition.gaps for left in _without(gap, first, following)]
        partition.next = max(partition.next, following)


def _without(gap: Gap, first: int, following: int) -> list[Gap]:
    """Return what is left of a gap once [first, following) is covered."""
    if following <= gap.first or gap.next <= first:
        return [gap]
    before, after = Gap(gap.first, first, gap.since_ms), Gap(following, gap.next, gap.since_ms)
    return [left for left in (before, after) if left.first < left.next]
