"""The sections of the settings file: every key, its type, its default and what it means.

The README's table, the validation and the error sentences all come from these types. Each Struct is frozen. What is
watched has its sections in `stream.watch_sections`.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from state.events import AMOUNT_LIMIT_MINOR
from stream.quantity import Duration, Size
from stream.secret import Secret, SecretUrl

__all__ = [
    "EMBEDDED",
    "CodecSettings",
    "GateSettings",
    "KafkaSettings",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelSettings",
    "Properties",
    "RegistrySettings",
    "StateSettings",
    "StoreSettings",
    "TopicSettings",
    "WorkerSettings",
    "about",
]

#: kafka.bootstrap_servers of the broker that lives inside the process, for trying things out.
EMBEDDED: Final = "embedded"


class Properties(dict[str, str | Secret]):
    """librdkafka properties by name; those that hold secrets are Secret, so that no print shows them."""

    def revealed(self) -> dict[str, str]:
        """Return the properties as the client needs them, secrets in the clear."""
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in self.items()}


Topic = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


def about(text: str) -> Meta:
    """Attach a key's meaning to its type."""
    return Meta(description=text)


class KafkaSettings(Struct, frozen=True, kw_only=True):
    """[kafka]: where the broker is and how the worker behaves on it."""

    bootstrap_servers: Annotated[
        str, Meta(min_length=1, description='Brokers as host:port, comma-separated; "embedded" is the trial broker')
    ] = "localhost:9092"
    group: Annotated[
        str, Meta(min_length=1, description="Consumer group; also names the state's place in the store")
    ] = "fraudstream"
    instance_id: Annotated[str, about("A name of this worker's own: its partitions wait for it while it restarts")] = ""
    start: Annotated[Literal["earliest", "latest"], about("Where the very first start of the group begins")] = (
        "earliest"
    )
    delivery: Annotated[
        Literal["exactly_once", "at_least_once"],
        about("exactly_once, or at_least_once for lower latency and repeated decisions after a crash"),
    ] = "exactly_once"
    transaction_timeout_ms: Annotated[
        int, Meta(ge=1_000, le=900_000, description="A killed worker's open transaction is ended after this long")
    ] = 10_000
    session_timeout_ms: Annotated[
        int, Meta(ge=1_000, le=1_800_000, description="A worker silent for this long loses its partitions")
    ] = 45_000
    properties: Annotated[Properties, about("Any librdkafka property, for every client (TLS and SASL go here)")] = (
        field(default_factory=Properties)
    )
    consumer: Annotated[Properties, about("librdkafka properties for the consumer alone")] = field(
        default_factory=Properties
    )
    producer: Annotated[Properties, about("librdkafka properties for the producer alone")] = field(
        default_factory=Properties
    )


class TopicSettings(Struct, frozen=True, kw_only=True):
    """[topics]: the names of the topics read and written."""

    transactions: Annotated[Topic, about("Input, keyed by user")] = "transactions"
    decisions: Annotated[Topic, about("One decision for each transaction, on the same partition number")] = "decisions"
    features: Annotated[Topic, about("The feature log: Arrow batches of every scored vector")] = "features"
    dead_letters: Annotated[Topic, about("Records that are no transaction, as received, with the reason")] = (
        "transactions.dlq"
    )
    labels: Annotated[Topic, about("What turned out to be fraud, keyed by user")] = "labels"
    labelled: Annotated[Topic, about("Labels joined with the decisions they are about; one partition")] = "labelled"
    telemetry: Annotated[Topic, about("What workers say of each second: counts, never ids; one partition")] = (
        "telemetry"
    )
    alerts: Annotated[Topic, about("What the monitor raises and clears; one partition")] = "alerts"


class LimitSettings(Struct, frozen=True, kw_only=True):
    """[codec.limits]: what a sane transaction looks like; anything else is a dead letter."""

    amount_min: Annotated[
        int,
        Meta(
            gt=-AMOUNT_LIMIT_MINOR,
            lt=AMOUNT_LIMIT_MINOR,
            description="Smallest amount, in minor units (cents); below 0 admits refunds",
        ),
    ] = 0
    amount_max: Annotated[
        int,
        Meta(
            gt=-AMOUNT_LIMIT_MINOR,
            lt=AMOUNT_LIMIT_MINOR,
            description="Largest amount, in minor units (cents), after any conversion",
        ),
    ] = 1_000_000_000_000
    max_id_length: Annotated[int, Meta(ge=1, le=4_096, description="Longest transaction or user id, in characters")] = (
        128
    )
    max_field_length: Annotated[int, Meta(ge=1, le=65_536, description="Longest other field, in characters")] = 256
    max_ahead_ms: Annotated[
        int, Meta(ge=0, le=1 << 40, description="How far an event time may lie after its Kafka record's timestamp")
    ] = 3_600_000
    min_event_time_ms: Annotated[
        int, Meta(ge=0, description="Earliest event time, epoch milliseconds (default 1990); catches a wrong unit")
    ] = 631_152_000_000
    max_value_bytes: Annotated[Size, about("Largest record value read")] = Size(1 << 20)


