"""The topics: described, created with the right settings, and looked at before anything starts."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from stream.clients import BATCH_BYTES, admin_config
from stream.embedded import EMBEDDED_PARTITIONS
from stream.errors import StartupError
from stream.settings import Settings
from stream.topic_check import HEADER_ROOM_BYTES, Finding, TopicRole, TopicState, check_telemetry, check_topics

__all__ = [
    "OUTAGE_MS",
    "Surroundings",
    "TopicPlan",
    "create_topics",
    "describe_cluster",
    "describe_topics",
    "look_around",
    "plan_topics",
    "plan_watch_topics",
    "topic_id",
    "topic_names",
    "watermarks",
]

REQUEST_SECS: Final = 15.0

#: What stands for the ids that the embedded broker cannot tell; its topics end with the process anyway.
EMBEDDED_ID: Final = "embedded"

DEFAULT_MESSAGE_BYTES: Final = 1_048_588  # Kafka's own default of max.message.bytes

# Labels come up to 120 days after a payment, and a model is trained on the features of that time.
FEATURES_RETENTION_MS: Final = 180 * 86_400_000
FEATURES_MESSAGE_BYTES: Final = 4 << 20

# What a report on the last two weeks needs; and a quarter's alerts, for whoever looks back.
TELEMETRY_RETENTION_MS: Final = 14 * 86_400_000
ALERTS_RETENTION_MS: Final = 90 * 86_400_000

# A worker that was away for a week still finds everything its windows need.
OUTAGE_MS: Final = 7 * 86_400_000

# A partition just made, or a broker just back, has a leader by name before it has one in deed.
_LEADER_MOVES: Final = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
RETRY_SECS: Final = 0.05

# The client's public names begin with an underscore where the error is its own and not the broker's.
_NO_ANSWER: Final = (KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)  # noqa: SLF001 (public codes)


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic to be created; settings that are not named are the broker's own."""

    name: str
    partitions: int
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker must know of its broker before it starts.

    partitions: of the input topic. feature_bytes: the largest record the feature log's topic takes. batch_bytes: the
    largest batch every output topic takes. warnings: findings that do not prevent the start.
    """

    cluster_id: str
    topic_id: str
    partitions: int
    feature_bytes: int = DEFAULT_MESSAGE_BYTES
    batch_bytes: int = BATCH_BYTES
    warnings: list[Finding] = field(default_factory=list)


def look_around(settings: Settings, *, bootstrap: str | None = None) -> Surroundings:
    """Ask the broker for everything a start depends on; raises StartupError with the first thing that is wrong.

    bootstrap: where the embedded broker listens; it answers none of these requests.
    """
    if settings.embedded:
        return Surroundings(EMBEDDED_ID, EMBEDDED_ID, EMBEDDED_PARTITIONS)
    admin = AdminClient(admin_config(settings, bootstrap=bootstrap))
    cluster_id = describe_cluster(admin)
    names = topic_names(settings)
    telemetry = [settings.topics.telemetry] if settings.telemetry.enabled else []
    described = describe_topics(admin, [*names.values(), *telemetry])
    states = {role: described[name] for role, name in names.items()}
    findings = check_topics(states, int(settings.state.retention))
    for name in telemetry:
        findings += check_telemetry(described[name])
    if findings and findings[0].fatal:
        raise StartupError(findings[0].sentence)
    limits = {role: state.number("max.message.bytes", DEFAULT_MESSAGE_BYTES) for role, state in states.items()}
    source = states["transactions"]
    return Surroundings(
        cluster_id,
        source.topic_id,
        source.partitions,
        feature_bytes=limits["features"],
        batch_bytes=min(BATCH_BYTES, *(limit for role, limit in limits.items() if role != "transactions")),
        warnings=findings,
    )


def topic_names(settings: Settings) -> dict[TopicRole, str]:
    """Return the topics' names by role, the input first."""
    topics = settings.topics
    return {
        "transactions": topics.transactions,
        "decisions": topics.decisions,
        "features": topics.features,
        "dead_letters": topics.dead_letters,
    }


def plan_topics(
    settings: Settings, partitions: int, *, replicas: int = -1, source_bytes: int = DEFAULT_MESSAGE_BYTES
) -> list[TopicPlan]:
    """Return the topics as they should be, all with the same number of partitions.

    replicas: how many copies they will have, −1 for the broker's own number. source_bytes: the input's largest record.
    """
    shared = {"cleanup.policy": "delete"}
    if replicas >= 3:
        shared["min.insync.replicas"] = "2"
    own: dict[TopicRole, dict[str, str]] = {
        "transactions": {
            "retention.ms": str(settings.state.retention + OUTAGE_MS),
            "max.message.bytes": str(source_bytes),
            # max_ahead compares an event's time with the time its sender gave the record.
            "message.timestamp.type": "CreateTime",
        },
        # A monitor that lost its index reads back every decision whose label may still come.
        "decisions": {"retention.ms": str(settings.labels.retention + OUTAGE_MS)},
        "features": {"retention.ms": str(FEATURES_RETENTION_MS), "max.message.bytes": str(FEATURES_MESSAGE_BYTES)},
        "dead_letters": {"max.message.bytes": str(source_bytes + HEADER_ROOM_BYTES)},
    }
    return [TopicPlan(name, partitions, {**shared, **own[role]}) for role, name in topic_names(settings).items()]


