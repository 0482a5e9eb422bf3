"""Looks at everything a worker needs, one check at a time, and says what is wrong and how to mend it.

Checks do not depend on one another where they need not: a broker that is down leaves the model to be looked at.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka.admin import AdminClient

from models.bundle import open_bundle
from models.ensemble import load_engine
from models.errors import ModelError
from state.errors import StateError
from stream.check import Found, Level, fail, ok, skip, warn
from stream.clients import admin_config, consumer_config
from stream.errors import FraudstreamError, StartupError
from stream.feature_sets import chosen_feature_set
from stream.record_check import check_keys, check_partitioner, check_records
from stream.sampling import newest_records
from stream.scoring import load_scoring
from stream.settings import Settings
from stream.sources import SourceError
from stream.store_check import StoreFacts, check_recovery, check_store
from stream.topic_check import Finding, TopicRole, TopicState, check_telemetry, check_topics
from stream.topics import describe_cluster, describe_topics, topic_names
from stream.versions import current_bundle

__all__ = ["Check", "examine"]

#: Records looked at: enough to tell partitioners apart, few enough to be read in a moment.
SAMPLED: Final = 2_000
SAMPLED_A_PARTITION: Final = 500

NO_BROKER: Final = "not looked at, because the broker does not answer"


class Check(NamedTuple):
    """One line: how it stands, what was looked at, and what was found."""

    level: Level
    name: str
    text: str


def examine(settings: Settings) -> Iterator[Check]:
    """Yield the checks one by one as they are made; a broken part never prevents the others."""
    doctor = _Doctor(settings)
    looks: dict[str, Callable[[], Iterator[Found]]] = {
        "broker": doctor.broker,
        "topics": doctor.topics,
        "partitions": doctor.partitions,
        "records": doctor.records,
        "keys": doctor.keys,
        "partitioner": doctor.partitioner,
        "model": doctor.model,
        "feature set": doctor.feature_set,
        "store": doctor.store,
        "recovery": doctor.recovery,
        "telemetry": doctor.telemetry,
    }
    for name, look in looks.items():
        try:
            for level, text in look():
                yield Check(level, name, text)
        except (FraudstreamError, StateError, ModelError) as error:
            yield Check("FAIL", name, str(error))
        except KafkaException as error:
            yield Check("FAIL", name, f"the broker or its client refused: {error.args[0].str()}")


class _Doctor:
    """What is known so far; None until it was found out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster_id: str | None = None
        self._states: dict[TopicRole, TopicState] = {}
        self._findings: list[Finding] = []
        self._sample: list[Message] | None = None

    def broker(self) -> Iterator[Found]:
        self._cluster_id = describe_cluster(AdminClient(admin_config(self._settings)))
        yield ok(f"{self._settings.kafka.bootstrap_servers} answers, cluster {self._cluster_id}")

    def topics(self) -> Iterator[Found]:
        if self._cluster_id is None:
            yield skip(NO_BROKER)
            return
        names = topic_names(self._settings)
        described = describe_topics(AdminClient(admin_config(self._settings)), names.values())
        self._states = {role: described[name] for role, name in names.items()}
        self._findings = check_topics(self._states, int(self._settings.state.retention))
        mine = [finding for finding in self._findings if finding.code != "partition_mismatch"]
        if not mine:
            yield ok(f"{', '.join(names.values())} are there, with the rights and settings needed")
        yield from _told(mine)

    def partitions(self) -> Iterator[Found]:
        source = self._source
        if source is None:
            yield self._no_source
            return
        mine = [finding for finding in self._findings if finding.code == "partition_mismatch"]
        absent = [self._states[role].name for role in ("decisions", "features") if self._states[role].absent]
        if absent:
            yield skip(f"{source.partitions} of {source.name}, but {' and '.join(absent)} cannot be seen")
        elif not mine:
            yield ok(f"{source.partitions} of each topic: a decision stands on its transaction's partition number")
        yield from _told(mine)

    def records(self) -> Iterator[Found]:
        source = self._source
        if source is None:
            yield self._no_source
            return
        self._sample = self._newest(source)
        if self._sample:
            yield from check_records(self._sample, self._settings.mapping(), self._settings.limits())
        else:
            yield self._nothing_seen

    def keys(self) -> Iterator[Found]:
        if self._sample:
            yield from check_keys(self._sample, self._settings.mapping(), self._settings.limits())
        else:
            yield self._nothing_seen

    def partitioner(self) -> Iterator[Found]:
        source = self._source
        if self._sample and source is not None:
            yield from check_partitioner(self._sample, source.partitions)
        else:
            yield self._nothing_seen

    def model(self) -> Iterator[Found]:
        model = self._settings.model
        if model.engine == "constant":
            yield warn(f"none: model.engine = constant gives every transaction the score {model.constant_score:g}")
            return
        bundle = open_bundle(current_bundle(self._settings))
        engine = load_engine(bundle, model.engine)
        yield ok(
            f"{bundle.version} on {engine.name}, review from {bundle.thresholds.review:.3f}, decline from "
            f"{bundle.thresholds.decline:.3f}, checksums right"
        )

    def feature_set(self) -> Iterator[Found]:
        modelled = ""
        try:
            feature_set = load_scoring(self._settings).feature_set
        except (ModelError, SourceError):
            feature_set = chosen_feature_set(self._settings)
            modelled = "; not compared with the model, which cannot be opened"
        self._settings.state_spec().check(feature_set)
        yield ok(
            f"{feature_set.name} ({feature_set.hash}), {len(feature_set.names)} features, all from what is kept"
            f"{modelled}"
        )

    def store(self) -> Iterator[Found]:
        yield from check_store(self._settings, self._facts())

    def recovery(self) -> Iterator[Found]:
        facts = self._facts()
        if facts is None:
            yield self._no_source
        else:
            yield from check_recovery(self._settings, facts)

    def telemetry(self) -> Iterator[Found]:
        if not self._settings.telemetry.enabled:
            yield skip("switched off with telemetry.enabled, so no monitor hears of the workers")
            return
        if self._cluster_id is None:
            yield skip(NO_BROKER)
            return
        name = self._settings.topics.telemetry
        findings = check_telemetry(describe_topics(AdminClient(admin_config(self._settings)), [name])[name])
        if not findings:
            yield ok(f"{name} is there, with one partition and the rights needed")
        yield from _told(findings)

    def _facts(self) -> StoreFacts | None:
        source = self._source
        if source is None or self._cluster_id is None:
            return None
        return StoreFacts(self._cluster_id, source.topic_id, source.partitions)

    @property
    def _source(self) -> TopicState | None:
        source = self._states.get("transactions")
        return None if source is None or source.absent else source

    @property
    def _no_source(self) -> Found:
        if self._cluster_id is None:
            return skip(NO_BROKER)
        return skip(f"not looked at, because {self._settings.topics.transactions} cannot be seen")

    @property
    def _nothing_seen(self) -> Found:
        if self._source is None:
            return self._no_source
        if self._sample is None:
            return skip("not looked at, because no records could be read")
        return skip(f"{self._settings.topics.transactions} is empty, so there is nothing to judge yet")

    def _newest(self, source: TopicState) -> list[Message]:
        config = consumer_config(self._settings)
        config.pop("group.instance.id", None)
        consumer = Consumer(config)
        limit = max(1, min(SAMPLED_A_PARTITION, SAMPLED // source.partitions))
        try:
            return newest_records(consumer, source.name, range(source.partitions), limit)
        except KafkaException as error:
            raise StartupError(f"{source.name} cannot be read: {error.args[0].str()}.") from error
        finally:
            consumer.close()


def _told(findings: list[Finding]) -> Iterator[Found]:
    for finding in findings:
        yield (fail if finding.fatal else warn)(finding.sentence)
