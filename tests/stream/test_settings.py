"""Settings: read from a file and the environment, checked at start, and never printed with a secret in them."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from msgspec import structs

from state.features import StateSpec, default_feature_set
from stream.errors import SettingsError
from stream.mapping import Limits, Mapping
from stream.quantity import Duration
from stream.settings import FIXED_PROPERTIES, Settings, load_settings, settings_table
from stream.watch_memory import memory_ms
from stream.watch_sections import DriftSettings, MonitorSettings


@pytest.fixture
def load(tmp_path):
    """load(toml, environ, overrides) writes a settings file and loads it."""

    def load(toml: str = "", environ: dict | None = None, overrides: dict | None = None) -> Settings:
        path = tmp_path / "fraudstream.toml"
        path.write_text(toml, encoding="utf-8")
        return load_settings(path, environ or {}, overrides or {})

    return load


def test_without_a_file_and_environment_every_setting_has_its_default():
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.kafka.bootstrap_servers == "localhost:9092"
    assert settings.mapping() == Mapping()
    assert settings.limits() == Limits()
    assert settings.state_spec() == StateSpec(decoding=Mapping().decoding)
    assert not settings.embedded


def test_the_default_state_keeps_what_the_default_features_need():
    Settings().state_spec().check(default_feature_set())


def test_a_later_source_wins(load):
    toml = "[kafka]\ngroup = 'file'\ninstance_id = 'file'\nstart = 'latest'"
    environ = {"FRAUDSTREAM_KAFKA__GROUP": "environment", "FRAUDSTREAM_KAFKA__INSTANCE_ID": "environment"}
    kafka = load(toml, environ, {"kafka.group": "command line", "kafka.start": None}).kafka
    assert (kafka.group, kafka.instance_id, kafka.start) == ("command line", "environment", "latest")


def test_every_kind_of_value_can_come_from_the_file(load):
    settings = load(
        """
        [kafka]
        delivery = "at_least_once"
        session_timeout_ms = 6000
        [kafka.properties]
        security.protocol = "SASL_SSL"
        "linger.ms" = 5
        socket.keepalive.enable = true
        [codec]
        base_currency = "EUR"
        [codec.fields]
        user_id = ["CUSTOMER_ID", "GUEST_ID"]
        amount = "TX_AMOUNT"
        [codec.defaults]
        currency = "EUR"
        [codec.rates]
        USD = "0.92"
        JPY = 0.0061
        [codec.limits]
        max_value_bytes = "64KiB"
        [state]
        fields = ["country"]
        retention = "8d"
        memory_limit_bytes = 1000000
        [model]
        constant_score = 0.25
        [metrics]
        enabled = false
        """
    )
    assert settings.kafka.properties == {
        "security.protocol": "SASL_SSL",
        "linger.ms": "5",
        "socket.keepalive.enable": "true",
    }
    mapping = settings.mapping()
    assert mapping.fields == {"user_id": ("CUSTOMER_ID", "GUEST_ID"), "amount": ("TX_AMOUNT",)}
    assert mapping.rates == {"USD": Fraction(92, 100), "JPY": Fraction(61, 10_000)}
    assert settings.limits() == Limits(max_value_bytes=65_536)
    assert settings.state_spec().retention_ms == 8 * 86_400_000
    assert settings.state.memory_limit_bytes == 1_000_000
    assert (settings.model.constant_score, settings.metrics.enabled) == (0.25, False)


def test_every_kind_of_value_can_come_from_the_environment(tmp_path):
    password = tmp_path / "password"
    password.write_text("hunter2\n")
    settings = load_settings(
        None,
        {
            "FRAUDSTREAM_METRICS__ENABLED": "false",
            "FRAUDSTREAM_METRICS__PORT": "9200",
            "FRAUDSTREAM_STATE__FIELDS": "country, mcc",
            "FRAUDSTREAM_STATE__RETENTION": "12h",
            "FRAUDSTREAM_CODEC__FIELDS__USER_ID": "a,b",
            "FRAUDSTREAM_CODEC__BASE_CURRENCY": "EUR",
            "FRAUDSTREAM_CODEC__RATES__USD": "0.92",
            "FRAUDSTREAM_CODEC__LIMITS__AMOUNT_MIN": "-5",
            "FRAUDSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD_FILE": str(password),
            "FRAUDSTREAM_KAFKA__CONSUMER__FETCH_MIN_BYTES": "100",
            "FRAUDSTREAM_SERVICE_HOST": "set by an orchestrator",
            "HOME": "/",
        },
    )
    assert (settings.metrics.enabled, settings.metrics.port) == (False, 9_200)
    assert settings.state.fields == ("country", "mcc")
    assert settings.state.retention == 12 * 3_600_000
    assert settings.mapping().fields == {"user_id": ("a", "b")}
    assert settings.mapping().rates == {"USD": Fraction(92, 100)}
    assert settings.limits().amount_min == -5
    assert settings.client_properties("consumer") == {
        "bootstrap.servers": "localhost:9092",
        "sasl.password": "hunter2",
        "fetch.min.bytes": "100",
    }
    assert "fetch.min.bytes" not in settings.client_properties("producer")


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[kafka]\ngrup = 'x'", "kafka.grup in {file} is no setting; did you mean group?"),
        ("[kafak]\ngroup = 'x'", "kafak in {file} is no setting; did you mean kafka?"),
        ("[codec.limits]\nzzz = 1", "codec.limits.zzz in {file} is no setting; known here: amount_min, "),
        ("kafka = 3", "kafka in {file} must be a table, written [kafka]"),
        ("[kafka]\ngroup = ''", "kafka.group in {file} must be a text that is not empty, not ''"),
        ("[kafka]\ndelivery = 'x'", 'kafka.delivery in {file} must be one of "at_least_once", "exactly_once"'),
        ("[worker]\npoll_timeout_ms = 200", "worker.poll_timeout_ms in {file} must be a whole number at least 1 and"),
        ("[metrics]\nport = '1'", "metrics.port in {file} must be a whole number at least 0 and at most 65535"),
        ("[metrics]\nenabled = 1", "metrics.enabled in {file} must be true or false, not 1"),
        ("[state]\nretention = '3w'", 'state.retention in {file} must be a duration such as "31d"'),
        ("[monitor]\nread_back = '53h'", "monitor.read_back in {file} must be longer than 3201m, for so far back"),
        ("[drift]\nrhythm = '7d'", "monitor.read_back must be longer than 11841m, for so far back drift.epoch,"),
        ("[state]\nretention = 0", "state.retention in {file} must be above 0"),
        ("[state]\nfields = 'country'", "state.fields in {file} must be a list of texts, not 'country'"),
        ("[state]\nfields = ['county']", "state.fields in {file} cannot keep county: name one of merchant_id"),
        ("[state]\nfields = ['mcc', 'mcc']", "state.fields in {file} names a field twice"),
        ("[state]\nmax_events = 1000000", "state in {file} cannot be kept: max_events is 1000000"),
        ("[topics]\ndecisions = 'a b'", "topics.decisions in {file} must be a text of the form"),
        ("[topics]\ndecisions = 'transactions'", 'topics.decisions in {file} is "transactions", which is'),
        ("[codec.fields]\nusr_id = 'x'", "codec.fields.usr_id in {file} names no field of ours; did you"),
        ("[codec.fields]\nuser_id = []", "codec.fields.user_id in {file} must be a name of yours"),
        ("[codec.fields]\nuser_id = 3", "codec.fields.user_id in {file} must be a list of texts, not 3"),
        ("[codec.fields]\namount = 'user_id'", "codec.fields.amount in {file} and codec.fields.user_id both"),
        ("[codec.defaults]\nuser_id = 'x'", "codec.defaults.user_id in {file} cannot have a default"),
        ("[codec.defaults]\ncurrency = 'EURO'", "codec.defaults.currency in {file} must be an ISO 4217 currency; did"),
        ("[codec]\nbase_currency = 'XYZ'", "codec.base_currency in {file} must be an ISO 4217 currency"),
        ("[codec.rates]\nUSD = '1'", "codec.rates in {file} needs codec.base_currency"),
        ("[codec]\nbase_currency = 'EUR'\n[codec.rates]\nUSD = '0,9'", "codec.rates.USD in {file} must be a"),
        ("[codec]\nbase_currency = 'EUR'\n[codec.rates]\nUSD = '0'", "codec.rates.USD in {file} must be above 0"),
        ("[codec]\nnaive_time_zone = 'Mars'", "codec.naive_time_zone in {file} must be a time zone of this system"),
        ("[codec.limits]\namount_min = 2\namount_max = 1", "codec.limits.amount_min in {file} must not be above"),
        ("[store]\nurl = 'http://x'", "store.url in {file} must begin with redis://"),
        ("[kafka.properties]\na = []", "kafka.properties.a in {file} must be a text, a number or true / false"),
        ("[kafka", "the settings file {file} is not TOML: "),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_sentence_that_names_the_key_and_the_file(load, tmp_path, toml, sentence):
    with pytest.raises(SettingsError) as error:
        load(toml)
    assert str(error.value).startswith(sentence.format(file=tmp_path / "fraudstream.toml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("KAFKA__GRUP", "x", "FRAUDSTREAM_KAFKA__GRUP is no setting; did you mean FRAUDSTREAM_KAFKA__GROUP?"),
        ("KAFKA__PROPERTIES", "x", "FRAUDSTREAM_KAFKA__PROPERTIES is no setting"),
        ("METRICS__PORT", "x", "metrics.port in FRAUDSTREAM_METRICS__PORT must be a whole number"),
        ("LOG__ID_KEY_FILE", "/nowhere", "the file /nowhere that FRAUDSTREAM_LOG__ID_KEY_FILE names cannot be read"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(variable, value, sentence):
    with pytest.raises(SettingsError) as error:
        load_settings(None, {f"FRAUDSTREAM_{variable}": value})
    assert str(error.value).startswith(sentence)


def test_a_missing_file_is_named():
    with pytest.raises(SettingsError, match=r"the settings file nowhere\.toml does not exist"):
        load_settings(Path("nowhere.toml"), {})


@pytest.mark.parametrize("name", FIXED_PROPERTIES)
@pytest.mark.parametrize("table", ["properties", "consumer", "producer"])
def test_a_property_that_the_guarantees_fix_is_refused_with_the_reason(load, table, name):
    with pytest.raises(SettingsError, match=rf"^kafka\.{table}\.{name} in .* (is fixed, because|set kafka\.)"):
        load(f'[kafka.{table}]\n{name} = "x"')


def test_the_embedded_broker_is_for_at_least_once_and_memory_only(load):
    embedded = {"FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": "embedded"}
    with pytest.raises(SettingsError, match=r'kafka\.delivery must be "at_least_once" on the embedded broker'):
        load("", embedded)
    with pytest.raises(SettingsError, match=r'store\.kind must be "memory" on the embedded broker'):
        load("[kafka]\ndelivery = 'at_least_once'", embedded)
    settings = load("[kafka]\ndelivery = 'at_least_once'\n[store]\nkind = 'memory'", embedded)
    assert settings.embedded
    assert "bootstrap.servers" not in settings.client_properties("consumer")


SECRETS = """
[kafka.properties]
sasl.password = "s3cret-1"
ssl.key.password = "s3cret-2"
sasl.oauthbearer.client.secret = "s3cret-3"
ssl.key.pem = "s3cret-4"
[kafka.producer]
ssl.keystore.password = "s3cret-5"
[store]
url = "redis://user:s3cret-6@p@s@example:6379/0"
[log]
id_key = "s3cret-7"
"""


def test_no_way_of_printing_settings_shows_a_secret(load):
    settings = load(SECRETS)
    masked = settings.masked()
    shown = [repr(settings), str(settings), f"{settings}", json.dumps(masked), repr(masked), str(settings.store.url)]
    shown += [f"{settings.log.id_key}", repr(settings.kafka.properties), "%s" % settings.kafka]  # noqa: UP031 - one more way
    assert not any("s3cret" in text for text in shown)
    assert masked["store"]["url"] == "redis://user:***@example:6379/0"
    assert masked["kafka"]["properties"]["sasl.password"] == "***"
    assert masked["kafka"]["properties"].keys() == settings.kafka.properties.keys()


def test_the_clients_get_the_secrets(load):
    settings = load(SECRETS)
    assert settings.client_properties("producer")["sasl.password"] == "s3cret-1"
    assert settings.client_properties("producer")["ssl.keystore.password"] == "s3cret-5"
    assert settings.store.url.reveal().endswith("s3cret-6@p@s@example:6379/0")
    assert settings.log.id_key.reveal() == "s3cret-7"


def test_an_error_about_a_secret_does_not_quote_it(load):
    for toml in ("[store]\nurl = 's3cret://x'", "[log]\nid_key = 53"):
        with pytest.raises(SettingsError) as error:
            load(toml)
        assert "s3cret" not in str(error.value)
        assert "not 53" not in str(error.value)


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        Settings().kafka.group = "x"


@pytest.mark.parametrize(
    "toml",
    [
        "[codec.fields]\nmerchant_id = 'shop'",
        "[codec.defaults]\ncurrency = 'EUR'",
        "[codec]\nevent_time_unit = 's'",
        "[codec]\nnaive_time_zone = 'UTC'",
        "[codec]\nbase_currency = 'EUR'",
        "[codec]\nbase_currency = 'EUR'\n[codec.rates]\nUSD = '0.9'",
        "[state]\nfields = ['country']",
        "[state]\nretention = '30d'",
        "[state]\nmax_events = 100",
    ],
)
def test_whatever_changes_the_meaning_of_stored_events_changes_the_state_hash(load, toml):
    assert load(toml).state_spec().hash != Settings().state_spec().hash


@pytest.mark.parametrize(
    "toml", ["[codec.fields]\ntraceparent = 'trace'", "[codec.limits]\namount_max = 5", "[worker]\nmax_batch = 5"]
)
def test_whatever_does_not_leaves_it_alone(load, toml):
    assert load(toml).state_spec().hash == Settings().state_spec().hash


def test_the_table_lists_every_setting_with_its_default_and_meaning():
    table = settings_table()
    assert "| `kafka.group` | `fraudstream` | Consumer group; also names the state's place in the store |" in table
    assert "| `state.retention` | `31d` |" in table
    assert "| `codec.limits.max_value_bytes` | `1MiB` |" in table
    keys = {f"{section}.{key}" for section, values in Settings().masked().items() for key in values}
    keys -= {"codec.limits", "registry.gates"}  # tables of their own
    assert all(f"| `{key}` |" in table for key in keys)
    printed = subprocess.run([sys.executable, "-m", "stream.settings"], capture_output=True, text=True, check=True)
    assert printed.stdout == table


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[registry]\nuri = 'ftp://x'", "registry.uri .* must begin with sqlite:///"),
        ("[registry.gates]\nmin_slope = 2", "registry.gates.min_slope .* must not be above registry.gates.max_slope"),
    ],
)
def test_a_registry_that_cannot_be_is_refused(load, toml, says):
    with pytest.raises(SettingsError, match=says):
        load(toml)


def test_everything_that_reading_back_must_outlast_is_named_where_it_is_described_and_refused():
    drift, monitor = DriftSettings(), MonitorSettings()
    reaching = []
    for one in structs.fields(DriftSettings):
        value = getattr(drift, one.name)
        longer = value * 50 if isinstance(value, int) and value else Duration(50 * 86_400_000)
        if memory_ms(structs.replace(drift, **{one.name: longer}), monitor) != memory_ms(drift, monitor):
            reaching.append(f"drift.{one.name}")
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {}, {"monitor.read_back": "1h"})
    (described,) = (row for row in settings_table().splitlines() if row.startswith("| `monitor.read_back`"))
    assert len(reaching) == 7
    for name in reaching:
        assert name in str(refused.value)
        assert name in described
