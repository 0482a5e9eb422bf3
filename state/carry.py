"""Users carried over from one feature set's windows to another's, each when it next appears.

Derived numbers cannot be carried over, events can: a user's record holds these and nothing else, and is all that is
needed to go on. Taking every user over at once would stop the stream for as long as that takes; taking each one when
its next event comes costs what a read from the store would, without the store.
"""

from collections.abc import Sequence

import numpy as np

from state.windows import Windows

__all__ = ["Former"]


class Former:
    """Windows that observe nothing any more. All their users must be in the store as they are here."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._left = windows.users
        self._taken = np.zeros(windows.slots, np.bool_)

    @property
    def left(self) -> int:
        """Users not taken over yet."""
        return self._left

    @property
    def size_bytes(self) -> int:
        """Memory held until this is dropped."""
        return self._windows.bytes

    def take(self, users: Sequence[bytes]) -> list[bytes | None]:
        """Return each user's record, None where it is not here or was taken: from then on it lives elsewhere.

        `users` names each once.
        """
        slots = self._windows.find(users)
        here = (slots >= 0) & ~self._taken[slots]
        found = slots[here]
        self._taken[found] = True
        self._left -= len(found)
        records = iter(self._windows.records(found))
        return [next(records) if one else None for one in here.tolist()]
