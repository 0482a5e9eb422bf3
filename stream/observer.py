"""What the worker tells whoever watches it. Every hook is a no-op here: the loop knows neither Prometheus nor logs.

Hooks may be called from the loop, the committing thread or the checkpoint thread; an observer guards its own state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.histograms import Histograms

__all__ = ["BatchReport", "Observer", "Observers", "Scored", "ScoredBy", "ScoredRows"]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredBy:
    """One version of a model on one engine, the same object as long as it scores.

    histograms: how features and scores were distributed in training, None without a model. reference: their hash.
    """

    model: str
    engine: str
    feature_set: str
    feature_names: tuple[str, ...]
    histograms: Histograms | None = None
    reference: str = ""


class ScoredRows(Protocol):
    """The transactions of a batch."""

    def __len__(self) -> int:
        """Return how many there are."""

    @property
    def segments(self) -> list[str]:
        """What decisions are told apart by, a text a row."""

    @property
    def time_ms(self) -> npt.NDArray[np.int64]:
        """Event times, epoch milliseconds, int64[n]."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The rows of a batch as they were scored; what the line worked with itself, never copies.

    features: float32[n, k]; scores: float32[n]; outcomes: uint8[n], indices into outcome_names; rows: the
    transactions in the order of the matrix.
    """

    by: ScoredBy
    features: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    outcomes: npt.NDArray[np.uint8]
    outcome_names: Sequence[str]
    rows: ScoredRows


@dataclass(slots=True)
class BatchReport:
    """One batch as it left the line.

    latency_ms: float64[n], from the record's broker timestamp to the decision's scored_at.
    stage_secs: seconds spent per stage (consume, decode, windows, score, decide, encode, produce).
    dead_letters and outcomes count by error class and by outcome.
    first_dead: the first dead letter of each error class, as (partition, offset, field at fault).
    noted: the decisions that were not approvals, as encoded. offsets: partition -> next offset to consume, which is
    committed with the batch; empty where all of it was replayed. scored: None where no row was scored.
    """

    events: int = 0
    replayed: int = 0
    latency_ms: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    stage_secs: dict[str, float] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    first_dead: dict[str, tuple[int, int | None, str]] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)
    noted: list[bytes] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)
    scored: Scored | None = None


class Observer:
    """Does nothing; subclass and override what you watch."""

    def started(self, *, model: str, engine: str, feature_set: str, state: str) -> None:
        """Tell which model, engine, feature set and state hash the worker runs with."""

    def turned(self) -> None:
        """The loop has gone round once more, with or without records."""

    def assigned(self, partitions: list[int]) -> None:
        """Tell which partitions were handed to this worker."""

    def revoked(self, partitions: list[int], *, lost: bool) -> None:
        """Tell which partitions this worker gives up."""

    def recovering(self, partition: int, *, replay_from: int, live_from: int, reason: str) -> None:
        """Tell that the records in [replay_from, live_from) will be replayed without output."""

    def live(self, partition: int) -> None:
        """Tell that the partition has caught up with its committed offset and is decided again."""

    def batch(self, report: BatchReport) -> None:
        """Tell what one batch held and where its time went."""

    def decision(self, value: bytes) -> None:
        """Show one reviewed or declined decision as encoded."""

    def produced(self) -> None:
        """All output of a batch is in the producer's queue."""

    def offsets_sent(self) -> None:
        """The batch's offsets are part of its transaction."""

    def committing(self) -> None:
        """The commit is about to be asked for."""

    def committed(self, secs: float) -> None:
        """The batch and its offsets are durable."""

    def aborted(self, reason: str) -> None:
        """The batch in flight was given up."""

    def acknowledged(self, offsets: dict[int, int]) -> None:
        """Tell the loop's thread what `committed` told: the batch last told of is durable, with these next offsets."""

    def position(self, partition: int, *, committed: int, lag: int) -> None:
        """Tell a partition's committed offset, and how many offsets lie between it and the log's end as last seen."""

    def loaded(self, users: int, secs: float) -> None:
        """Users were read from the store."""

    def users_written(self) -> None:
        """Users of a checkpoint are stored; the watermark is not yet."""

    def checkpointed(self, partition: int, *, users: int, watermark: int, secs: float) -> None:
        """A slice of a checkpoint is stored and its watermark written."""

    def store_failed(self, sentence: str) -> None:
        """The store could not be reached; the breaker opens."""

    def breaker(self, *, is_open: bool) -> None:
        """The circuit breaker around the store changed."""

    def evicted(self, users: int) -> None:
        """Idle users left memory."""

    def memory(self, partition: int, *, users: int, size_bytes: int, events: int, unwritten: int) -> None:
        """Tell what a partition holds in memory."""

    def paused(self, partitions: list[int], reason: str) -> None:
        """Intake of these partitions waits."""

    def resumed(self, partitions: list[int]) -> None:
        """Intake of these partitions goes on."""

    def preparing(self, version: str) -> None:
        """Another version was promoted and is being opened, beside the loop."""

    def prepared(self, version: str, secs: float) -> None:
        """It is ready, so many seconds after it was seen, and waits for the end of a batch."""

    def swapped(self, *, model: str, engine: str, feature_set: str, former: str, approved_by: str) -> None:
        """The next batch is scored with another model than `former`."""

    def swap_refused(self, version: str, running: str, sentence: str) -> None:
        """A promoted version cannot be used, and the one that is running stays."""

    def window_kernel(self, *, feature_set: str, failure: str) -> None:
        """Tell why windows of this feature set run on the general kernel since a swap; empty with one of their own."""

    def followed(self, *, failure: str, is_current: bool) -> None:
        """Tell why the registry cannot be read, empty where it can, and whether it names the model that scores."""

    def telemetry_written(self) -> None:
        """The broker has a record of telemetry."""

    def telemetry_dropped(self, reason: str) -> None:
        """A record of telemetry is lost: decisions do not wait for it."""

    def stopped(self) -> None:
        """The worker has left its group."""


class Observers(Observer):
    """Passes every hook on to several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers


def _fan_out(name: str) -> object:
    def call(self: Observers, *args: object, **kwargs: Mapping[str, object]) -> None:
        for observer in self._observers:
            getattr(observer, name)(*args, **kwargs)

    call.__name__ = name
    call.__doc__ = getattr(Observer, name).__doc__
    return call


for _name in [n for n in vars(Observer) if not n.startswith("_")]:
    setattr(Observers, _name, _fan_out(_name))
