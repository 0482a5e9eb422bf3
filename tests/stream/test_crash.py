"""Whatever crashes in between, the output equals that of an undisturbed run: nothing lost, nothing doubled.

Equal means decisions, dead letters and feature rows by source partition and offset, everything but scored_at.
"""

from collections.abc import Callable

import pytest

from disturbed import POINTS, crew, kill_again_and_again, undisturbed
from kafka_topics import Topics
from redis_server import RedisServer
from traffic import traffic

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SEED = 20260101


@pytest.fixture
def settings(model_bundle) -> Callable[..., dict[str, object]]:
    def make(topics: Topics, redis: RedisServer, **more: object) -> dict[str, object]:
        return {
            "kafka.bootstrap_servers": topics.bootstrap,
            "kafka.session_timeout_ms": 3000,
            "kafka.transaction_timeout_ms": 3000,
            "store.kind": "redis",
            "store.url": redis.url,
            "store.checkpoint_interval_ms": 200,
            "worker.max_batch": 256,
            "model.bundle": str(model_bundle),
            "metrics.enabled": False,
            **more,
        }

    return make


def test_kills_at_every_point_and_moment_leave_no_trace(
    topics: Topics, redis: RedisServer, settings, chaos_kills, chaos_events, capsys
):
    source = topics.create("transactions")
    topics.produce(source, traffic(chaos_events, seed=SEED))
    calm = undisturbed(topics, source, settings(topics, redis) | {"worker.max_batch": 2048})

    with crew(topics, source, settings(topics, redis)) as shaken:
        kills = kill_again_and_again(shaken, ["w1", "dynamic-2"], chaos_kills, SEED)
        output = shaken.finish(timeout_secs=60 + chaos_events / 500)

    with capsys.disabled():
        print(f"\n{chaos_events} events, {kills.total} kills, seed {SEED}\n{kills.table()}")
    assert output.differences(calm) == []
    assert len(output.decisions) + len(output.dead_letters) == chaos_events
    assert kills.total >= chaos_kills
    assert all(kills.counts[point] for point in (*POINTS, "random")), kills.counts