class CodecSettings(Struct, frozen=True, kw_only=True):
    """[codec]: how a transaction of yours is read."""

    fields: Annotated[
        dict[str, tuple[str, ...]],
        about('Your field names: ours = "yours", or a list, of which the first one present counts'),
    ] = field(default_factory=dict)
    defaults: Annotated[
        dict[str, str], about('What a transaction without the field means, such as currency = "EUR"')
    ] = field(default_factory=dict)
    event_time_unit: Annotated[Literal["ms", "s", "us"], about("Unit of event times that are numbers")] = "ms"
    naive_time_zone: Annotated[
        str, about('Zone of event times without an offset, such as "UTC"; empty: such times are refused')
    ] = ""
    base_currency: Annotated[str, about("Convert every amount to this currency at the fixed rates; empty: do not")] = ""
    rates: Annotated[
        dict[str, str], about('Units of the base currency for one unit of another, as text: USD = "0.92"')
    ] = field(default_factory=dict)
    limits: LimitSettings = field(default_factory=LimitSettings)


class StateSettings(Struct, frozen=True, kw_only=True):
    """[state]: what is remembered of each user. All but memory_limit_bytes and feature_set enter the state hash."""

    fields: Annotated[tuple[str, ...], about("Fields kept with each event, for features to use")] = (
        "merchant_id",
        "country",
        "device_id",
    )
    retention: Annotated[
        Duration, about("How long a user's events are kept: the longest window plus the lateness to allow for")
    ] = Duration(31 * 86_400_000)
    max_events: Annotated[
        int, Meta(ge=1, le=1 << 20, description="Events kept for one user; above it the oldest leave")
    ] = 4_096
    memory_limit_bytes: Annotated[Size, about("Windows held in memory; above it idle users are evicted")] = Size(
        1 << 30
    )
    feature_set: Annotated[str, about("Path of a feature set (TOML); empty: the model bundle's own")] = ""


class StoreSettings(Struct, frozen=True, kw_only=True):
    """[store]: where state survives the process."""

    kind: Annotated[
        Literal["sqlite", "memory", "redis"], about("sqlite for one worker, redis for more, memory for trying out")
    ] = "sqlite"
    path: Annotated[str, Meta(min_length=1, description="The sqlite file")] = "var/state.sqlite"
    url: Annotated[SecretUrl, about("The Redis server, redis:// or rediss:// (TLS)")] = field(
        default_factory=lambda: SecretUrl("redis://127.0.0.1:6379/0")
    )
    prefix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="What every key in Redis begins with")
    ] = "fraudstream"
    checkpoint_interval_ms: Annotated[
        int, Meta(ge=100, description="How often changed users are written behind the stream")
    ] = 10_000
    recovery: Annotated[
        Literal["refuse", "rebuild", "accept_partial"],
        about("When history is missing: stop and say so, rebuild from the log's start, or go on without it"),
    ] = "refuse"


class ModelSettings(Struct, frozen=True, kw_only=True):
    """[model]: what scores."""

    bundle: Annotated[str, Meta(min_length=1, description="Directory of the model bundle")] = "var/model"
    follow: Annotated[
        str, about("Registry directory whose champion is scored with, and swapped to when it changes; empty: bundle")
    ] = ""
    poll_interval: Annotated[Duration, about("How often a worker that follows looks for a promotion")] = Duration(5_000)
    cache: Annotated[
        str,
        Meta(min_length=1, description="Where a worker that follows keeps its bundle, to start without the registry"),
    ] = "var/cache/models"
    engine: Annotated[
        Literal["auto", "forest", "onnx", "gpu", "constant"],
        about("auto takes the fastest that fits the CPU; gpu needs CUDA; constant scores without a model"),
    ] = "auto"
    constant_score: Annotated[float, Meta(ge=0, le=1, description="The score of the constant engine")] = 0.0


