"""Takes up what was promoted, while the worker scores.

    in a thread of its own                          in the loop, between two batches
    Step 1  look where the registry points
    Step 2  open the bundle, checksums compared
    Step 3  feature set against the state
    Step 4  engine and reasons, loaded and warmed
    Step 5  engine compared with the other one
            windows' kernel for another set
            compiled in a process beside this
                                          ──────▶   Step 6  new windows, where the feature set is another
                                                    Step 7  the line goes on with the new model
    Step 8  keep the bundle for the next start

Whatever fails in Steps 1 to 5 leaves the worker with the model it has. The model before stays in memory, so a rollback
is a swap without Steps 2 to 5.
"""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from models.errors import ModelError
from state.errors import StateError
from state.windows import Windows
from stream.errors import FraudstreamError
from stream.line import Line, Scorer
from stream.model_cache import ModelCache
from stream.observer import Observer
from stream.sources import Pointer, PointerError, Source, SourceError

__all__ = ["Model", "Swapper"]

log = logging.getLogger("fraudstream")

RETRY_SECS: Final = 300.0  # a refused version is tried again ever more seldom, at most this far apart
RENEW_SECS: Final = 1.0  # between attempts to begin with new windows while the store does not take part
#: How long Python lets a thread compute on while another waits. Loading computes for a second or so, and the loop asks
#: to go on a dozen times a batch: at the usual 5 ms each time, decisions would come ten times as late.
SWITCH_SECS: Final = 0.0002

EXPECTED: Final = (FraudstreamError, ModelError, StateError, OSError)


@dataclass(frozen=True)
class Model:
    """One version, ready to score.

    make_windows: empty ones of its feature set. no_kernel: why they run on the general kernel; empty with their own.
    """

    pointer: Pointer
    name: str
    engine: str
    feature_set: str
    scorer: Scorer
    make_windows: Callable[[], Windows]
    no_kernel: str = ""


class Swapper:
    """Follows a source. load: Steps 2 to 5, called in this object's thread alone. clock: monotonic seconds."""

    def __init__(
        self,
        source: Source,
        load: Callable[[Pointer], Model],
        running: Model,
        cache: ModelCache,
        observer: Observer,
        *,
        poll_secs: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._load = load
        self._cache = cache
        self._observer = observer
        self._poll_secs = poll_secs
        self._clock = clock
        self._lock = threading.Lock()  # around the three models
        self._running = running
        self._former: Model | None = None
        self._ready: Model | None = None
        self._renew_at = 0.0
        self._kept: Pointer | None = None
        self._cannot_keep = False
        self._refused: Pointer | None = None
        self._refusal = ""
        self._retry_at, self._pause_secs = 0.0, 0.0
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Follow from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer; a model that is being loaded is left to itself."""
        self._stopping = True
        self._wake.set()

    def swap(self, line: Line, renew: Callable[[Callable[[], Windows]], bool]) -> None:
        """Steps 6 and 7, in the loop's thread; see `stream.worker.Swaps`."""
        ready, former = self._ready, self._running
        if ready is None:
            return
        # Step 6
        if ready.feature_set != former.feature_set:
            if self._clock() < self._renew_at:
                return
            if not renew(ready.make_windows):
                self._renew_at = self._clock() + RENEW_SECS
                return
        # Step 7
        line.use(ready.scorer)
        with self._lock:
            self._running, self._former = ready, former
            if self._ready is ready:
                self._ready = None
        self._observer.swapped(
            model=ready.name,
            engine=ready.engine,
            feature_set=ready.feature_set,
            former=former.name,
            approved_by=ready.pointer.approved_by,
        )
        self._observer.window_kernel(feature_set=ready.feature_set, failure=ready.no_kernel)
        self._wake.set()

    def poll(self) -> None:
        """Steps 8 and 1, then 2 to 5 where another version is named."""
        self._keep()
        try:
            pointer = self._source.current()
        except PointerError as error:
            self._observer.followed(failure="", is_current=False)
            self._refuse(None, str(error))
            return
        except SourceError as error:
            self._observer.followed(failure=str(error), is_current=False)
            return
        is_other = pointer is not None and self._is_other(pointer)
        self._observer.followed(failure="", is_current=pointer in (None, self._running.pointer))
        if pointer is not None and is_other:
            with _beside_the_loop():
                self._prepare(pointer)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.poll()
            except Exception:
                log.exception("the registry could not be followed; trying again")
            self._wake.wait(self._poll_secs)
            self._wake.clear()

    def _is_other(self, pointer: Pointer) -> bool:
        """Whether there is something to do about this pointer."""
        with self._lock:
            if _same(pointer, self._running.pointer):
                self._ready = None  # named and taken back before the loop took it up
                self._running = _named_by(pointer, self._running)
                self._refused, self._refusal = None, ""
                return False
            if self._ready is not None and _same(pointer, self._ready.pointer):
                return False
        return pointer != self._refused or self._clock() >= self._retry_at

    def _prepare(self, pointer: Pointer) -> None:
        started = self._clock()
        self._observer.preparing(pointer.version)
        former = self._former
        try:
            if former is not None and _same(pointer, former.pointer):
                model = _named_by(pointer, former)
            else:
                model = self._load(pointer)
        except EXPECTED as error:
            self._refuse(pointer, str(error))
            return
        except Exception as error:
            log.exception("version %s could not be loaded", pointer.version)
            self._refuse(pointer, f"Version {pointer.version} cannot be loaded ({type(error).__name__}): see the log.")
            return
        with self._lock:
            self._ready = model
        self._refused, self._refusal = None, ""
        self._observer.prepared(pointer.version, self._clock() - started)

    def _refuse(self, pointer: Pointer | None, sentence: str) -> None:
        """Keep the model there is; say so once, and try the same again later."""
        with self._lock:
            self._ready = None  # the registry names it no longer
        if (pointer, sentence) == (self._refused, self._refusal):
            self._pause_secs = min(RETRY_SECS, 2 * self._pause_secs)
        else:
            self._refused, self._refusal, self._pause_secs = pointer, sentence, self._poll_secs
            self._observer.swap_refused(pointer.version if pointer else "", self._running.name, sentence)
        self._retry_at = self._clock() + self._pause_secs

    def _keep(self) -> None:
        """Step 8; a cache that cannot be written is worth a word, not a model."""
        running = self._running.pointer
        if running == self._kept:
            return
        try:
            with _beside_the_loop():
                self._cache.keep(running, self._source.open(running))
        except EXPECTED as error:
            if not self._cannot_keep:
                log.warning("the model cannot be kept for a start without the registry: %s", error)
            self._cannot_keep = True
        else:
            self._kept, self._cannot_keep = running, False


def _same(one: Pointer, other: Pointer) -> bool:
    """Whether both mean the same content, whoever approved it and when."""
    return (one.version, one.manifest_sha256) == (other.version, other.manifest_sha256)


def _named_by(pointer: Pointer, model: Model) -> Model:
    return replace(model, pointer=pointer)


@contextmanager
def _beside_the_loop() -> Iterator[None]:
    """Let other threads go on soon while this one computes.

    Nor is cyclic garbage looked for: a model being read is some hundred thousand objects, none of them in a cycle, and
    each search through all of them would stop every thread for tens of milliseconds.
    """
    usual, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(min(usual, SWITCH_SECS))
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
        if collecting:
            gc.enable()
