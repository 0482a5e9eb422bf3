"""Whether the topics are as the monitor needs them."""

from confluent_kafka.admin import AdminClient

from stream.clients import admin_config
from stream.errors import StartupError
from stream.settings import Settings
from stream.topics import describe_topics

__all__ = ["check_topics"]


def check_topics(settings: Settings, bootstrap: str | None) -> None:
    """Raise StartupError where a topic is missing, or one that is read in one order has several partitions."""
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
