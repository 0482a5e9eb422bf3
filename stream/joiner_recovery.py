"""Where the joiner goes on, decided from facts alone.

C is the committed offset, W the index's watermark, S and E the log's first and next offset, for each partition of
`decisions` and `labels`.

      S                W                     C                    E
      |--- gone or ----|---- replayed -------|---- joined --------|
           not needed     without output

By itself: a partition that nobody read yet begins at S; an index that is missing, or was made of other topics, another
retention or sample rate, is read again from [S, C) without output. That loses nothing that is not lost anyway: there is
no other source than the log, and it keeps decisions for longer than their labels may take. A committed offset that has
expired is known where W = E, as it lies between them.

Every other order has a name, and the operator's choice (`labels.recovery`) decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stream.errors import RecoveryError

__all__ = ["Choice", "Facts", "Plan", "plan"]

Choice = Literal["refuse", "rebuild", "accept_partial"]
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Facts:
    """What broker and index say of one partition; offsets are of records, None where there is none."""

    topic: str
    partition: int
    log_start: int
    log_end: int
    committed: int | None
    watermark: int | None

    @property
    def name(self) -> str:
        """The partition as operators write it."""
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class Plan:
    """Replay [replay_from, live_from) without output, then join."""

    replay_from: int
    live_from: int
    reason: str


def plan(facts: Sequence[Facts], choice: Choice) -> tuple[bool, Mapping[Place, Plan]]:
    """Return whether the index is to be emptied first, and what to do with each partition.

    Raises RecoveryError, which names what does not fit and the choices.
    """
    forgotten = _forgotten(facts)
    misfits = [sentence for one in facts if (sentence := _misfit(one, one in forgotten))]
    if misfits and choice == "refuse":
        raise RecoveryError(misfits[0])
    begin = choice == "rebuild" and bool(misfits)
    if begin:
        facts, forgotten = [replace(one, watermark=None) for one in facts], set()
    return begin, {(one.topic, one.partition): _plan(one, one in forgotten, choice) for one in facts}


def _forgotten(facts: Sequence[Facts]) -> set[Facts]:
    """Return the partitions that were joined once, but neither broker nor index tell how far.

    All partitions of a topic are committed together. One that is not, beside others that are, is new only if the index
    knows the others.
    """
    committed = {one.topic for one in facts if one.committed is not None}
    indexed = {one.topic for one in facts if one.watermark is not None}
    return {
        one
        for one in facts
        if one.committed is None and one.topic in committed - indexed and one.log_start < one.log_end
    }


def _misfit(facts: Facts, forgotten: bool) -> str:
    """Return the sentence about what does not fit, "" where all does."""
    start, end, committed, watermark = facts.log_start, facts.log_end, facts.committed, facts.watermark
    again = "rebuild to join the log's labels from its start (all are written again)"
    if forgotten:
        return (
            f"The joiner's committed offset of {facts.name} has expired, those of other partitions have not, and the "
            f"label index is gone: choose labels.recovery = accept_partial to take its records up to {end} for joined "
            f"(a label among them that was not is never written), or {again}."
        )
    if committed is None:
        if watermark is None or watermark == end:
            return ""
        return (
            f"The joiner's committed offset of {facts.name} has expired while its index stands at {watermark}: choose "
            f"labels.recovery = accept_partial to go on there (labels joined since it was stored are written again), "
            f"or {again}."
        )
    if committed > end:
        return (
            f"The joiner's committed offset {committed} of {facts.name} lies past the log's end {end}, so this is "
            f"another log than the one that was joined: choose labels.recovery = accept_partial to go on at its end, "
            f"{again}, or stop and restore the topic."
        )
    if committed < start:
        return (
            f"Records {committed} to {start - 1} of {facts.name} were deleted before they were joined: choose "
            f"labels.recovery = accept_partial to go on without them at {start}, or rebuild to read the index again "
            f"from what the log still has, or stop and restore the topic."
        )
    if watermark is not None and watermark > committed:
        return (
            f"The label index stands at {watermark} of {facts.name}, ahead of the committed offset {committed}, so the "
            f"group's offsets were set back: choose labels.recovery = rebuild to read the index again up to "
            f"{committed} (labels after it are written again), or stop and restore the offsets."
        )
    if watermark is not None and watermark < start:
        return (
            f"The log of {facts.name} begins at {start}, after the label index at {watermark}, so the records between "
            f"are missing from it: choose labels.recovery = accept_partial to go on with the gap, rebuild to read the "
            f"index again from what the log still has, or stop and restore the log."
        )
    return ""


def _plan(facts: Facts, forgotten: bool, choice: Choice) -> Plan:
    start, end, committed, watermark = facts.log_start, facts.log_end, facts.committed, facts.watermark
    if forgotten:
        return Plan(start, end, "taken for joined")
    if committed is None:
        at = start if watermark is None else min(max(watermark, start), end)
        return Plan(at, at, "first start" if watermark is None else "offset expired")
    if committed > end:
        at = end if choice == "accept_partial" else start
        return Plan(at, at, "another log")
    if committed < start:
        return Plan(start, start, "records deleted unread")
    if watermark is None:
        return Plan(start, committed, "read again from the log")
    if watermark > committed:
        raise RecoveryError(_misfit(facts, forgotten))
    return Plan(max(watermark, start), committed, "the index's watermark")
