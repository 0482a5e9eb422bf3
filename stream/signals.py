"""What SIGTERM and SIGINT do to a process that has something to finish."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["stop_on_signals"]

log = logging.getLogger("fraudstream")


def stop_on_signals(stop: Callable[[], object], deadline_secs: float) -> None:
    """Call stop() at the first SIGTERM or SIGINT; end the process at the second, or once the deadline has passed.

    A thread does what a signal asks: a handler runs amid anything, even a log line, whose locks it would need.
    """
    told, tell = os.pipe()

    def wake(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        os.write(tell, bytes([number]))

    def leave() -> None:
        (number,) = os.read(told, 1)
        log.info("asked to stop", extra={"event": "stopping", "signal": signal.Signals(number).name})
        stop()
        threading.Event().wait(deadline_secs)
        _give_up(deadline_secs)

    threading.Thread(target=leave, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, wake)


def _give_up(deadline_secs: float) -> None:
    """End a stop that a silent broker or store holds up: nothing uncommitted counts, and the next start recovers."""
    log.critical("not stopped within %.0f s, so ended at once", deadline_secs, extra={"event": "overdue"})
    logging.shutdown()
    os._exit(1)
