"""Joins labels with the decisions they are about."""

from collections.abc import Callable

from stream.joiner_observer import JoinerObserver
from stream.settings import Settings

__all__ = ["Joiner"]


class Joiner:
    """One joiner; at most one of a monitor.group is active. bootstrap: where the broker listens if not as settings say.

    Blocks: it belongs into a thread of its own.
    """

    def __init__(
        self, settings: Settings, observer: JoinerObserver | None = None, bootstrap: str | None = None
    ) -> None:
        self._settings, self._observer, self._bootstrap = settings, observer or JoinerObserver(), bootstrap

    def run(self, stop: Callable[[], bool]) -> None:
        """Join until stop() says so, which is asked several times a second. Raises FraudstreamError."""
        raise NotImplementedError
