"""Settings: one TOML file plus the environment, validated at start, frozen from then on.

A later source wins: defaults, the file, environment (FRAUDSTREAM_SECTION__KEY, or FRAUDSTREAM_SECTION__KEY_FILE for a
value kept in a file), the command line. `python -m stream.settings` prints the table of all settings.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_type_hints

from msgspec import NODEFAULT, Meta, Struct, field, structs

from state.errors import FeatureSetError
from state.features import StateSpec
from stream import mapping as mappings
from stream import settings_reader
from stream.errors import SettingsError
from stream.quantity import Duration, Size
from stream.secret import Secret
from stream.sections import (
    EMBEDDED,
    CodecSettings,
    KafkaSettings,
    LogSettings,
    MetricsSettings,
    ModelSettings,
    Properties,
    RegistrySettings,
    StateSettings,
    StoreSettings,
    TopicSettings,
    WorkerSettings,
)
from stream.settings_reader import WrongValueError
from stream.watch_memory import memory_ms
from stream.watch_sections import DriftSettings, LabelSettings, MonitorSettings, QualitySettings, TelemetrySettings

__all__ = ["FIXED_PROPERTIES", "Settings", "load_settings", "settings_table"]

_OWN: Final = "has a setting of its own: set kafka.{} instead"
_FIXED: Final = "is fixed, because {}"

#: librdkafka properties that cannot be passed through, and why (a clause that follows the property's key).
FIXED_PROPERTIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bootstrap.servers": _OWN.format("bootstrap_servers"),
        "metadata.broker.list": _OWN.format("bootstrap_servers"),
        "group.id": _OWN.format("group"),
        "group.instance.id": _OWN.format("instance_id"),
        "session.timeout.ms": _OWN.format("session_timeout_ms"),
        "transaction.timeout.ms": _OWN.format("transaction_timeout_ms"),
        "enable.auto.commit": _FIXED.format("offsets are committed together with the decisions they stand for"),
        "auto.commit.enable": _FIXED.format("offsets are committed together with the decisions they stand for"),
        "enable.auto.offset.store": _FIXED.format("offsets are committed together with the decisions they stand for"),
        "isolation.level": _FIXED.format("what an aborted transaction wrote must not be scored"),
        "auto.offset.reset": _FIXED.format(
            "a missing offset is an error to decide on; kafka.start says where to begin"
        ),
        "transactional.id": _FIXED.format("it is derived from kafka.group and kafka.instance_id"),
        "enable.idempotence": _FIXED.format("without it a retry can write a decision twice"),
        "acks": _FIXED.format("a decision counts only once every in-sync replica has it"),
        "request.required.acks": _FIXED.format("a decision counts only once every in-sync replica has it"),
        "max.in.flight": _FIXED.format("more requests in flight can change the order of decisions"),
        "max.in.flight.requests.per.connection": _FIXED.format(
            "more requests in flight can change the order of decisions"
        ),
        "partition.assignment.strategy": _FIXED.format("workers of one group must agree on it"),
        "group.protocol": _FIXED.format("workers of one group must agree on it"),
        "enable.partition.eof": _FIXED.format("the worker's loop does not expect such events"),
        "partitioner": _FIXED.format("decisions go to their transaction's partition number"),
        "partitioner_cb": _FIXED.format("decisions go to their transaction's partition number"),
    }
)


def _section(kind: type[Struct]) -> Any:
    return field(default_factory=kind)


class Settings(Struct, frozen=True, kw_only=True):
    """All settings. Printing one shows no secret."""

    kafka: KafkaSettings = _section(KafkaSettings)
    topics: TopicSettings = _section(TopicSettings)
    codec: CodecSettings = _section(CodecSettings)
    state: StateSettings = _section(StateSettings)
    store: StoreSettings = _section(StoreSettings)
    model: ModelSettings = _section(ModelSettings)
    registry: RegistrySettings = _section(RegistrySettings)
    worker: WorkerSettings = _section(WorkerSettings)
    telemetry: TelemetrySettings = _section(TelemetrySettings)
    labels: LabelSettings = _section(LabelSettings)
    quality: QualitySettings = _section(QualitySettings)
    drift: DriftSettings = _section(DriftSettings)
    monitor: MonitorSettings = _section(MonitorSettings)
    metrics: MetricsSettings = _section(MetricsSettings)
    log: LogSettings = _section(LogSettings)

    @property
    def embedded(self) -> bool:
        """Whether the broker is the one inside the process, for trying things out."""
        return self.kafka.bootstrap_servers == EMBEDDED

    def mapping(self) -> mappings.Mapping:
        """Return how transactions are read; raises MappingError, which `load_settings` has ruled out."""
        codec = self.codec
        return mappings.Mapping(
            kept=self.state.fields,
            fields=codec.fields,
            defaults=codec.defaults,
            event_time_unit=codec.event_time_unit,
            naive_time_zone=codec.naive_time_zone,
            base_currency=codec.base_currency,
            rates={currency: _rate(currency, text) for currency, text in codec.rates.items()},
            segment=self.telemetry.segment,
        )

    def limits(self) -> mappings.Limits:
        """Return what a sane transaction looks like."""
        return mappings.Limits(**{name: int(value) for name, value in structs.asdict(self.codec.limits).items()})

    def state_spec(self) -> StateSpec:
        """Return what the state keeps; its hash is the state hash."""
        state = self.state
        return StateSpec(
            fields=state.fields,
            retention_ms=int(state.retention),
            max_events=state.max_events,
            decoding=self.mapping().decoding,
        )

    def client_properties(self, role: str) -> dict[str, str]:
        """Return the librdkafka properties passed through for the role "consumer", "producer" or "admin".

        Secrets are in the clear: hand the result to the client and nowhere else.
        """
        own = {"consumer": self.kafka.consumer, "producer": self.kafka.producer}.get(role, Properties())
        servers = {} if self.embedded else {"bootstrap.servers": self.kafka.bootstrap_servers}
        return servers | self.kafka.properties.revealed() | own.revealed()

    def masked(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON or a log; secrets are masked."""
        return {name: _plain(getattr(self, name)) for name in self.__struct_fields__}


