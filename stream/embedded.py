"""The trial broker: librdkafka's in-process mock cluster, which other clients and processes can connect to.

It keeps 5 MB or 100,000 messages a partition in memory and answers no admin request, makes a topic when it is first
asked for (always with 4 partitions), stores no offsets sent in a transaction and shows read_committed readers
everything. It can show how things work; only a real broker can show that nothing is lost or doubled.
"""

from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException, Producer

from stream.errors import StartupError, UsageError
from stream.settings import Settings

__all__ = ["EMBEDDED_PARTITIONS", "EmbeddedBroker", "check_embedded"]

#: How many partitions every topic of the mock cluster has; librdkafka has no setting for it.
EMBEDDED_PARTITIONS: Final = 4

START_TIMEOUT_SECS: Final = 10.0


class EmbeddedBroker:
    """A broker inside this process, from entering the context until leaving it."""

    def __init__(self) -> None:
        self._host: Producer | None = None
        self.bootstrap = ""

    def __enter__(self) -> Self:
        # Log level 3: the mock tells of every topic it makes.
        self._host = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 3})
        try:
            brokers = self._host.list_topics(timeout=START_TIMEOUT_SECS).brokers
        except KafkaException as error:
            raise StartupError(f"The embedded broker did not start: {error.args[0].str()}.") from error
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # The cluster lives exactly as long as the client that hosts it.
        self._host = None

    def create_topics(self, names: list[str]) -> None:
        """Make topics of 4 partitions each by asking for them, once the context is entered."""
        assert self._host is not None, "enter the context first"
        for name in names:
            error = self._host.list_topics(name, timeout=START_TIMEOUT_SECS).topics[name].error
            if error is not None:
                raise StartupError(f"The embedded broker could not make the topic {name}: {error.str()}.")


def check_embedded(settings: Settings) -> None:
    """Raise UsageError where the embedded broker is asked for what it cannot do.

    It works with at_least_once and the memory store, and nothing else.
    """
    if not settings.embedded:
        return
    if settings.kafka.delivery != "at_least_once":
        raise UsageError(
            "The embedded broker stores no transactional offsets and does not honour read_committed, so it cannot "
            'deliver exactly once: set kafka.delivery = "at_least_once", or kafka.bootstrap_servers to a real broker.'
        )
    if settings.store.kind != "memory":
        raise UsageError(
            "The embedded broker forgets its topics with the process, keeps 100,000 messages a partition and has no "
            'cluster or topic id to keep state under: set store.kind = "memory", or kafka.bootstrap_servers to a real '
            "broker."
        )
