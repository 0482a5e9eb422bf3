"""What the monitor knows of a model version: its reference histograms and how good it was on its holdout."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.bundle import open_bundle
from models.errors import ModelError
from models.histograms import Histograms
from models.manifest import VERSION
from stream.settings import Settings

__all__ = ["Reference", "References"]

RETRY_SECS: Final = 5.0
#: Names of versions come from records; more unknown ones than this are not remembered.
MOST_UNKNOWN: Final = 1_000


@dataclass(frozen=True, slots=True)
class Reference:
    """histograms: bins and reference counts. metrics: figures on the holdout, by name as in the bundle."""

    histograms: Histograms
    metrics: Mapping[str, float]


class References:
    """Looks for a version's bundle in registry.directory, model.follow, model.cache and model.bundle.

    One that is not found is looked for again, but not more often than every few seconds. clock: monotonic seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._known: dict[str, Reference] = {}
        self._retry_at: dict[str, float] = {}

    def histograms(self, version: str) -> Histograms | None:
        """Return a version's reference histograms, None while they are unknown."""
        found = self._find(version)
        return None if found is None else found.histograms

    def metrics(self, version: str) -> Mapping[str, float] | None:
        """Return a version's figures on its holdout, None while they are unknown."""
        found = self._find(version)
        return None if found is None else found.metrics

    def _find(self, version: str) -> Reference | None:
        known = self._known.get(version)
        if known is not None or self._clock() < self._retry_at.get(version, 0.0):
            return known
        for directory in self._places(version):
            try:
                bundle = open_bundle(directory)
            except (ModelError, OSError):
                continue
            if bundle.version == version:
                self._retry_at.pop(version, None)
                return self._known.setdefault(version, Reference(bundle.histograms, bundle.metrics))
        if len(self._retry_at) >= MOST_UNKNOWN:
            self._retry_at.clear()
        self._retry_at[version] = self._clock() + RETRY_SECS
        return None

    def _places(self, version: str) -> Iterator[Path]:
        model = self._settings.model
        if VERSION.fullmatch(version):  # else it could name any directory
            for registry in (self._settings.registry.directory, model.follow, model.cache):
                if registry and Path(registry, version).is_dir():
                    yield Path(registry, version)
        if Path(model.bundle).is_dir():
            yield Path(model.bundle)