def _plain(value: object) -> Any:
    match value:
        case Struct():
            return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        case dict():
            return {name: _plain(entry) for name, entry in value.items()}
        case tuple():
            return [_plain(entry) for entry in value]
        case Secret():
            return value.masked
        case Duration() | Size():
            return int(value)
    return value


def _rate(currency: str, text: str) -> Fraction:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        raise mappings.MappingError(f"codec.rates.{currency}", f'must be a decimal number such as "0.92", not "{text}"')
    return Fraction(text)


def load_settings(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] = MappingProxyType({})
) -> Settings:
    """Read and validate all settings; raises SettingsError with one sentence that names the key and its source.

    ``path`` None means no file. ``overrides`` are values by dotted key ("kafka.group"); None means not given.
    """
    given = settings_reader.from_file(Settings, path) if path is not None else []
    given += settings_reader.from_environment(Settings, environ)
    given += settings_reader.from_overrides(Settings, overrides)
    settings: Settings = settings_reader.build(Settings, given)
    try:
        for check in _CHECKS:
            check(settings)
    except (WrongValueError, mappings.MappingError) as wrong:
        sources = [one.source for one in given if ".".join(one.path).startswith(wrong.key)]
        where = f" in {sources[-1]}" if sources else ""
        raise SettingsError(f"{wrong.key}{where} {wrong.what}") from None
    return settings


def _check_properties(settings: Settings) -> None:
    for table in ("properties", "consumer", "producer"):
        for name in getattr(settings.kafka, table):
            if name in FIXED_PROPERTIES:
                raise WrongValueError(f"kafka.{table}.{name}", FIXED_PROPERTIES[name])


def _check_topics(settings: Settings) -> None:
    owner: dict[str, str] = {}
    for name, topic in structs.asdict(settings.topics).items():
        if owner.setdefault(topic, name) != name:
            raise WrongValueError(f"topics.{name}", f'is "{topic}", which is topics.{owner[topic]} already')
        if topic in (".", ".."):
            raise WrongValueError(f"topics.{name}", f'cannot be "{topic}": Kafka has no topic of this name')


