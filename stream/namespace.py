"""Whether kept state belongs to this topic as it is now: the same topic, as many partitions, the same state hash."""

from collections.abc import Sequence

from state.store import Namespace, Store
from stream.errors import RecoveryError
from stream.recovery import Choice

__all__ = ["begins_now", "check_namespace"]


def check_namespace(store: Store, own: Namespace, registered: Sequence[Namespace], choice: Choice) -> None:
    """Refuse state that does not fit, unless the operator chose how to go on.

    Raises RecoveryError naming what changed and the choices.
    """
    same = [n for n in registered if n.digest == own.digest]
    if same:
        _check_partitions(store, own, same[0], choice)
        return
    if choice != "refuse" or not registered:
        return  # a namespace of its own: what the log still has is replayed into it, or nothing
    if all(n.topic_id != own.topic_id for n in registered):
        raise RecoveryError(
            f"The topic {own.topic} was deleted and created again since its state was begun: choose store.recovery = "
            f"rebuild to begin anew with what the new topic holds, or use another kafka.group."
        )
    raise RecoveryError(
        f"The state of {own.topic} was kept under other settings (state.fields, state.retention, state.max_events or "
        f"codec changed): choose store.recovery = rebuild to warm a new state from the log before deciding goes on, "
        f"accept_partial to begin every user's history now, or put the settings back."
    )


def begins_now(own: Namespace, registered: Sequence[Namespace], choice: Choice) -> bool:
    """Whether users' histories begin now: the state was kept under other settings, and the log is not to warm it."""
    others = any(n.topic_id == own.topic_id and n.state_hash != own.state_hash for n in registered)
    return others and choice == "accept_partial"


def _check_partitions(store: Store, own: Namespace, kept: Namespace, choice: Choice) -> None:
    if kept.partitions == own.partitions:
        return
    if choice == "accept_partial":
        store.register()
        return
    raise RecoveryError(
        f"The topic {own.topic} has {own.partitions} partitions, but its state was built with {kept.partitions}, so "
        f"some users' histories lie in another partition: copy the topic into a new one with `fraudstream rekey` and "
        f"score that, or choose store.recovery = accept_partial for a cold start of the users that moved."
    )
