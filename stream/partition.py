"""One partition as a worker holds it: its windows in memory, its place in the log, and what is not stored yet."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from state.carry import Former
from state.store import Watermark
from state.windows import Snapshot, Windows
from stream.coverage import Coverage
from stream.observer import Observer

__all__ = ["Partition", "Phase", "Unwritten"]


class Phase(Enum):
    """WAITING: paused until broker and store have said where to begin. REPLAYING: [W, C) without output. LIVE."""

    WAITING = "waiting"
    REPLAYING = "replaying"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Unwritten:
    """A copied slice and the watermark it allows, as of the moment it was copied."""

    snapshot: Snapshot
    target: int


@dataclass(eq=False)
class Partition:
    """The state of one assigned partition; owned by the loop's thread.

    position: the next offset to process. committed: the next offset as acknowledged by the broker.
    live_from: records below it are replayed without output. held_back: records consumed but not processed, because
    they need users the store could not give yet; the partition is paused meanwhile. coverage: see stream.coverage.
    commit_first: where the partition begins is still to be committed. paused: intake waits for the store.
    unwritten: a slice handed to the checkpoint thread and not acknowledged. former: the windows of the feature set
    before, from which users come over as they appear.
    """

    number: int
    windows: Windows
    phase: Phase = Phase.WAITING
    position: int = 0
    committed: int = 0
    live_from: int = 0
    decided_ahead: bool = False
    watermark: Watermark | None = None
    coverage: Coverage = field(default_factory=Coverage)
    commit_first: bool = False
    paused: bool = False
    held_back: list[Any] = field(default_factory=list)
    unwritten: Unwritten | None = None
    former: Former | None = None

    def begin_anew(self, windows: Windows) -> None:
        """Drop what is in memory."""
        self.windows, self.former, self.unwritten = windows, None, None

    def renew(self, windows: Windows) -> None:
        """Go on with windows of another feature set; everything must be stored."""
        self.former, self.windows = Former(self.windows), windows
        windows.floor_new_users(self.coverage.floor_ms)

    def carry_over(self, users: list[bytes]) -> list[bytes]:
        """Bring users over from the windows before; return those who are not there."""
        if self.former is None:
            return users
        records = self.former.take(users)
        here = [(user, record) for user, record in zip(users, records, strict=True) if record is not None]
        self.windows.add([user for user, _ in here], [record for _, record in here])
        if not self.former.left:
            self.former = None
        return [user for user, record in zip(users, records, strict=True) if record is None]

    def has_passed(self, record: Any) -> bool:
        """Whether the record is processed already: it was fetched before a seek."""
        return bool(record.offset() < self.position)

    def advance(self, next_offset: int, observer: Observer) -> None:
        """Note that everything below next_offset is processed; go live once the replay has reached C.

        Offsets have gaps (transaction markers, aborted records), so next_offset is the consumer's position, never an
        offset compared with a record's.
        """
        self.position = max(self.position, next_offset)
        if self.phase is Phase.REPLAYING and self.position >= self.live_from:
            self.phase = Phase.LIVE
            observer.live(self.number)

    @property
    def size_bytes(self) -> int:
        """Memory that users' windows take."""
        return self.windows.bytes + (self.former.size_bytes if self.former else 0)

    @property
    def waits(self) -> bool:
        """Whether intake is stopped for this partition's own sake: the store is not available."""
        return self.paused or self.phase is Phase.WAITING

    @property
    def behind(self) -> bool:
        """Whether the store does not yet vouch for everything processed."""
        return self.watermark is None or self.watermark.offset < self.position or self.windows.changed_users > 0