def _check_embedded(settings: Settings) -> None:
    if not settings.embedded:
        return
    if settings.kafka.delivery != "at_least_once":
        raise WrongValueError(
            "kafka.delivery",
            'must be "at_least_once" on the embedded broker, which cannot commit offsets in a transaction; '
            "set kafka.bootstrap_servers to a real broker for exactly_once",
        )
    if settings.store.kind != "memory":
        raise WrongValueError(
            "store.kind",
            'must be "memory" on the embedded broker, whose topics end with the process; '
            "set kafka.bootstrap_servers to a real broker to keep state",
        )


def _check_codec(settings: Settings) -> None:
    limits = settings.codec.limits
    if limits.amount_min > limits.amount_max:
        raise WrongValueError("codec.limits.amount_min", "must not be above codec.limits.amount_max")
    settings.mapping()


def _check_state(settings: Settings) -> None:
    if settings.state.retention <= 0:
        raise WrongValueError("state.retention", "must be above 0")
    try:
        settings.state_spec()
    except FeatureSetError as error:
        raise WrongValueError("state", f"cannot be kept: {error}") from None


def _check_store(settings: Settings) -> None:
    if not settings.store.url.reveal().startswith(("redis://", "rediss://", "unix://")):
        raise WrongValueError("store.url", "must begin with redis://, rediss:// (TLS) or unix:// (a socket)")


def _check_registry(settings: Settings) -> None:
    if not settings.registry.uri.reveal().startswith(("sqlite:///", "http://", "https://")):
        raise WrongValueError("registry.uri", "must begin with sqlite:/// (a file), http:// or https:// (a server)")
    gates = settings.registry.gates
    if gates.min_slope > gates.max_slope:
        raise WrongValueError("registry.gates.min_slope", "must not be above registry.gates.max_slope")


def _check_watch(settings: Settings) -> None:
    for key, value in (
        ("telemetry.interval", settings.telemetry.interval),
        ("labels.retention", settings.labels.retention),
        ("quality.window", settings.quality.window),
        ("quality.every", settings.quality.every),
        ("drift.window", settings.drift.window),
        ("drift.every", settings.drift.every),
        ("drift.epoch", settings.drift.epoch),
        ("monitor.read_back", settings.monitor.read_back),
    ):
        if value <= 0:
            raise WrongValueError(key, "must be above 0")
    if settings.drift.every > settings.drift.window:
        raise WrongValueError("drift.every", "must not be longer than drift.window")
    if 0 != settings.drift.longer_rhythm <= settings.drift.rhythm:
        raise WrongValueError("drift.longer_rhythm", "must be longer than drift.rhythm, or 0s for none")
    if settings.quality.every > settings.quality.window:
        raise WrongValueError("quality.every", "must not be longer than quality.window")
    needed_ms = memory_ms(settings.drift, settings.monitor)
    if settings.monitor.read_back <= needed_ms:
        raise WrongValueError(
            "monitor.read_back",
            f"must be longer than {-(-needed_ms // 60_000)}m, for so far back drift.epoch, drift.rhythm, "
            f"drift.longer_rhythm, drift.window, drift.persistence times drift.every, and drift.adversarial_every "
            f"reach; shorten those, or read further back",
        )


_CHECKS: Final[tuple[Callable[[Settings], None], ...]] = (
    _check_properties,
    _check_topics,
    _check_embedded,
    _check_codec,
    _check_state,
    _check_store,
    _check_registry,
    _check_watch,
)


def settings_table() -> str:
    """Render every setting as a Markdown table: key, default, meaning."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    rows += [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in _rows(Settings, "")]
    return "\n".join(rows) + "\n"


def _rows(kind: type[Struct], prefix: str) -> Iterator[tuple[str, str, str]]:
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    for one in structs.fields(kind):
        hint = hints[one.name]
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from _rows(hint, f"{prefix}{one.name}.")
            continue
        default = one.default if one.default is not NODEFAULT else one.default_factory()
        meaning = next(meta.description for meta in hint.__metadata__ if isinstance(meta, Meta) and meta.description)
        yield f"{prefix}{one.name}", _shown(default), meaning


def _shown(default: object) -> str:
    match default:
        case Duration() | Size():
            return f"`{default}`"
        case "" | () | Secret() if not default:
            return ""
        case dict():
            return ""
        case tuple():
            return f"`{', '.join(default)}`"
        case bool():
            return f"`{str(default).lower()}`"
    return f"`{default}`"


if __name__ == "__main__":
    print(settings_table(), end="")
