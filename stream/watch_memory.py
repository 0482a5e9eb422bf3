"""How far back the log can matter to the watch, from the settings alone; imports nothing that takes time."""

from typing import Final

from stream.watch_clock import JUMP_MS
from stream.watch_sections import DriftSettings, MonitorSettings

__all__ = ["ADVERSARIAL_PERSISTENCE", "comparing_ms", "memory_ms"]

# The classifier is asked seldom, so two agreeing answers are what a handful of comparisons is elsewhere.
ADVERSARIAL_PERSISTENCE: Final = 2


def memory_ms(drift: DriftSettings, monitor: MonitorSettings) -> int:
    """Return how far back the log can matter; `monitor.read_back` must be longer.

    The epoch under way and the rhythm before it that its ranks are taken in, or the longer rhythm; the window before
    the first comparison that counts, the comparisons that must agree, and room for clocks.
    """
    back = max(drift.epoch + drift.rhythm, drift.longer_rhythm)
    return back + 2 * drift.window + comparing_ms(drift) + monitor.grace + 2 * JUMP_MS


def comparing_ms(drift: DriftSettings) -> int:
    """Return how long before it may raise anything a watch begins to compare."""
    return max(
        drift.window + 2 * drift.persistence * drift.every, (ADVERSARIAL_PERSISTENCE + 1) * drift.adversarial_every
    )
