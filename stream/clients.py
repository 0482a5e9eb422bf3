"""What every Kafka client of ours is configured with, from the settings.

Order of precedence: our defaults, then the user's own librdkafka properties, then what exactly-once fixes.
Dictionaries returned here may hold secrets in the clear: hand them to a client and nowhere else.
"""

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from stream.errors import SettingsError
from stream.settings import Settings

__all__ = [
    "MAX_MESSAGE_BYTES",
    "LastingConsumer",
    "admin_config",
    "check_properties",
    "consumer_config",
    "copier_configs",
    "joiner_configs",
    "producer_config",
    "publisher_config",
    "telemetry_config",
    "transactional_id",
]

#: Largest record the producer takes. Above any limit our topics have, so that the topic's own limit is what decides.
MAX_MESSAGE_BYTES: Final = 16 << 20

#: Largest batch of records. The broker judges a batch by its topic's max.message.bytes (1,048,588 unless set), and
#: librdkafka does not split a refused one. Below that limit, only a record that is itself too large can be refused.
BATCH_BYTES: Final = 1_000_000

#: Most records of telemetry that wait for the broker, one an interval.
TELEMETRY_BACKLOG: Final = 120

#: What the client reports of a broker that cannot be reached: a connection refused or lost, requests that timed out, a
#: name that does not resolve. Of several brokers one is enough: it may be the group's coordinator.
_OUT_OF_REACH: Final = frozenset(
    getattr(KafkaError, name) for name in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE")
)

log = logging.getLogger("fraudstream.kafka")


class LastingConsumer:
    """The consumer that make(on_error) returns, and another after renew(): one that was fenced never reads again.

    missed_broker: whether the broker was out of reach since the consumer was last renewed.
    """

    def __init__(self, make: Callable[[Callable[[KafkaError], None]], Consumer]) -> None:
        self._make = make
        self.missed_broker = False
        self._consumer = make(self._error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def renew(self) -> None:
        """Close the consumer, which may still serve its callbacks, and go on with a new one, subscribed to nothing."""
        self._consumer.close()
        self.missed_broker = False
        self._consumer = self._make(self._error)

    def _error(self, error: KafkaError) -> None:
        self.missed_broker |= error.code() in _OUT_OF_REACH
        _log_error(error)


_EVERY_CLIENT: Final[dict[str, Any]] = {
    # A broker that restarts is back within seconds; the default waits up to 10 s before it is tried again.
    "reconnect.backoff.max.ms": 1_000,
    # A commit that meets the markers of the transaction before it is told to try again after this long. The default
    # of 100 ms made the median latency of exactly-once 130 ms where 5 ms makes it 11.
    "retry.backoff.ms": 5,
}

_CONSUMER: Final[dict[str, Any]] = {
    # Some batches ahead of the loop, bounded in bytes; the default of 100,000 records a worker may throw away at every
    # rebalance is more than it needs.
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 65_536,
    # Once the queue is full fetching pauses for this long; the default of 1 s drains the queue at full speed.
    "fetch.queue.backoff.ms": 10,
    # A broker answers one connection's requests in turn: whatever is asked about offsets waits behind an idle fetch.
    "fetch.wait.max.ms": 50,
}

_CONSUMER_FIXED: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # A missing or expired offset is a decision of the operator, never a silent jump.
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    # position() passes transaction markers and aborted records by itself, so replay needs no end-of-partition events;
    # at low rates there would be one beside every batch.
    "enable.partition.eof": False,
    # Eager: between two assignments nothing is held, so the group's generation cannot move on before a revocation has
    # been served, and metadata taken at the assignment fences every commit of its records (stream.assignment).
    "partition.assignment.strategy": "range",
}

