"""The worker as a process: it stops within its deadline, whoever does not answer."""

import io
import json
import logging
import signal
import threading
import time

import pytest

import stream.signals
from command import Command
from kafka_topics import Topics
from line_output import create_line
from traffic import payments

DEADLINE_MS = 2_000


class Interrupted(io.RawIOBase):
    """A log file: a signal arrives while the first line is written to it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.lines.append(bytes(data))
        if len(self.lines) == 1:
            signal.raise_signal(signal.SIGTERM)
        return len(data)


class Stoppable:
    """What a worker is to its signals. The lock is not reentrant, as an Event's is not."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()


def test_a_signal_amid_a_log_line_is_not_lost(caplog):
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    file, app = Interrupted(), Stoppable()
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(file), write_through=True))
    logger = logging.getLogger("fraudstream")
    logger.addHandler(handler)
    caplog.set_level(logging.INFO, "fraudstream")  # the logger remembers what it was asked before
    try:
        stream.signals.stop_on_signals(app.stop, deadline_secs=3_600)
        logger.info("a line")
        assert app.stopped.wait(10), "the signal was lost"
        assert b"asked to stop\n" in file.lines
    finally:
        logger.removeHandler(handler)
        for number, former in kept.items():
            signal.signal(number, former)


@pytest.mark.kafka
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
