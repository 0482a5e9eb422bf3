"""Log lines: one JSON document each, floods summarised, nothing of a cardholder and no secret in any of them."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from datetime import datetime

import orjson
import pytest

from state.errors import DamagedRecord, StoreUnavailable
from stream.errors import StartupError
from stream.log_format import JsonFormatter
from stream.logs import LogObserver, configure, hash_id, id_key
from stream.observer import BatchReport
from stream.secret import Secret, SecretUrl

KEY = b"k" * 32
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
USER, TRANSACTION = "cardholder-77", "tx-4000123412341234"


@pytest.fixture
def stream():
    """Logging as a worker sets it up, at debug level, into memory; put back afterwards."""
    root, own = logging.getLogger(), logging.getLogger("fraudstream")
    kept = (root.handlers[:], root.level, own.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    stream = io.StringIO()
    configure("debug", KEY, [Secret("kafka-passphrase"), SecretUrl("redis://u:redis-pass@h:6379/0")], stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    own.setLevel(kept[2])
    sys.excepthook, threading.excepthook, sys.unraisablehook = kept[3:]


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def dead(reason, count, offset):
    return BatchReport(dead_letters={reason: count}, first_dead={reason: (2, offset, "amount")})


def decision(**more):
    return orjson.dumps(
        {
            "transaction_id": TRANSACTION,
            "user_id": USER,
            "decision": "decline",
            "score": 0.97,
            "reasons": [{"feature": "amount_1h", "contribution": 1.5, "text": "1234.56 spent in the last hour"}],
            "partition": 2,
            "offset": 41,
            **more,
        }
    )


def scenario(observer):
    """A worker's life, with what must not be told in every hook that could tell it."""
    observer.started(model="m-1", engine="onnx", feature_set="abc", state="def")
    observer.recovering(2, replay_from=10, live_from=20, reason="assigned")
    observer.assigned([2])
    observer.live(2)
    observer.batch(dead("wrong_type", 1, 40))
    observer.decision(decision(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01"))
    observer.aborted("an output is too large: Broker: Message size too large")
    observer.store_failed("no connection to redis://u:redis-pass@h:6379/0")
    observer.breaker(is_open=True)
    observer.breaker(is_open=False)
    observer.paused([2], "too much is unwritten")
    observer.resumed([2])
    observer.checkpointed(2, users=3, watermark=20, secs=0.1)
    observer.evicted(4)
    observer.revoked([2], lost=False)
    observer.revoked([2], lost=True)
    observer.stopped()


def test_each_event_is_one_line_with_time_level_and_place(stream, clock):
    scenario(LogObserver(KEY, clock))
    told = {line["event"]: line for line in lines(stream)}
    assert list(told) == [
        *("started", "recovering", "assigned", "live", "dead_letters", "decision", "aborted", "store_failed"),
        *("store_back", "paused", "resumed", "checkpointed", "evicted", "revoked", "lost", "stopped"),
    ]
    for line in told.values():
        assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0
        assert line["time"].endswith("Z")
        assert line["message"]
        assert line["logger"] == "fraudstream"
    assert told["recovering"]["partition"] == 2
    assert (told["recovering"]["offset"], told["recovering"]["to"]) == (10, 20)
    assert told["recovering"]["reason"] == "assigned"
    assert told["started"]["model"] == "m-1"
    levels = {event: line["level"] for event, line in told.items()}
    assert levels["checkpointed"] == levels["evicted"] == levels["decision"] == "debug"
    assert levels["aborted"] == levels["lost"] == levels["dead_letters"] == levels["paused"] == "warning"
    assert levels["revoked"] == levels["store_back"] == "info"


def test_ids_amounts_and_secrets_are_in_no_line(stream, clock):
    scenario(LogObserver(KEY, clock))
    logging.getLogger("fraudstream.kafka").warning("authentication with kafka-passphrase failed")
    text = stream.getvalue()
    for hidden in (USER, TRANSACTION, "4000123412341234", "1234.56", "0.97", "redis-pass", "kafka-passphrase"):
        assert hidden not in text
    assert "redis://u:***@h:6379/0" in text
    assert "authentication with *** failed" in text


def test_a_decision_is_told_by_its_place_its_trace_and_hashed_ids(stream, clock):
    observer = LogObserver(KEY, clock)
    observer.decision(decision(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01"))
    observer.decision(decision())
    traced, plain = lines(stream)
    assert (traced["partition"], traced["offset"], traced["trace_id"]) == (2, 41, TRACE)
    assert traced["user"] == hash_id(KEY, USER)
    assert traced["transaction"] == hash_id(KEY, TRANSACTION)
    assert "trace_id" not in plain


def test_the_same_id_has_the_same_hash_under_the_same_key_only():
    assert hash_id(KEY, USER) == hash_id(KEY, USER) != hash_id(KEY, USER + "8")
    assert hash_id(KEY, USER) != hash_id(b"other", USER)
    assert len(hash_id(KEY, USER)) == 16
    assert len(hash_id(KEY, "\ud800")) == 16, "an id of any characters"
    assert id_key(Secret("chosen")) == id_key(Secret("chosen")) == b"chosen"
    assert id_key(Secret("")) != id_key(Secret(""))


def test_a_flood_of_dead_letters_is_one_line_a_second(stream, clock):
    """
    now     0    0.1 … 0.9      1.0        1.5         (idle) 2.0
    batch   5    9 × 5          5          5
    line    5                   50                     5
    """
    observer = LogObserver(KEY, clock)
    for tenth in range(10):
        clock.now = 1000 + tenth / 10
        observer.batch(dead("wrong_type", 5, 100 * tenth))
        observer.turned()
    clock.now = 1001.0
    observer.batch(dead("wrong_type", 5, 1000))
    clock.now = 1001.5
    observer.batch(dead("wrong_type", 5, 1100))
    observer.turned()
    clock.now = 1002.0
    observer.turned()
    observer.turned()
    told = lines(stream)
    assert [line["counts"] for line in told] == [{"wrong_type": 5}, {"wrong_type": 50}, {"wrong_type": 5}]
    assert [line["first"]["wrong_type"]["offset"] for line in told] == [0, 100, 1100]


def test_the_first_dead_letter_of_a_kind_is_told_at_once_with_its_place(stream, clock):
    observer = LogObserver(KEY, clock)
    observer.batch(dead("wrong_type", 1, 7))
    observer.batch(dead("key_mismatch", 2, 8))
    observer.batch(dead("key_mismatch", 2, 10))
    told = lines(stream)
    assert told[1]["counts"] == {"key_mismatch": 2}
    assert told[1]["first"] == {"key_mismatch": {"partition": 2, "offset": 8, "field": "amount"}}
    assert len(told) == 2, "the second of a kind waits for its second to pass"
    observer.stopped()
    assert lines(stream)[2]["counts"] == {"key_mismatch": 2}, "nothing counted is left untold"


def test_a_swap_a_refusal_and_a_registry_that_goes_are_one_line_each(stream, clock):
    observer = LogObserver(KEY, clock)
    observer.swapped(model="b", engine="forest", feature_set="f", former="a", approved_by="ada")
    observer.swap_refused("c", "b", "The bundle c is altered.")
    for _ in range(3):
        observer.followed(failure="There is no registry directory /gone.", is_current=False)
    observer.followed(failure="", is_current=True)
    assert [(line["level"], line["event"], line["message"]) for line in lines(stream)] == [
        ("info", "swapped", "model swapped from a to b, approved by ada"),
        ("error", "swap_refused", "the promoted version is refused and b stays: The bundle c is altered."),
        ("warning", "registry_unreadable", "promotions are not seen: There is no registry directory /gone."),
        ("info", "registry_back", "the registry can be read again"),
    ]


def test_telemetry_that_is_lost_is_one_line_until_it_is_written_again(stream, clock):
    observer = LogObserver(KEY, clock)
    observer.telemetry_written()
    for reason in ("its queue is full", "its queue is full", "Local: Message timed out"):
        observer.telemetry_dropped(reason)
    observer.telemetry_written()
    observer.telemetry_written()
    lost, back = lines(stream)
    assert (lost["event"], lost["level"], lost["reason"]) == ("telemetry_dropped", "warning", "its queue is full")
    assert (back["event"], back["level"], back["lost"]) == ("telemetry_back", "info", 3)


def test_below_its_level_nothing_is_written(stream, clock):
    configure("warning", KEY, (), stream)
    scenario(LogObserver(KEY, clock))
    assert {line["level"] for line in lines(stream)} == {"warning"}


def test_librdkafka_and_warnings_speak_the_same_format(stream):
    logging.getLogger("fraudstream.kafka").log(
        logging.ERROR, "FAIL [%s] %s", "rdkafka#consumer-1", "Connection refused"
    )
    logging.getLogger("numba").debug("chatter of a library")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something is old", DeprecationWarning, stacklevel=1)
    kafka, warned = lines(stream)
    assert (kafka["logger"], kafka["level"]) == ("fraudstream.kafka", "error")
    assert kafka["message"] == "FAIL [rdkafka#consumer-1] Connection refused"
    assert "something is old" in warned["message"]


def crash(error):
    """The line of an exception, raised from a cause that quotes a record."""
    try:
        try:
            {}[USER]
        except KeyError as cause:
            raise error from cause
    except type(error):
        record = logging.LogRecord("fraudstream", logging.ERROR, "", 0, "it broke", (), sys.exc_info())
    return json.loads(JsonFormatter(KEY, [Secret("kafka-passphrase")]).format(record))


def test_an_exception_is_one_line_that_keeps_its_places_and_not_its_data():
    line = crash(ValueError(f"can't read 'it\\'s {TRANSACTION}' or b\"{USER}\" of 1234.56, kafka-passphrase"))
    assert line["error"] == "ValueError"
    assert "KeyError: …" in line["traceback"]
    assert "ValueError: can't read … or … of …, ***" in line["traceback"]
    assert "in crash" in line["traceback"]
    assert line["traceback"].index("KeyError") < line["traceback"].index("ValueError: ")
    for hidden in (USER, TRANSACTION, "1234.56"):
        assert hidden not in json.dumps(line)


def test_sentences_of_our_own_are_kept_but_for_the_key_of_a_stored_user():
    assert "Set kafka.group to 'a'." in crash(StartupError("Set kafka.group to 'a'."))["traceback"]
    assert "port 6379" in crash(StoreUnavailable("nothing answers on port 6379"))["traceback"]
    damaged = crash(DamagedRecord(f"fraudstream:3:{USER}", "is cut short"))["traceback"]
    assert f"the stored record {hash_id(KEY, f'fraudstream:3:{USER}')} is cut short" in damaged
    assert USER not in damaged


@pytest.mark.parametrize("stem", ["app:{00f1e2d3c4b5a697:3}:tok_n-tok_n1:", "var/state.sqlite:00f1e2d3c4b5a697:12:"])
def test_a_sentence_that_names_a_stored_user_tells_where_it_is_and_hashes_the_id(stem):
    """As the worker logs what it ends with; the hash is the one that the user has in every other line."""
    damaged = DamagedRecord(stem + USER, "is cut short")
    record = logging.LogRecord("fraudstream", logging.CRITICAL, "", 0, "%s", (damaged,), None)
    told = json.loads(JsonFormatter(KEY).format(record))["message"]
    assert told == f"the stored record {stem}{hash_id(KEY, USER)} is cut short; rebuild its partition from the log"


def test_what_json_cannot_hold_is_written_all_the_same():
    record = logging.LogRecord("fraudstream", logging.INFO, "", 0, "a lone \ud800", (), None)
    record.password = Secret("hush-hush")
    line = json.loads(JsonFormatter(KEY).format(record))
    assert line["password"] == "***"
    assert line["message"] == "a lone \ud800"


@pytest.mark.parametrize("where", ["main", "thread"])
def test_an_unexpected_exception_ends_in_one_line_and_no_bare_traceback(where):
    program = f"""
import threading
from stream.logs import configure
configure("info", b"key")
def work():
    raise RuntimeError("broke on '{USER}'")
if {where!r} == "main":
    work()
thread = threading.Thread(target=work, name="commit"); thread.start(); thread.join()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    (line,) = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (line["event"], line["level"], line["error"]) == ("crashed", "critical", "RuntimeError")
    assert "in work" in line["traceback"]
    assert "RuntimeError: broke on …" in line["traceback"]
    assert ended.returncode == (1 if where == "main" else 0)
