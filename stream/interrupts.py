"""A Ctrl-C that reaches a client's C code stays a Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["keeping_interrupts"]


class _Noting:
    """Python's own handler of SIGINT, which remembers that one came."""

    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.default_int_handler(number, frame)


@contextmanager
def keeping_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt where one was lost; for the main thread, which is the one that is interrupted.

    The Kafka client drops an exception that a signal's handler raises while it serves its callbacks, and returns as if
    there were one: Python then says SystemError. Only Python's own handler is replaced, and put back afterwards.
    """
    former = handler = signal.getsignal(signal.SIGINT)
    if former is signal.default_int_handler:
        handler = _Noting()
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    except SystemError as error:
        if isinstance(handler, _Noting) and handler.came:
            raise KeyboardInterrupt from error
        raise
    finally:
        if handler is not former and signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, former)