def plan_watch_topics(settings: Settings, partitions: int, *, replicas: int = -1) -> list[TopicPlan]:
    """Return the topics of the monitor as they should be.

    Labels are keyed by user and as many as decisions. What the monitor reads or writes in a fixed order has one
    partition: a few records a second, in the same order for whoever reads them again.
    """
    shared = {"cleanup.policy": "delete"}
    if replicas >= 3:
        shared["min.insync.replicas"] = "2"
    topics, read_back = settings.topics, max(settings.monitor.read_back, TELEMETRY_RETENTION_MS)
    ordered = (
        # The clock of quality is the newest record's and never goes back: the broker's, for the joiner's may jump.
        (topics.labelled, settings.quality.window + settings.quality.delay + OUTAGE_MS, "LogAppendTime"),
        (topics.telemetry, read_back + OUTAGE_MS, "CreateTime"),
        (topics.alerts, ALERTS_RETENTION_MS, "CreateTime"),
    )
    return [
        TopicPlan(topics.labels, partitions, {**shared, "retention.ms": str(FEATURES_RETENTION_MS)}),
        *(
            TopicPlan(name, 1, {**shared, "retention.ms": str(kept), "message.timestamp.type": stamped})
            for name, kept, stamped in ordered
        ),
    ]


def create_topics(admin: AdminClient, plans: Iterable[TopicPlan], *, replicas: int = -1) -> list[str]:
    """Create the topics that do not exist and return their names; those that exist are left as they are.

    Raises StartupError, in one sentence, for the first that could not be created.
    """
    new = [NewTopic(plan.name, plan.partitions, replicas, config=plan.config) for plan in plans]
    created = []
    for name, future in admin.create_topics(new, request_timeout=REQUEST_SECS).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StartupError(f"The topic {name} could not be created: {_clause(error)}.") from error
        else:
            created.append(name)
    return created


def describe_cluster(admin: AdminClient) -> str:
    """Return the cluster's id; raises StartupError where no broker answers."""
    cluster_id: str = _ask(lambda: admin.describe_cluster(request_timeout=REQUEST_SECS).result().cluster_id)
    return cluster_id


def topic_id(admin: AdminClient, topic: str) -> str:
    """Return the topic's id, another one after it was deleted and created again; StartupError where there is none."""
    state = describe_topics(admin, [topic])[topic]
    if state.absent:
        raise StartupError(f"The topic {topic} is {state.absent}: create it, or grant this user Describe on it.")
    return state.topic_id


def describe_topics(admin: AdminClient, names: Iterable[str]) -> dict[str, TopicState]:
    """Return each topic as the broker describes it, those that are missing or denied included."""
    asked = TopicCollection(list(dict.fromkeys(names)))
    futures = _ask(
        lambda: admin.describe_topics(asked, include_authorized_operations=True, request_timeout=REQUEST_SECS)
    )
    described = {name: _describe(name, future) for name, future in futures.items()}
    there = [name for name, found in described.items() if not isinstance(found, TopicState)]
    configs = _configs(admin, there)
    return {
        name: found if isinstance(found, TopicState) else _state(name, found, configs[name])
        for name, found in described.items()
    }


def watermarks(admin: AdminClient, topic: str, partitions: int) -> dict[int, tuple[int, int]]:
    """Return each partition's (log start, high watermark): its first offset, and the one the next record gets.

    Raises StartupError.
    """
    places = [TopicPartition(topic, number) for number in range(partitions)]
    starts = _offsets(admin, places, OffsetSpec.earliest())
    ends = _offsets(admin, places, OffsetSpec.latest())
    return {number: (starts[number], ends[number]) for number in range(partitions)}


def _offsets(admin: AdminClient, places: list[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
    deadline = time.monotonic() + REQUEST_SECS
    while True:
        futures = admin.list_offsets(
            dict.fromkeys(places, spec),
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=REQUEST_SECS,
        )
        try:
            return {place.partition: future.result().offset for place, future in futures.items()}
        except KafkaException as error:
            if error.args[0].code() not in _LEADER_MOVES or time.monotonic() > deadline:
                raise _silent(error) from error
        time.sleep(RETRY_SECS)


def _describe(name: str, future: Any) -> Any:
    """Return the client's description, or a TopicState that says why there is none."""
    try:
        return future.result()
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return TopicState(name, absent="missing")
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return TopicState(name, absent="denied")
        raise _silent(error) from error


def _configs(admin: AdminClient, names: list[str]) -> dict[str, dict[str, str] | None]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str] | None] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=REQUEST_SECS).items():
        try:
            configs[resource.name] = {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise _silent(error) from error
            configs[resource.name] = None
    return configs


def _state(name: str, found: Any, config: dict[str, str] | None) -> TopicState:
    operations = found.authorized_operations
    return TopicState(
        name,
        topic_id=str(found.topic_id),
        partitions=len(found.partitions),
        replicas=min(len(partition.replicas) for partition in found.partitions),
        allowed=None if operations is None else frozenset(operation.name for operation in operations),
        config=config,
    )


def _ask(request: Callable[[], Any]) -> Any:
    try:
        return request()
    except KafkaException as error:
        raise _silent(error) from error


def _silent(error: KafkaException) -> StartupError:
    if error.args[0].code() in _NO_ANSWER:
        return StartupError(
            f"No broker answered within {REQUEST_SECS:.0f} s: check kafka.bootstrap_servers, the network, and TLS and "
            f"SASL under kafka.properties."
        )
    return StartupError(f"The broker refused to say what it holds: {_clause(error)}.")


def _clause(error: KafkaException) -> str:
    return str(error.args[0].str()).removeprefix("Broker: ").rstrip(".")
