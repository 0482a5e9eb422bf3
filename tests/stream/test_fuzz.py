"""Hostile records through the whole line on a real broker: no crash, every one a decision or a dead letter."""

import hostile
import pytest

from committed import wait_until_committed
from kafka_topics import Row, Topics
from line_output import create_line, read_line
from worker_process import WorkerProcess

pytestmark = pytest.mark.kafka


def test_whatever_arrives_becomes_a_decision_or_a_dead_letter(topics: Topics, model_bundle, fuzzed, chaos_seed):
    line = create_line(topics)
    rows = (Row(r.key(), r.value(), timestamp_ms=hostile.NOW_MS) for r in hostile.messages(chaos_seed, fuzzed))
    sent = topics.produce(line.transactions, rows)
    group = f"fuzz-{line.decisions}"
    worker = WorkerProcess(
        line.settings()
        | {
            "kafka.bootstrap_servers": topics.bootstrap,
            "kafka.group": group,
            "store.kind": "memory",
            "model.bundle": str(model_bundle),
            "metrics.enabled": False,
        }
    )
    try:
        wait_until_committed(topics, group, line.transactions, [worker], timeout_secs=180 + fuzzed / 1_000)
        assert worker.stop() == 0, worker.errors[-2000:]
    finally:
        worker.close()

    output = read_line(topics, line)

    assert output.repeated == []
    assert len(sent) == fuzzed
    places = {(record.partition, record.offset): record for record in sent}
    assert output.decisions.keys() | output.dead_letters.keys() == places.keys()
    assert not output.decisions.keys() & output.dead_letters.keys()
    assert len(output.decisions) > fuzzed // 10
    assert len(output.dead_letters) > fuzzed // 10
    assert all((places[at].key, places[at].value) == letter[:2] for at, letter in output.dead_letters.items())
