"""A circuit breaker around the store: after a failure nobody asks again until a back-off with jitter has passed."""

import random
from collections.abc import Callable

from stream.observer import Observer

__all__ = ["Breaker"]

FIRST_SECS = 0.2  # long enough for a fail-over to finish, short enough not to be felt as an outage
LONGEST_SECS = 5.0  # an operator who mends the store sees the worker go on within this


class Breaker:
    """Closed (ask away), open (wait), half open (one try decides).

    `clock` gives monotonic seconds; the observer is told of failures and changes; `rng` spreads many workers' tries.
    """

    def __init__(self, clock: Callable[[], float], observer: Observer, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._observer = observer
        self._rng = rng or random.Random()
        self._failures = 0
        self._again_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the last word from the store was a failure."""
        return self._failures > 0

    def allows(self) -> bool:
        """Whether a call may be tried now."""
        return self._failures == 0 or self._clock() >= self._again_at

    def failed(self, sentence: str) -> None:
        """Wait twice as long as last time, and up to half as much again at random."""
        self._observer.store_failed(sentence)
        if self._failures == 0:
            self._observer.breaker(is_open=True)
        wait = min(LONGEST_SECS, FIRST_SECS * 2**self._failures)
        self._failures += 1
        self._again_at = self._clock() + wait * (1 + self._rng.random() / 2)

    def succeeded(self) -> None:
        """Close."""
        if self._failures:
            self._observer.breaker(is_open=False)
        self._failures = 0
