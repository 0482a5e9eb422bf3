"""SIGTERM ends the monitor in every state, well before the deadline at which the process is ended at once."""

import time

from confluent_kafka import Producer

from kafka_server import free_port
from monitor_log import Story, telemetry
from monitor_scene import scene_on
from stream.monitor_readback import LogReader
from stream.settings import load_settings

START_MS = 1_700_000_000_000
STOP_SECS = 12.0


def stopped(monitor):
    """Stop; return the exit code and the events after the request."""
    began = time.monotonic()
    code = monitor.stop(2 * STOP_SECS)
    assert time.monotonic() - began < STOP_SECS, monitor.errors[-3000:]
    events = [line["event"] for line in monitor.lines]
    assert "Traceback" not in monitor.errors, monitor.errors
    return code, events[events.index("stopping") :]


def test_it_stops_while_no_broker_answers(watched_registry, tmp_path):
    with scene_on(None, watched_registry, tmp_path) as scene:
        monitor = scene.start(kafka__bootstrap_servers=f"127.0.0.1:{free_port()}", worker__shutdown_timeout_ms=10_000)
        monitor.wait_for("serving")
        assert stopped(monitor) == (0, ["stopping", "stopped"])


def test_it_stops_while_another_is_active(scene):
    first = scene.start()
    first.wait_for("caught_up")
    second = scene.start()
    second.wait_for("standby")
    assert stopped(second) == (0, ["stopping", "stopped"])
    assert stopped(first) == (0, ["stopping", "stopped"])


def test_it_stops_while_it_reads_back(scene, watched_bundle):
    """An open transaction among what was committed: reading back waits for its end."""
    rows = list(telemetry(watched_bundle, Story(START_MS, 20)))
    scene.topics.produce(scene.names["telemetry"], rows)
    producer = Producer(
        {"bootstrap.servers": scene.topics.bootstrap, "transactional.id": f"open-{scene.names['telemetry']}"}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(scene.names["telemetry"], rows[0].value, timestamp=rows[-1].timestamp_ms)
    assert producer.flush(30) == 0
    settings = {key: value for key, value in scene.settings.items() if isinstance(key, str)}
    with LogReader(load_settings(None, {}, settings)) as reader:
        assert reader.commit(scene.names["telemetry"], len(rows) + 1)
    monitor = scene.start()
    monitor.wait_for("reading_back")
    status, answer = monitor.get("/readyz")
    assert (status, "read back" in answer) == (503, True)
    assert stopped(monitor) == (0, ["stopping", "stopped"])
    producer.abort_transaction(30)


def test_it_stops_while_the_broker_is_away(own_kafka, watched_registry, tmp_path):
    with scene_on(own_kafka.bootstrap, watched_registry, tmp_path) as scene:
        monitor = scene.start(worker__shutdown_timeout_ms=10_000)
        monitor.wait_for("caught_up")
        own_kafka.kill()
        code, events = stopped(monitor)
        assert "overdue" not in events
        assert code in (0, 1)
