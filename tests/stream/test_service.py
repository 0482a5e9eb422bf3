"""The worker as a process: it stops within its deadline, whoever does not answer."""

import json
import signal
import time

import pytest

from command import Command
from kafka_topics import Topics
from line_output import create_line
from traffic import payments

pytestmark = pytest.mark.kafka

DEADLINE_MS = 2_000


def test_a_worker_asked_to_stop_ends_within_its_deadline_though_the_broker_hangs(own_kafka, tmp_path, model_bundle):
    topics = Topics(own_kafka.bootstrap)
    names = create_line(topics)
    command = Command(tmp_path)
    command.settings(
        f"[kafka]\nbootstrap_servers = '{own_kafka.bootstrap}'\n[model]\nbundle = '{model_bundle}'\n"
        f"[metrics]\nport = 0\n[worker]\nshutdown_timeout_ms = {DEADLINE_MS}\n[topics]\n"
        + "".join(f"{key.split('.')[1]} = '{name}'\n" for key, name in names.settings().items())
    )
    process = command.start("worker")
    try:
        for text in process.stderr:
            if json.loads(text)["event"] == "assigned":
                break
        topics.produce(names.transactions, payments(20_000))
        own_kafka.suspend()
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        _, err = process.communicate(timeout=60)
        took = time.monotonic() - asked
    finally:
        own_kafka.resume()
        process.kill()
        process.communicate()

    assert process.returncode == 1, err
    assert DEADLINE_MS / 1000 <= took < DEADLINE_MS / 1000 + 10
    assert any(json.loads(text)["event"] == "overdue" for text in err.splitlines())
