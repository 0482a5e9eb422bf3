"""What the joiner tells whoever watches it. Every hook is a no-op here: the joiner knows neither Prometheus nor logs.

All hooks are called from the joiner's own thread; an observer that others read guards its own state.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["OUTCOMES", "JoinerObserver"]

#: What can become of a label, with what it means. One that waits is counted again once its wait is over.
OUTCOMES = {
    "joined": "the first label of a decision: written to labelled",
    "contradicting": "says otherwise than the label before it: written, with `former`",
    "repeated": "says what is known already: not written",
    "unmatched": "no decision of this user and transaction is known yet: it waits",
    "expired": "further from the payment than labels.retention, or its decision never came",
    "unsampled": "waited in vain, and labels.sample_rate would have left its decision out, had it been an approval",
}


class JoinerObserver:
    """Does nothing; subclass and override what you watch. Nothing is told of records that are only replayed."""

    def rebuilding(self, topic: str, partition: int, *, replay_from: int, live_from: int, reason: str) -> None:
        """Tell that the records in [replay_from, live_from) are read into the index without output."""

    def live(self) -> None:
        """The index has caught up with the committed offsets; from here on labels are written."""

    def indexed(self, decisions: int) -> None:
        """So many decisions went into the index."""

    def repeated(self, decisions: int) -> None:
        """So many decisions were of transactions that the index knew, or bore the worker's flag `duplicate`."""

    def joined(self, outcome: str, count: int) -> None:
        """So many labels came to this outcome, one of OUTCOMES."""

    def labelled(self, frauds: int, honest: int) -> None:
        """So many records were written to `labelled`."""

    def set_aside(self, topic: str, reason: str, count: int) -> None:
        """So many records of the topic are no decision, or no label; reason: a class of stream.deadletter.ERRORS."""

    def delay(self, delays_ms: npt.NDArray[np.int64]) -> None:
        """Tell how long after their payments labels came, int64[n]; those of the records written."""

    def lag(self, topic: str, records: int) -> None:
        """Tell how many offsets lie between what is joined and the topic's end as last seen."""

    def index(self, decisions: int, size_bytes: int, pending: int) -> None:
        """Tell how many decisions the index holds, what it takes on disk, and how many labels wait."""

    def last_label(self, label_time_ms: int, seen_at_ms: int) -> None:
        """Tell the newest label_time of a batch, and when it was read, both in epoch milliseconds."""

    def dropped(self, decisions: int) -> None:
        """So many decisions are past the retention and left the index."""

    def produced(self) -> None:
        """All output of a batch is in the producer's queue, and the index holds the batch, not stored yet."""

    def committing(self) -> None:
        """The commit is about to be asked for."""

    def committed(self, records: int) -> None:
        """The output of so many records and their offsets are durable; the index may not be."""

    def storing(self) -> None:
        """The index is about to be stored."""

    def stored(self) -> None:
        """The index is stored up to what is committed."""

    def aborted(self, reason: str) -> None:
        """A batch was given up; the joiner goes back to what is committed."""
