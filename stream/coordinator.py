"""Asking the coordinator of a consumer group, which is only just starting, or moving, when its broker came up."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

__all__ = ["patiently"]

RETRY_SECS: Final = 0.1

_MOVES: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)

Answer = TypeVar("Answer")


def patiently(ask: Callable[[], Answer], secs: float, pause: Callable[[float], object] = time.sleep) -> Answer:
    """Return the answer, asking again for so long as there is no coordinator to give one.

    pause waits so many seconds between two tries. Raises KafkaException for what else is wrong, or when time is over.
    """
    deadline = time.monotonic() + secs
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _MOVES or time.monotonic() > deadline:
                raise
        pause(RETRY_SECS)
