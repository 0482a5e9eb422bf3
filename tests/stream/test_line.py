"""The whole line on a real broker: every record a decision or a dead letter, exactly once."""

from collections.abc import Iterator

import pytest

from committed import wait_until_committed
from kafka_topics import Topics
from line_output import create_line, read_line
from redis_server import RedisServer
from traffic import traffic
from worker_process import WorkerProcess

pytestmark = pytest.mark.kafka


@pytest.fixture
def workers() -> Iterator[list[WorkerProcess]]:
    """Append workers here; whatever happens, none outlives the test."""
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        worker.close()


def base_settings(topics: Topics, bundle: str, **more: object) -> dict[str, object]:
    return {
        "kafka.bootstrap_servers": topics.bootstrap,
        "kafka.session_timeout_ms": 3000,
        "kafka.transaction_timeout_ms": 3000,
        "model.bundle": str(bundle),
        "log.level": "warning",
        "metrics.enabled": False,
        **more,
    }


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
def test_every_record_becomes_one_decision_or_one_dead_letter(
    topics: Topics, redis: RedisServer, model_bundle, tmp_path, workers, store, delivery
):
    line = create_line(topics)
    sent = topics.produce(line.transactions, traffic(3_000))
    settings = base_settings(topics, model_bundle) | line.settings()
    settings |= {
        "kafka.group": f"line-{line.decisions}",
        "kafka.delivery": delivery,
        "store.kind": store,
        "store.path": str(tmp_path / "state.sqlite"),
        "store.url": redis.url,
    }
    worker = WorkerProcess(settings)
    workers.append(worker)
    wait_until_committed(topics, settings["kafka.group"], line.transactions, [worker])
    assert worker.stop() == 0

    output = read_line(topics, line)

    assert output.repeated == []
    assert output.decisions.keys() | output.dead_letters.keys() == {(r.partition, r.offset) for r in sent}
    assert not output.decisions.keys() & output.dead_letters.keys()
    assert output.features.keys() == output.decisions.keys()
    by_place = {(r.partition, r.offset): r for r in sent}
    for place, (key, value, _) in output.dead_letters.items():
        assert (key, value) == (by_place[place].key, by_place[place].value)
