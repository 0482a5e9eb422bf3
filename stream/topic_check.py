"""What must be true of the topics, judged from how the broker describes them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from stream.clients import MAX_MESSAGE_BYTES
from stream.quantity import Duration

__all__ = ["HEADER_ROOM_BYTES", "Finding", "TopicRole", "TopicState", "check_telemetry", "check_topics"]

TopicRole = Literal["transactions", "decisions", "features", "dead_letters"]

#: How much larger a dead letter may be than the record it holds: its headers.
HEADER_ROOM_BYTES: Final = 64 << 10

_NEEDED: Final[dict[TopicRole, str]] = {
    "transactions": "READ",
    "decisions": "WRITE",
    "features": "WRITE",
    "dead_letters": "WRITE",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a topic, as one sentence that says how to mend it.

    fatal: starting would fail or write wrong results; otherwise it is worth knowing.
    """

    code: str
    topic: str
    sentence: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker describes it.

    absent: "" where it is there, else "missing" or "denied". allowed: operations this client may do on it, None where
    the broker does not say. config: its settings by name, None where this client may not see them.
    """

    name: str
    absent: Literal["", "missing", "denied"] = ""
    topic_id: str = ""
    partitions: int = 0
    replicas: int = 1
    allowed: frozenset[str] | None = None
    config: Mapping[str, str] | None = field(default=None)

    def number(self, setting: str, default: int) -> int:
        """Return a numeric setting, or the default where settings are hidden."""
        return default if self.config is None else int(self.config.get(setting, default))


def check_topics(states: Mapping[TopicRole, TopicState], retention_ms: int) -> list[Finding]:
    """Return everything wrong with the topics, fatal findings first.

    retention_ms: how long state keeps a user's events (state.retention).
    """
    found = [finding for role, state in states.items() for finding in _access(role, state)]
    there = {role: state for role, state in states.items() if not state.absent}
    if "transactions" in there:
        found += _against_source(there, there["transactions"])
        found += _source(there["transactions"], retention_ms)
    for role, state in there.items():
        found += _durability(state)
        if role == "decisions":
            found += _compacted_decisions(state)
    return sorted(found, key=lambda finding: not finding.fatal)


def check_telemetry(state: TopicState) -> list[Finding]:
    """Return what is wrong with the telemetry's topic; none of it keeps a worker from deciding."""
    if state.absent == "missing":
        sentence = (
            f"The topic {state.name} (topics.telemetry) does not exist, so the monitor hears nothing of this worker: "
            f"create it with `fraudstream topics create`, or set telemetry.enabled to false."
        )
        return [_worth("missing_topic", state, sentence)]
    if state.absent == "denied" or (state.allowed is not None and "WRITE" not in state.allowed):
        sentence = (
            f"This user may not write the topic {state.name} (topics.telemetry), so the monitor hears nothing of this "
            f"worker: grant it Write and Describe there."
        )
        return [_worth("no_rights", state, sentence)]
    if state.partitions != 1:
        sentence = (
            f"The topic {state.name} (topics.telemetry) has {state.partitions} partitions, so a monitor that starts "
            f"anew may read it in another order: create it anew with 1."
        )
        return [_worth("partition_mismatch", state, sentence)]
    return []


def _access(role: TopicRole, state: TopicState) -> Iterator[Finding]:
    if state.absent == "missing":
        yield _fatal(
            "missing_topic",
            state,
            f"The topic {state.name} (topics.{role}) does not exist: create it with `fraudstream topics create`.",
        )
        return
    needed = _NEEDED[role]
    if state.absent == "denied" or (state.allowed is not None and needed not in state.allowed):
        yield _fatal(
            "no_rights",
            state,
            f"This user may not {needed.lower()} the topic {state.name} (topics.{role}): grant it "
            f"{needed.title()} and Describe there.",
        )
    elif state.config is None:
        yield _worth(
            "settings_hidden",
            state,
            f"The settings of {state.name} cannot be seen and were not checked: grant this user DescribeConfigs there.",
        )