_PRODUCER: Final[dict[str, Any]] = {
    # flush() and commit_transaction() do not wait for it; it only lets batches fill while a batch is being queued.
    "linger.ms": 5,
    "batch.num.messages": 10_000,
    "batch.size": BATCH_BYTES,
    "message.max.bytes": MAX_MESSAGE_BYTES,
    # A batch and the next one, with room; what does not fit waits in produce().
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 256 << 10,
    "compression.type": "lz4",
    # When no broker answers, "rebootstrap" takes all of them off the list, and a transaction then waits for ever for a
    # group coordinator it believes in (librdkafka issue 5511). A producer that fails for long is replaced anyway.
    "metadata.recovery.strategy": "none",
    # A decision that cannot be delivered is decided again after a recovery; the default would hold it for 5 minutes.
    "delivery.timeout.ms": 30_000,
}

_PRODUCER_FIXED: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    # Decisions and feature records name their partition; a dead letter goes where its key would in Java.
    "partitioner": "murmur2_random",
}


def consumer_config(
    settings: Settings, *, bootstrap: str | None = None, on_error: Callable[[KafkaError], None] | None = None
) -> dict[str, Any]:
    """Return the configuration of the worker's consumer.

    bootstrap: where the embedded broker listens; without it the settings say. on_error: called from poll() with what
    librdkafka reports besides messages (brokers down, authentication); without it such reports are logged.
    """
    kafka = settings.kafka
    config = {
        **_client(settings, "consumer", _CONSUMER, bootstrap, on_error),
        **_CONSUMER_FIXED,
        "group.id": kafka.group,
        "session.timeout.ms": kafka.session_timeout_ms,
    }
    # Three heartbeats must fit into a session.
    config.setdefault("heartbeat.interval.ms", min(3_000, kafka.session_timeout_ms // 3))
    # How long a rebalance waits for a member, one that is no more included: a broker (Kafka 4.1.1) that restarted twice
    # in a row forgot to expire it, and everybody else stood still. A loop that is silent for so long is stuck anyway.
    config.setdefault("max.poll.interval.ms", max(120_000, kafka.session_timeout_ms))
    if kafka.instance_id:
        config["group.instance.id"] = kafka.instance_id
    return config


def producer_config(
    settings: Settings,
    *,
    transactional: bool,
    batch_bytes: int = BATCH_BYTES,
    bootstrap: str | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
) -> dict[str, Any]:
    """Return the configuration of the worker's producer.

    batch_bytes: the smallest limit of the topics it writes to (Surroundings.batch_bytes); larger batches would be
    refused whole, small records and all.
    """
    config = {**_client(settings, "producer", _PRODUCER, bootstrap, on_error), **_PRODUCER_FIXED}
    config["batch.size"] = min(int(config["batch.size"]), batch_bytes)
    if transactional:
        config["transactional.id"] = transactional_id(settings.kafka.group, settings.kafka.instance_id)
        config["transaction.timeout.ms"] = settings.kafka.transaction_timeout_ms
        # A record may not outlive its transaction.
        config["delivery.timeout.ms"] = min(int(config["delivery.timeout.ms"]), settings.kafka.transaction_timeout_ms)
    return config


def telemetry_config(settings: Settings, *, bootstrap: str | None = None) -> dict[str, Any]:
    """Return the configuration of the producer of telemetry: in order, a bounded backlog, repeats allowed."""
    config = producer_config(settings, transactional=False, bootstrap=bootstrap)
    return {
        **config,
        # Readers know repeats by their number; an idempotent producer could end in an error for good.
        "enable.idempotence": False,
        "max.in.flight.requests.per.connection": 1,
        # A broker that is away costs what was said meanwhile beyond this, never memory.
        "queue.buffering.max.messages": TELEMETRY_BACKLOG,
        "queue.buffering.max.kbytes": 16 << 10,
        # A topic that is not there is known after this long, so that a stop need not wait for it.
        "topic.metadata.propagation.max.ms": 1_000,
    }


def publisher_config(
    settings: Settings, *, batch_bytes: int = BATCH_BYTES, bootstrap: str | None = None
) -> dict[str, Any]:
    """Return the configuration of a producer of transactions: keyed as Java's producer keys, patient, in order."""
    config = producer_config(settings, transactional=False, batch_bytes=batch_bytes, bootstrap=bootstrap)
    # Nothing decides these records again: a broker that is away for some minutes must not cost any of them.
    return {**config, "delivery.timeout.ms": 300_000}


def copier_configs(
    settings: Settings, source: str, target: str, batch_bytes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the consumer's and the producer's configuration for copying one topic into another.

    Both bear the copy's own name, so that it goes on where it stopped, and runs once at a time.
    """
    name = f"{settings.kafka.group}-rekey-{source}-{target}"
    consumer = {**consumer_config(settings), "group.id": name}
    consumer.pop("group.instance.id", None)
    producer = producer_config(settings, transactional=True, batch_bytes=batch_bytes)
    return consumer, {**producer, "transactional.id": name, "delivery.report.only.error": True}


def joiner_configs(
    settings: Settings, batch_bytes: int, *, bootstrap: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration of the joiner's consumer and producer.

    A group of its own, since the monitor's is Faust's, and its transactional id: one joiner of a group is active.
    """
    name = f"{settings.monitor.group}-joiner"
    consumer = {**consumer_config(settings, bootstrap=bootstrap), "group.id": name}
    consumer.pop("group.instance.id", None)
    producer = producer_config(settings, transactional=True, batch_bytes=batch_bytes, bootstrap=bootstrap)
    return consumer, {**producer, "transactional.id": name, "delivery.report.only.error": True}


def admin_config(settings: Settings, *, bootstrap: str | None = None) -> dict[str, Any]:
    """Return the configuration of the admin client."""
    return _client(settings, "admin", {}, bootstrap, None)


def check_properties(settings: Settings) -> None:
    """Refuse librdkafka properties that it does not know, or not with this value; no broker is asked.

    Only making a client tells: each property is tried alone, so that the sentence can name it, then all together.
    Raises SettingsError.
    """
    for table in ("properties", "consumer", "producer"):
        for name, value in getattr(settings.kafka, table).revealed().items():
            refused = _refused("producer" if table == "producer" else "consumer", {name: value})
            # Not made: a property that needs another one beside it, such as a SASL mechanism its password.
            if refused and not refused.startswith("Failed to create"):
                raise SettingsError(
                    f"kafka.{table}.{name} is refused by the Kafka client ({refused}): correct it or leave it out"
                )
    for role in ("consumer", "producer"):
        refused = _refused(role, settings.client_properties(role) | {"bootstrap.servers": ""})
        if refused:
            raise SettingsError(
                f"kafka.properties with kafka.{role} is refused by the Kafka client ({refused}): correct what it names"
            )


def _refused(role: str, config: dict[str, Any]) -> str:
    """Return why no client can be made, "" where one can."""
    quiet = {**config, "group.id": "-", "logger": log, "error_cb": _log_error}
    try:
        if role == "producer":
            Producer(quiet)
        else:
            Consumer(quiet).close()
    except KafkaException as error:
        return str(error.args[0].str()).strip()
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def transactional_id(group: str, instance_id: str) -> str:
    """Return the name a worker's transactions run under; it begins with the group, for prefixed ACLs.

    With an instance id it is the same after a restart, so that the new process ends its predecessor's transaction at
    once. Without one it is new each time, and a transaction left open by a crash ends by its timeout.
    """
    return f"{group}-{instance_id or uuid.uuid4().hex}"


def _client(
    settings: Settings,
    role: str,
    defaults: dict[str, Any],
    bootstrap: str | None,
    on_error: Callable[[KafkaError], None] | None,
) -> dict[str, Any]:
    config = {
        **_EVERY_CLIENT,
        **defaults,
        "client.id": "-".join(filter(None, ["fraudstream", settings.kafka.instance_id])),
        **settings.client_properties(role),
        "logger": log,
        "error_cb": on_error or _log_error,
    }
    if bootstrap is not None:
        config["bootstrap.servers"] = bootstrap
    return config


def _log_error(error: KafkaError) -> None:
    log.warning("kafka client: %s", error.str(), extra={"kafka_error": error.name()})
