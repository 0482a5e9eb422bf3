"""Whether one topic can be copied into another without losing or changing a record."""

from stream.errors import StartupError
from stream.quantity import Duration
from stream.topic_check import TopicState

__all__ = ["check_copy", "retention_warning"]


def check_copy(source: TopicState, target: TopicState, dead_letters: TopicState) -> None:
    """Raise StartupError where the copy cannot be made, or would not be one."""
    for state, needed in ((source, "READ"), (target, "WRITE"), (dead_letters, "WRITE")):
        if state.absent == "missing":
            raise StartupError(f"The topic {state.name} does not exist: create it, or correct its name.")
        if state.absent == "denied" or (state.allowed is not None and needed not in state.allowed):
            raise StartupError(
                f"This user may not {needed.lower()} the topic {state.name}: grant it {needed.title()} and Describe."
            )
    config = target.config or {}
    if config.get("message.timestamp.type") == "LogAppendTime":
        raise StartupError(
            f"The topic {target.name} stamps records anew as they arrive, so events dated too far ahead could no "
            f"longer be told: set its message.timestamp.type to CreateTime."
        )
    if "compact" in config.get("cleanup.policy", ""):
        raise StartupError(
            f"The topic {target.name} is compacted, which deletes all but a user's last transaction: set its "
            f"cleanup.policy to delete."
        )
    needed_bytes = source.number("max.message.bytes", 0)
    if target.number("max.message.bytes", needed_bytes) < needed_bytes:
        raise StartupError(
            f"The topic {target.name} takes smaller records than {source.name}: set its max.message.bytes to "
            f"{needed_bytes}."
        )


def retention_warning(source: TopicState, target: TopicState) -> str:
    """Return one sentence where the target deletes earlier than the source, else nothing."""
    kept_ms, source_ms = target.number("retention.ms", -1), source.number("retention.ms", -1)
    if kept_ms < 0 or 0 <= source_ms <= kept_ms:
        return ""
    return (
        f"The topic {target.name} keeps records for {Duration(kept_ms)}, less than {source.name} does, and copies "
        f"bear their original timestamps: those older than that are deleted again soon."
    )