def _against_source(there: Mapping[TopicRole, TopicState], source: TopicState) -> Iterator[Finding]:
    """A decision and a feature record go to their transaction's partition number; a dead letter holds all of it."""
    for role in ("decisions", "features"):
        state = there.get(role)
        if state is None or state.partitions == source.partitions:
            continue
        few = state.partitions < source.partitions
        sentence = (
            f"The topic {state.name} has {state.partitions} partitions and {source.name} has {source.partitions}: "
            + (
                f"add partitions to {state.name} until it has as many."
                if few
                else f"readers that join the two by partition will not find all in one; create {state.name} anew."
            )
        )
        yield Finding("partition_mismatch", state.name, sentence, fatal=few)
    dead = there.get("dead_letters")
    if dead is None or dead.config is None or source.config is None:
        return
    needed = min(source.number("max.message.bytes", 0) + HEADER_ROOM_BYTES, MAX_MESSAGE_BYTES)
    if dead.number("max.message.bytes", 0) < needed:
        yield _worth(
            "dead_letter_limit",
            dead,
            f"The topic {dead.name} takes records of {dead.config['max.message.bytes']} bytes, so the largest records "
            f"of {source.name} would lose their value there: set its max.message.bytes to {needed}.",
        )


def _source(state: TopicState, retention_ms: int) -> Iterator[Finding]:
    config = state.config
    if config is None:
        return
    if "compact" in config.get("cleanup.policy", ""):
        yield _fatal(
            "compacted",
            state,
            f"The topic {state.name} is compacted, which deletes all but a user's last transaction: set its "
            f"cleanup.policy to delete.",
        )
    kept_ms, kept_bytes = state.number("retention.ms", -1), state.number("retention.bytes", -1)
    if 0 <= kept_ms < retention_ms:
        yield _worth(
            "short_retention",
            state,
            f"The topic {state.name} keeps records for {Duration(kept_ms)}, windows need {Duration(retention_ms)}, "
            f"so a lost store could not be rebuilt from it: set its retention.ms to at least {retention_ms}.",
        )
    if kept_bytes >= 0:
        yield _worth(
            "short_retention",
            state,
            f"The topic {state.name} keeps {kept_bytes} bytes a partition whatever their age, so a lost store may not "
            f"be rebuilt from it: set its retention.bytes to -1.",
        )


def _compacted_decisions(state: TopicState) -> Iterator[Finding]:
    if state.config is not None and "compact" in state.config.get("cleanup.policy", ""):
        yield _worth(
            "compacted",
            state,
            f"The topic {state.name} is compacted, which leaves only a user's last decision: set its cleanup.policy to "
            f"delete.",
        )


def _durability(state: TopicState) -> Iterator[Finding]:
    if state.config is None:
        return
    in_sync = state.number("min.insync.replicas", 1)
    if in_sync > state.replicas:
        yield _fatal(
            "unwritable",
            state,
            f"The topic {state.name} has {state.replicas} replicas and demands {in_sync} in sync, so nothing can be "
            f"written to it: lower its min.insync.replicas or add replicas.",
        )
    if state.replicas >= 3 and in_sync < 2:
        yield _worth(
            "one_copy_suffices",
            state,
            f"The topic {state.name} acknowledges a record that only one replica has, so that broker's loss loses it: "
            f"set its min.insync.replicas to 2.",
        )
    if state.config.get("unclean.leader.election.enable") == "true":
        yield _worth(
            "unclean_election",
            state,
            f"The topic {state.name} may elect a leader that lacks acknowledged records: set its "
            f"unclean.leader.election.enable to false.",
        )


def _fatal(code: str, state: TopicState, sentence: str) -> Finding:
    return Finding(code, state.name, sentence, fatal=True)


def _worth(code: str, state: TopicState, sentence: str) -> Finding:
    return Finding(code, state.name, sentence, fatal=False)
