"""The labelled decisions that one model's figures rest on, in arrays that grow and are swept.

Kept are the newest `most` that were counted, in the order in which they were, and of these the ones counted less than
a window ago and not taken back since. What is kept thus depends on what was counted after a row, never on what came
before it, so reading the log from any earlier point on ends with the same rows.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.quality_figures import Labelled

FIRST: Final = 1_024
#: Room beyond what is kept, so that sweeping, which copies everything, is rare.
SLACK: Final = 8

ROW: Final = np.dtype(
    [
        ("id", "u8"),
        ("user", "u8"),
        ("counted_at", "i8"),
        ("number", "i8"),
        ("score", "f4"),
        ("segment", "u4"),
        ("weight", "f8"),
        ("outcome", "u1"),
        ("fraud", "?"),
        ("gone", "?"),
    ]
)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision and its label. id, user: hashes. outcome: as in models.policy."""

    id: int
    user: int
    segment: str
    score: float
    outcome: int
    weight: float
    fraud: bool


class Rows:
    """Rows of one model. window_ms, most: as in the module's docstring."""

    def __init__(self, window_ms: int, most: int) -> None:
        self._window_ms, self._most = window_ms, most
        self._rows = np.empty(FIRST, ROW)
        self._used = 0
        self._number = 0
        self._segments: dict[str, int] = {}
        self._names: list[str] = []

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays."""
        return self._rows.nbytes

    def add(self, row: Decided, counted_at_ms: int, now_ms: int) -> None:
        """Count a decision; counted_at_ms: when, by label and delay; now_ms: the stream's clock."""
        if self._used == len(self._rows):
            self._sweep(now_ms)
        segment = self._segments.get(row.segment)
        if segment is None:
            segment = self._segments[row.segment] = len(self._names)
            self._names.append(row.segment)
        self._rows[self._used] = (
            *(row.id, row.user, counted_at_ms, self._number, row.score, segment),
            *(row.weight, row.outcome, row.fraud, False),
        )
        self._used += 1
        self._number += 1

    def take_back(self, identity: int) -> bool:
        """Count a decision no longer, because its label was contradicted; return whether it was counted."""
        rows = self._rows[: self._used]
        found = np.flatnonzero((rows["id"] == np.uint64(identity)) & ~rows["gone"])
        rows["gone"][found] = True
        return bool(len(found))

    def now(self, now_ms: int) -> tuple[Labelled, list[str]]:
        """Return what counts at this time, and the segments' names by number."""
        rows = self._rows[: self._used][self._kept(now_ms)]
        return (
            Labelled(
                scores=rows["score"].astype(np.float64),
                frauds=rows["fraud"].copy(),
                outcomes=rows["outcome"].copy(),
                weights=rows["weight"].copy(),
                users=rows["user"].copy(),
                segments=rows["segment"].astype(np.int64),
            ),
            self._names,
        )

    def next_expiry_ms(self, now_ms: int) -> int | None:
        """Return when the next row will have been counted a window ago."""
        rows = self._rows[: self._used][self._kept(now_ms)]
        return int(rows["counted_at"].min()) + self._window_ms if len(rows) else None

    def _kept(self, now_ms: int) -> npt.NDArray[np.bool_]:
        rows = self._rows[: self._used]
        fresh = (rows["counted_at"] > now_ms - self._window_ms) & (rows["number"] >= self._number - self._most)
        kept: npt.NDArray[np.bool_] = fresh & ~rows["gone"]
        return kept

    def _sweep(self, now_ms: int) -> None:
        """Drop what is kept no longer, and make room where that does not."""
        rows = self._rows[: self._used][self._kept(now_ms)]
        room = max(FIRST, len(rows) * 2 if len(rows) < self._most // 2 else len(rows) + self._most // SLACK)
        fresh = np.empty(room, ROW)
        fresh[: len(rows)] = rows
        self._rows, self._used = fresh, len(rows)
        used, codes = np.unique(rows["segment"], return_inverse=True)
        fresh["segment"][: len(rows)] = codes
        self._names = [self._names[number] for number in used.tolist()]
        self._segments = {name: number for number, name in enumerate(self._names)}
