"""Where a partition goes on, decided from facts alone.

C is the committed offset (from the broker, always), W the store's watermark, S and E the log's first and next offset.

      S                W                     C                    E
      |--- gone or ----|---- replayed -------|---- decided -------|
           not needed     without output

Going on as if nothing were missing is only right while S <= W <= C <= E. Every other order has a name, and the
operator's choice (`store.recovery`) decides: "refuse" stops with that name, "rebuild" forgets the stored state and
replays what the log still has, "accept_partial" goes on from here with what is there.
"""

from dataclasses import dataclass
from typing import Literal

from stream.errors import RecoveryError

__all__ = ["Choice", "Facts", "Plan", "Start", "plan"]

Choice = Literal["refuse", "rebuild", "accept_partial"]
Start = Literal["earliest", "latest"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What broker and store say of one partition; offsets are of records, None where there is none.

    covered_from: an offset recorded with the commit such that everything before it is older, in event time, than the
    retention before the newest event: replaying from it rebuilds every window that can still be asked for.
    stale: nobody wrote the watermark for so long that users it vouches for may have expired in the store.
    begins_now: the state was kept under other settings, and the operator chose not to warm a new one from the log.
    """

    topic: str
    partition: int
    log_start: int
    log_end: int
    committed: int | None
    watermark: int | None
    covered_from: int | None = None
    stale: bool = False
    begins_now: bool = False

    @property
    def name(self) -> str:
        """The partition as operators write it."""
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class Plan:
    """Replay [replay_from, live_from) without output, then decide.

    begin: forget what the store holds of this partition first. commit: commit live_from before anything else.
    decided_ahead: stored users may hold events at or after live_from; those were decided and committed before the
    offset expired, so they are not decided again.
    """

    replay_from: int
    live_from: int
    begin: bool
    commit: bool
    reason: str
    decided_ahead: bool = False


def plan(facts: Facts, start: Start, choice: Choice) -> Plan:
    """Decide; RecoveryError names what does not fit and the choices.

    Step 1: without a committed offset this is a first start, or the offset expired.
    Step 2: a committed offset outside the log means another log, or records deleted unread.
    Step 3: an empty store is rebuilt from the log.
    Step 4: a watermark outside [S, C], or a stale one, means the state cannot be trusted or completed.
    Step 5: replay the gap.
    """
    if facts.committed is None:
        return _without_offset(facts, start, choice)
    if facts.committed > facts.log_end:
        return _past_end(facts, start, choice)
    if facts.committed < facts.log_start:
        return _deleted_unread(facts, choice)
    if facts.watermark is None:
        return _rebuild(facts, facts.committed, choice)
    if facts.watermark > facts.committed:
        return _ahead(facts, facts.committed, choice)
    if facts.stale:
        return _rebuild(facts, facts.committed, choice)
    if facts.watermark < facts.log_start:
        return _gap(facts, facts.watermark, facts.committed, choice)
    return Plan(facts.watermark, facts.committed, begin=False, commit=False, reason="checkpoint")


def _without_offset(facts: Facts, start: Start, choice: Choice) -> Plan:
    if facts.watermark is None:
        at = facts.log_start if start == "earliest" else facts.log_end
        return Plan(at, at, begin=True, commit=True, reason=f"first start at the {start} offset")
    if choice == "refuse":
        raise RecoveryError(
            f"The committed offset of {facts.name} has expired while a checkpoint at {facts.watermark} exists: choose "
            f"store.recovery = accept_partial to go on at the checkpoint (its last interval is decided again) or "
            f"rebuild to begin anew at the {start} offset."
        )
    if choice == "accept_partial" and facts.log_start <= facts.watermark <= facts.log_end:
        return Plan(
            facts.watermark, facts.watermark, begin=False, commit=True, reason="offset expired", decided_ahead=True
        )
    at = facts.log_start if start == "earliest" else facts.log_end
    return Plan(at, at, begin=True, commit=True, reason="offset expired, begun anew")


def _past_end(facts: Facts, start: Start, choice: Choice) -> Plan:
    if choice == "refuse":
        raise RecoveryError(
            f"The committed offset {facts.committed} of {facts.name} lies past the log's end {facts.log_end}, so this "
            f"is another log than the one that was scored: choose store.recovery = rebuild to score it from its "
            f"{start} offset, accept_partial to go on at its end, or stop and restore the topic."
        )
    at = facts.log_end if choice == "accept_partial" or start == "latest" else facts.log_start
    return Plan(at, at, begin=True, commit=True, reason="another log, begun anew")


def _deleted_unread(facts: Facts, choice: Choice) -> Plan:
    if choice == "refuse":
        raise RecoveryError(
            f"Records {facts.committed} to {facts.log_start - 1} of {facts.name} were deleted before they were scored: "
            f"choose store.recovery = accept_partial to go on with the stored users at {facts.log_start}, or rebuild "
            f"to forget them and begin there."
        )
    keep = choice == "accept_partial" and facts.watermark is not None
    return Plan(facts.log_start, facts.log_start, begin=not keep, commit=True, reason="records deleted unread")


def _rebuild(facts: Facts, committed: int, choice: Choice) -> Plan:
    if facts.begins_now:
        return Plan(committed, committed, begin=True, commit=False, reason="history begins now")
    if facts.covered_from is not None and facts.log_start <= facts.covered_from <= committed:
        return Plan(facts.covered_from, committed, begin=True, commit=False, reason="rebuilt from a covered offset")
    if facts.log_start == 0 or choice == "rebuild":
        return Plan(facts.log_start, committed, begin=True, commit=False, reason="rebuilt from the log's start")
    if choice == "accept_partial" and facts.watermark is not None:
        return _gap(facts, facts.watermark, committed, choice)
    if choice == "accept_partial":
        return Plan(committed, committed, begin=True, commit=False, reason="history accepted as partial")
    if facts.watermark is not None:
        raise RecoveryError(
            f"The checkpoint of {facts.name} at {facts.watermark} was not renewed for so long that the store may have "
            f"let users expire, and the log begins at {facts.log_start}, which is not proven to cover the retention: "
            f"choose store.recovery = rebuild to replay what the log still has, or accept_partial to go on with the "
            f"users that are stored."
        )
    raise RecoveryError(
        f"The store holds nothing of {facts.name} and its log begins at {facts.log_start}, which is not proven to "
        f"cover the retention: choose store.recovery = rebuild to replay what the log still has, accept_partial to "
        f"start every user's history here, or stop and restore the store."
    )


def _ahead(facts: Facts, committed: int, choice: Choice) -> Plan:
    if choice == "rebuild":
        return _rebuild(
            Facts(facts.topic, facts.partition, facts.log_start, facts.log_end, committed, None), committed, choice
        )
    raise RecoveryError(
        f"The stored state of {facts.name} stands at {facts.watermark}, ahead of the committed offset {committed}, so "
        f"the group's offsets were set back: choose store.recovery = rebuild to replay the log up to {committed}, use "
        f"another kafka.group, or stop and restore the offsets."
    )


def _gap(facts: Facts, watermark: int, committed: int, choice: Choice) -> Plan:
    if choice == "rebuild":
        return Plan(facts.log_start, committed, begin=True, commit=False, reason="rebuilt from the log's start")
    if choice == "accept_partial":
        at = max(watermark, facts.log_start)
        return Plan(at, committed, begin=False, commit=False, reason="gap accepted")
    raise RecoveryError(
        f"The log of {facts.name} begins at {facts.log_start}, after the checkpoint at {watermark}, so the records "
        f"between are missing from the windows: choose store.recovery = rebuild to replay what the log still has, "
        f"accept_partial to go on with the gap, or stop and restore the log."
    )
