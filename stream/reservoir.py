"""A uniform sample of a stream whose length nobody knows beforehand."""

import math
import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["Reservoir"]

T = TypeVar("T")

NEARLY_ONE: Final = 1.0 - 2.0**-53


class Reservoir(Generic[T]):
    """Keeps `size` of the items seen, each set of them equally likely; the same ones for the same seed.

    Algorithm L (Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", ACM TOMS 1994): how many
    items to skip is drawn, so a batch costs something only where one of its rows is kept.
    """

    def __init__(self, size: int, seed: str) -> None:
        self._size = size
        self._random = random.Random(seed)
        self._kept: list[tuple[int, T]] = []
        self._seen = 0
        self._next = 0
        self._weight = 1.0

    def add(self, count: int, item: Callable[[int], T]) -> None:
        """See so many more; item(i) gives the i-th of them, and is called for those that are kept."""
        first, self._seen = self._seen, self._seen + count
        if not self._size:
            return
        while self._next < self._seen:
            entry = (self._next, item(self._next - first))
            if len(self._kept) < self._size:
                self._kept.append(entry)
            else:
                self._kept[self._random.randrange(self._size)] = entry
            self._advance()

    @property
    def items(self) -> list[T]:
        """What is kept, in the order in which it was seen."""
        return [item for _, item in sorted(self._kept, key=lambda entry: entry[0])]

    def _advance(self) -> None:
        """Find the next item to keep: the one that follows until there are enough, then one a random gap away."""
        self._next += 1
        if len(self._kept) < self._size:
            return
        self._weight = min(self._weight * math.exp(math.log(self._draw()) / self._size), NEARLY_ONE)
        self._next += math.floor(math.log(self._draw()) / math.log1p(-self._weight))

    def _draw(self) -> float:
        return 1.0 - self._random.random()  # above 0
