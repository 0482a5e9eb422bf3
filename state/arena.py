"""The memory that users' blocks live in: one anonymous mapping, reserved large, touched only as far as it is used."""

import mmap

import numpy as np

from state.kernel_layout import Memory

RESERVE_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
HUGE_PAGE_BYTES = 1 << 21


class Arena:
    """A mapping seen as words, halves and quarters. Pages cost memory from their first use until `give_back`."""

    def __init__(self, reserve_bytes: int) -> None:
        self._map(-(-max(reserve_bytes, HUGE_PAGE_BYTES) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES)

    def grow(self, used_words: int) -> None:
        """Map twice as much and copy what is used; the old mapping goes."""
        old = self.memory.words
        self._map(2 * old.nbytes)
        self.memory.words[:used_words] = old[:used_words]

    def give_back(self, used_words: int) -> None:
        """Return the pages behind what is used to the system."""
        start = -(-8 * used_words // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        length = self.memory.words.nbytes - start
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED, start, length)

    def _map(self, size: int) -> None:
        self._mapping = mmap.mmap(-1, size, flags=RESERVE_FLAGS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._mapping.madvise(mmap.MADV_HUGEPAGE)  # an event touches many lines; far fewer page walks
        self.memory = Memory(
            np.frombuffer(self._mapping, np.int64),
            np.frombuffer(self._mapping, np.int32),
            np.frombuffer(self._mapping, np.uint16),
        )
