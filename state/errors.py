"""What can go wrong with kept state, and what a caller can do about each.

::

    StateError
    ├── FeatureSetError     a feature set cannot be read, or needs what the state does not keep
    ├── DamagedRecord       a stored user cannot be read
    ├── StoreUnavailable    the store does not answer now
    ├── StoreRolledBack     the store is not in the state it was last left in
    └── StoreMismatch       the store must not be used as it is

Every message is one sentence that says what happened and, where a person can mend it, what to change.
"""

__all__ = [
    "DamagedRecord",
    "FeatureSetError",
    "StateError",
    "StoreMismatch",
    "StoreRolledBack",
    "StoreUnavailable",
]


class StateError(Exception):
    """The root of this tree: catch it to catch every error of kept state."""


class FeatureSetError(StateError):
    """A feature set cannot be read, or needs fields, windows or retention that the state does not keep.

    The caller shows the sentence to the user: nothing was started. Retrying the same feature set cannot help.
    """


class DamagedRecord(StateError):
    """A stored record failed its magic, version or checksum, or is not ours at all.

    Nothing was loaded from it. The caller stops and shows the key: a damaged record is never read as an empty window.
    A person deletes nothing by hand but rebuilds the partition from the log.
    """

    def __init__(self, key: str, what: str) -> None:
        """Name the record's ``key`` as the store spells it, and say ``what`` is wrong with it (a clause)."""
        super().__init__(f"the stored record {key} {what}; rebuild its partition from the log")
        self.key = key
        self.what = what

    def __reduce__(self) -> tuple[type["DamagedRecord"], tuple[str, str]]:
        """Pickle by both arguments: the default would call the constructor with the message alone."""
        return (DamagedRecord, (self.key, self.what))


class StoreUnavailable(StateError):
    """The store does not answer now: no connection, a timeout, a full disk, a lock held by somebody else.

    The call may or may not have taken effect. Every call of a store may be repeated, so the caller retries later,
    keeps its place in the group meanwhile, and loses nothing.
    """


class StoreRolledBack(StateError):
    """The watermark found is not the one last written: the store was wiped, put back, or begun anew by another.

    What was loaded since cannot be trusted. The caller drops the partition's memory, reads the watermark again and
    recovers from the log.
    """


class StoreMismatch(StateError):
    """The store refuses to be used as it is: eviction policy, version, another program's file, another topic.

    The caller stops at start and shows the sentence, which says what to change. Retrying cannot help.
    """
