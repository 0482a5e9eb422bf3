"""What can go wrong in the stream, and what a caller can do about each.

FraudstreamError                 the command ends with exit code 1 and this sentence
├── UsageError                   the command line or a file it names is wrong: exit code 2
│   └── SettingsError            a setting is unknown, of the wrong type, or out of range
├── StartupError                 the surroundings do not fit (topic, rights, bundle): mend them, start again
├── RegistryError                the model registry or its directory cannot be used: mend it, try again
│   └── PromotionRefused         a gate failed: the version is not fit, or its bound is wrong for this use
├── LabelIndexError              the monitor's index of decisions cannot be used: mend the disk, start again
├── RecoveryError                state and log do not fit together: the operator chooses how to go on
│   └── StateAhead               stored users hold what was never committed: seen only when they are loaded
└── DeliveryError
    ├── BatchAborted             nothing of this batch was written: recover from the committed offset
    ├── BrokerSilent             the broker does not answer: give everything back and join again
    ├── ProducerFenced           another process writes under our name: rejoin once, then give way
    └── ConsumerFenced           another process reads under our name, or so it seems: join anew once, then give way
"""

from dataclasses import dataclass, field

__all__ = [
    "BatchAborted",
    "BrokerSilent",
    "ConsumerFenced",
    "DeliveryError",
    "FraudstreamError",
    "LabelIndexError",
    "Oversized",
    "ProducerFenced",
    "PromotionRefused",
    "RecoveryError",
    "RegistryError",
    "SettingsError",
    "StartupError",
    "StateAhead",
    "UsageError",
]


class FraudstreamError(Exception):
    """One sentence for a person; never shown with a traceback."""

    exit_code = 1


class UsageError(FraudstreamError):
    """The user's command or file must change."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting must change; the sentence names its key and where it was read."""


class StartupError(FraudstreamError):
    """Refused at start: something around the process must be mended first."""


class RegistryError(FraudstreamError):
    """The model registry does not answer, or its directory cannot be read or written."""


class PromotionRefused(RegistryError):
    """A version failed a gate, or could not be held to one; nothing was changed but the record of it."""


class LabelIndexError(FraudstreamError):
    """The index of decisions cannot be read or written; whatever it lacks is read again from the log."""


class RecoveryError(FraudstreamError):
    """State and log do not fit together; `store.recovery` or --recovery says how to go on."""


class StateAhead(RecoveryError):
    """A stored user of a partition holds the event at `offset`, which was not committed when the partition was planned.

    Either another worker has it by now and went on, or state and log do not fit together.
    """

    def __init__(self, partition: int, offset: int, sentence: str) -> None:
        super().__init__(sentence)
        self.partition = partition
        self.offset = offset


class DeliveryError(FraudstreamError):
    """Output could not be written or committed."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """One output the broker found too large, named by the record it came from.

    kind is "decision", "dead_letter" or "features"; partition and offset are the source record's.
    """

    kind: str
    partition: int
    offset: int


@dataclass
class BatchAborted(DeliveryError):
    """Nothing of the batch counts; drop memory, go back to the committed offset."""

    reason: str
    oversized: list[Oversized] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the sentence."""
        return self.reason


class BrokerSilent(DeliveryError):
    """What recovery needs to know cannot be had from the broker now."""


class ProducerFenced(DeliveryError):
    """Our transactional id was taken over, or the producer is beyond repair."""


class ConsumerFenced(DeliveryError):
    """The group holds another member under our instance id: a twin, or an attempt of ours whose answer was lost."""