class GateSettings(Struct, frozen=True, kw_only=True):
    """[registry.gates]: what a version must keep to be promoted."""

    review_rate: Annotated[
        float, Meta(gt=0, lt=1, description="Share of events that analysts can look at; recall is compared there")
    ] = 0.02
    min_frauds: Annotated[int, Meta(ge=1, description="Fewest frauds in a holdout that can prove anything")] = 30
    max_precision_loss: Annotated[
        float, Meta(ge=0, description="What average precision may at worst (95 %) lie below the champion's")
    ] = 0.03
    max_recall_loss: Annotated[
        float, Meta(ge=0, description="What recall at the review rate may at worst (95 %) lie below the champion's")
    ] = 0.05
    min_average_precision: Annotated[
        float, Meta(ge=0, le=1, description="Least average precision of the first version, which has no champion")
    ] = 0.1
    min_recall: Annotated[
        float, Meta(ge=0, le=1, description="Least share of frauds that the version's own thresholds hold")
    ] = 0.1
    max_held_rate: Annotated[
        float, Meta(gt=0, le=1, description="Greatest share of events that the version's own thresholds hold")
    ] = 0.1
    # Four times what training declines by default.
    max_decline_rate: Annotated[
        float, Meta(gt=0, le=1, description="Greatest share of events that the version's own thresholds decline")
    ] = 0.02
    # Nobody looks at a decline: one honest customer turned away for each fraud is the most that can be argued for.
    min_decline_precision: Annotated[float, Meta(ge=0, le=1, description="Least share of fraud among the declined")] = (
        0.5
    )
    # Half of the events that are reviewed by default; a share of honest events, for reviews and for declines.
    max_honest_held_gain: Annotated[
        float, Meta(ge=0, description="How much more of the honest events may be held than by the champion")
    ] = 0.01
    max_honest_declined_gain: Annotated[
        float, Meta(ge=0, description="How much more of the honest events may be declined than by the champion")
    ] = 0.002
    # The number of 30 frauds, the fewest allowed, is known to a factor of exp(1.96 / sqrt(30)) = 1.43: a calibrated
    # version must not fail by chance alone.
    min_score_ratio: Annotated[
        float, Meta(gt=0, le=1, description="Least mean score, as a multiple of the fraud rate; 1 is calibrated")
    ] = 0.67
    max_score_ratio: Annotated[
        float, Meta(ge=1, description="Greatest mean score, as a multiple of the fraud rate")
    ] = 1.5
    min_slope: Annotated[float, Meta(gt=0, description="Least slope of labels on log-odds; 1 is calibrated")] = 0.6
    max_slope: Annotated[float, Meta(gt=0, description="Greatest slope of labels on log-odds")] = 1.6
    max_brier_ratio: Annotated[
        float, Meta(gt=0, description="Greatest Brier score, as a multiple of the champion's")
    ] = 1.05
    batch: Annotated[int, Meta(ge=1, le=100_000, description="Events in the batch that is timed")] = 512
    # A small version takes 0.3 ms and 4 MiB, one with ten times the trees about ten times that.
    max_batch_ms: Annotated[float, Meta(gt=0, description="Longest time to score that batch")] = 5.0
    max_memory_bytes: Annotated[Size, about("Greatest resident memory that loading a version may take")] = Size(
        64 << 20
    )
    max_false_positive_ratio: Annotated[
        float,
        Meta(
            ge=1,
            description="How many times as often a country's or channel's honest events may be held, beyond chance",
        ),
    ] = 3.0
    max_amount_false_positive_ratio: Annotated[
        float, Meta(ge=1, description="The same for a quarter of the amounts, whose risk differs by nature")
    ] = 10.0
    min_segment_honest: Annotated[
        int, Meta(ge=1, description="Fewest honest events of a segment that is judged; smaller ones are named")
    ] = 500
    min_missing_share: Annotated[
        float, Meta(ge=0, le=1, description="Least share of average precision left when a field is missing")
    ] = 0.5
    min_noise_share: Annotated[
        float, Meta(ge=0, le=1, description="Least share of average precision left with 1 % noise on the amount")
    ] = 0.9


class RegistrySettings(Struct, frozen=True, kw_only=True):
    """[registry]: which versions there are, and which one the workers that follow it score with."""

    uri: Annotated[SecretUrl, about("MLflow's registry: sqlite:///FILE, or http(s)://SERVER")] = field(
        default_factory=lambda: SecretUrl("sqlite:///var/mlflow.db")
    )
    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_. -]{1,64}$", description="Name of the registered model in MLflow")
    ] = "fraudstream"
    directory: Annotated[
        str, Meta(min_length=1, description="Holds the versions' bundles and champion.json, which workers follow")
    ] = "var/models"
    gates: GateSettings = field(default_factory=GateSettings)


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """[worker]: batches and limits of the loop."""

    max_batch: Annotated[int, Meta(ge=1, le=100_000, description="Most records in one batch")] = 2_048
    # Below 200 ms librdkafka's client hands over what came in time; above, it polls in slices.
    poll_timeout_ms: Annotated[
        int, Meta(ge=1, lt=200, description="Longest wait for the first record of a batch; below 200")
    ] = 100
    max_unwritten_bytes: Annotated[Size, about("State not yet in the store; above it intake pauses")] = Size(256 << 20)
    max_consecutive_aborts: Annotated[
        int, Meta(ge=1, description="Aborted batches in a row after which the worker ends with an error")
    ] = 10
    shutdown_timeout_ms: Annotated[
        int, Meta(ge=100, description="Deadline of an orderly stop: finish, commit, checkpoint, leave")
    ] = 30_000


class MetricsSettings(Struct, frozen=True, kw_only=True):
    """[metrics]: /metrics, /healthz and /readyz."""

    enabled: Annotated[bool, about("Serve them")] = True
    address: Annotated[str, Meta(min_length=1, description="Address to listen on; 0.0.0.0 for every interface")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port to listen on; 0 picks a free one")] = 9_108


class LogSettings(Struct, frozen=True, kw_only=True):
    """[log]: JSON lines on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], about("Least severe level written")] = "info"
    id_key: Annotated[
        Secret, about("Key that user and transaction ids are hashed with; empty: a new one at each start")
    ] = field(default_factory=lambda: Secret(""))
