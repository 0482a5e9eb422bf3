"""Whatever happens in between, the output equals that of an undisturbed run: nothing lost, nothing doubled.

Equal means decisions, dead letters and feature rows by source partition and offset, everything but scored_at; where the
model was exchanged in between, each decision is that of the version it names.
"""

import itertools
from pathlib import Path

import pytest

from disturbed import POINTS, crew, undisturbed
from kafka_topics import Topics
from line_output import LineOutput
from models.bundle import Bundle
from small_models import promote, small_model
from storm import Storm, Weather
from traffic import traffic

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SESSION_MS = 3_000
TREES = 300  # of each library; the suite's own run takes small ones

#: What disturbs the suite's run, each once; `make chaos` has many of each.
ONCE = (
    "broker_restarted",
    "broker_crashed",
    "store_restarted",
    "store_wiped",
    "store_slow",
    "store_unreachable",
    "way_to_the_store_cut",
    "broker_slow",
    "broker_unreachable",
    "way_to_the_broker_cut",
    "worker_frozen",
    "worker_joined_and_left",
)
OFTEN = {
    **dict.fromkeys(ONCE, 10),
    "broker_restarted": 10,
    "broker_crashed": 10,
    "store_restarted": 20,
    "store_wiped": 5,
    "worker_joined_and_left": 40,
}


@pytest.fixture
def bundles(tmp_path: Path, chaos: bool) -> list[Bundle]:
    more = {"rounds": TREES, "rows": 20_000} if chaos else {}
    return [small_model(tmp_path / str(seed), seed, **more) for seed in (1, 2)]


def test_a_storm_of_everything_leaves_no_trace(
    proxied_kafka, proxied_redis, bundles, tmp_path, chaos, chaos_seed, capsys
):
    events, weather = (1_000_000, Weather(100, OFTEN)) if chaos else (20_000, Weather(5, dict.fromkeys(ONCE, 1)))
    (kafka, to_kafka), (redis, to_redis) = proxied_kafka, proxied_redis
    topics = Topics(kafka.bootstrap)
    registry = tmp_path / "registry"
    promote(registry, bundles[0])
    settings = {
        "kafka.bootstrap_servers": f"127.0.0.1:{to_kafka.port}",
        "kafka.session_timeout_ms": SESSION_MS,
        "kafka.transaction_timeout_ms": 3_000,
        "store.kind": "redis",
        "store.url": f"redis://127.0.0.1:{to_redis.port}/0",
        "store.checkpoint_interval_ms": 200,
        "worker.max_batch": 256,
        "model.follow": str(registry),
        "model.poll_interval": "50ms",
        "metrics.enabled": False,
    }
    source = topics.create("transactions")
    rows = traffic(events, seed=chaos_seed)

    def shares(steps: int):
        for number in range(steps):
            if number == steps // 2:
                promote(registry, bundles[1])
            size = events * (number + 1) // steps - events * number // steps
            yield lambda size=size: topics.produce(source, itertools.islice(rows, size))

    with crew(topics, source, settings) as shaken:
        storm = Storm(
            shaken, kafka, redis, to_kafka, to_redis, SESSION_MS / 1000, chaos_seed,
            lambda name: {"model.cache": str(tmp_path / name)},
        )  # fmt: skip
        storm.rage(weather, shares)
        output = shaken.finish(timeout_secs=120 + events / 500, ended=storm.ended)

    with capsys.disabled():
        print(f"\n{events:,} events, seed {chaos_seed}\n{table(storm.happened)}")
    calm_settings = settings | {"kafka.bootstrap_servers": topics.bootstrap, "worker.max_batch": 2048}
    calm = {
        bundle.version: undisturbed(
            topics, source, calm_settings | {"model.follow": "", "model.bundle": str(bundle.directory)}
        )
        for bundle in bundles
    }
    assert output.differences(of_versions_named(output, calm)) == []
    assert len(output.decisions) + len(output.dead_letters) == events
    assert {decision["model"] for decision in output.decisions.values()} == calm.keys()
    assert all(storm.happened[f"killed: {way}"] for way in (*POINTS, "random")), storm.happened
    assert sum(count for what, count in storm.happened.items() if what.startswith("killed")) >= weather.kills


def of_versions_named(output: LineOutput, calm: dict[str, LineOutput]) -> LineOutput:
    """Return the undisturbed runs' output with each decision of the version that `output` names at its place."""
    first = next(iter(calm.values()))
    named = {place: decision["model"] for place, decision in output.decisions.items()}
    decisions = {
        place: calm[named.get(place, decision["model"])].decisions[place] for place, decision in first.decisions.items()
    }
    return LineOutput(decisions, first.dead_letters, first.features, [])


def table(happened) -> str:
    return "\n".join(f"{what:<40}{count:>6}" for what, count in sorted(happened.items()))
