"""Whether the topics are as the monitor needs them."""

from collections.abc import Iterator, Mapping

from confluent_kafka.admin import AdminClient

from stream.clients import admin_config
from stream.errors import StartupError
from stream.quantity import Duration
from stream.settings import Settings
from stream.topic_check import TopicState
from stream.topics import describe_topics

__all__ = ["check_topics", "kept_too_short"]


def check_topics(settings: Settings, bootstrap: str | None) -> list[str]:
    """Return a sentence for each topic that keeps its records for too short a time.

    Raises StartupError where a topic is missing, or one that is read in one order has several partitions.
    """
    roles = ("telemetry", "labelled", "alerts", "labels", "decisions", "dead_letters")
    names = {role: getattr(settings.topics, role) for role in roles}
    described = describe_topics(AdminClient(admin_config(settings, bootstrap=bootstrap)), names.values())
    for role, name in names.items():
        if described[name].absent:
            raise StartupError(
                f"The topic {name} (topics.{role}) does not exist, or this user may not describe it: create it "
                f"with `fraudstream topics create`."
            )
        if role in ("telemetry", "labelled", "alerts") and described[name].partitions != 1:
            raise StartupError(
                f"The topic {name} (topics.{role}) has {described[name].partitions} partitions and must have one, "
                f"for its records are read in one order: create it anew."
            )
    return list(kept_too_short(settings, {role: described[name] for role, name in names.items()}))


def kept_too_short(settings: Settings, states: Mapping[str, TopicState]) -> Iterator[str]:
    """Yield what a restart would lack. states: of the topics by role; those whose settings are hidden are passed over.

    `topics create` gives each what it needs, but leaves alone what is there, and settings may ask for more later.
    """
    quality = Duration(settings.quality.window + settings.quality.delay)
    index = (settings.labels.retention, "labels.retention", "a lost label index could not be read again whole")
    needed = {
        "decisions": index,
        "labels": index,
        "labelled": (quality, "quality.window and quality.delay", "quality would rest on fewer labels after a restart"),
        "telemetry": (settings.monitor.read_back, "monitor.read_back", "a restart could not read back what it needs"),
    }
    for role, (least, of, why) in needed.items():
        state = states[role]
        kept_ms = state.number("retention.ms", -1)
        if 0 <= kept_ms < least:
            yield (
                f"The topic {state.name} (topics.{role}) keeps records for {Duration(kept_ms)} and {of} asks for "
                f"{least}, so {why}: set its retention.ms to at least {int(least)}."
            )
