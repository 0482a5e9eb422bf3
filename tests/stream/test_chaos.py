"""Whatever happens in between, the output equals that of an undisturbed run: nothing lost, nothing doubled.

Equal means decisions, dead letters and feature rows by source partition and offset, everything but scored_at; where the
model was exchanged in between, each decision is that of the version it names.
"""

import itertools
from pathlib import Path

import pytest

from disturbed import crew, undisturbed
from kafka_topics import Topics
from line_output import LineOutput
from models.bundle import Bundle
from small_models import promote, small_model
from state.features import StateSpec, default_feature_set
from storm import TOLD, WAYS, Storm, Weather
from traffic import traffic

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SESSION_MS = 3_000
TREES = 300  # of each library; the suite's own run takes small ones

#: What disturbs the suite's run, each once; `make chaos` has many of each.
ONCE = dict.fromkeys(
    (
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
        "guests_came_and_went",
    ),
    1,
)
OFTEN = {**dict.fromkeys(ONCE, 10), "store_restarted": 20, "store_wiped": 5, "guests_came_and_went": 1}

BRIEF = Weather(5, ONCE, rounds=2, round_secs=1)
LONG = Weather(100, OFTEN, rounds=120, round_secs=5, insists=True)  # guests for ten minutes

#: Windows of a worker, far less than all users take, so that they leave memory and come back from the store; and how
#: fast event time goes: the million events of `make chaos` span 58 days, and so leave every window and the retention.
MEMORY, LONG_MEMORY = "256KiB", "4MiB"
STEP_MS, LONG_STEP_MS = 2_000, 10_000

#: How late payments of the long storm are at most: as late as the retention allows for. Once a wiped store was rebuilt
#: from where the log covers the retention, windows at an earlier time may lack what lies before (stream.coverage).
LONG_LATE_MS = StateSpec().retention_ms - max(feature.window_ms for feature in default_feature_set().features)


@pytest.fixture
def bundles(tmp_path: Path, chaos: bool) -> list[Bundle]:
    more = {"rounds": TREES, "rows": 20_000} if chaos else {}
    return [small_model(tmp_path / str(seed), seed, **more) for seed in (1, 2)]


def test_a_storm_of_everything_leaves_no_trace(
    proxied_kafka, proxied_redis, bundles, tmp_path, chaos, chaos_seed, capsys
):
    with capsys.disabled():
        print(f"\nseed {chaos_seed}")
    events, weather = (1_000_000, LONG) if chaos else (20_000, BRIEF)
    (kafka, to_kafka), (redis, to_redis) = proxied_kafka, proxied_redis
    topics = Topics(kafka.bootstrap)
    registry = tmp_path / "registry"
    promote(registry, bundles[0])
    others = itertools.cycle(reversed(bundles))
    settings = {
        "kafka.bootstrap_servers": f"127.0.0.1:{to_kafka.port}",
        "kafka.session_timeout_ms": SESSION_MS,
        "kafka.transaction_timeout_ms": 3_000,
        "store.kind": "redis",
        "store.url": f"redis://127.0.0.1:{to_redis.port}/0",
        "store.checkpoint_interval_ms": 200,
        "state.memory_limit_bytes": LONG_MEMORY if chaos else MEMORY,
        "worker.max_batch": 256,
        # A broker that restarts twice in a row can forget to expire a member that is no more: its group then waits this
        # long for it, and the storm no longer than that.
        "kafka.consumer": {"max.poll.interval.ms": "45000"},
        "model.follow": str(registry),
        "model.poll_interval": "50ms",
        "metrics.enabled": False,
    }
    source = topics.create("transactions")
    step_ms, late_ms = (LONG_STEP_MS, LONG_LATE_MS) if chaos else (STEP_MS, None)
    rows = traffic(2 * events, seed=chaos_seed, step_ms=step_ms, late_ms=late_ms)
    sent: list[int] = []

    def send(size: int) -> None:
        sent.append(len(topics.produce(source, itertools.islice(rows, size))))

    with crew(topics, source, settings) as shaken:
        storm = Storm(
            shaken, kafka, redis, to_kafka, to_redis, SESSION_MS / 1000, chaos_seed,
            lambda name: {"model.cache": str(tmp_path / name)}, send, lambda: promote(registry, next(others)), tmp_path,
        )  # fmt: skip
        try:
            storm.rage(weather, events)
            output = shaken.finish(ended=storm.ended)
        finally:
            storm.sum_up()
            with capsys.disabled():
                print(f"{sum(sent):,} events, seed {chaos_seed}\n{table(storm.happened)}")
    calm_settings = settings | {
        "kafka.bootstrap_servers": topics.bootstrap,
        "worker.max_batch": 2048,
        "state.memory_limit_bytes": "1GiB",
    }
    calm = {
        bundle.version: undisturbed(
            topics,
            source,
            calm_settings | {"model.follow": "", "model.bundle": str(bundle.directory)},
            180 + events / 500,
        )
        for bundle in bundles
    }
    assert output.differences(of_versions_named(output, calm)) == []
    assert len(output.decisions) + len(output.dead_letters) == sum(sent) >= events
    assert {decision["model"] for decision in output.decisions.values()} == calm.keys()
    assert all(storm.happened[f"killed: {way}"] == weather.kills // len(WAYS) for way in WAYS), storm.happened
    rounds = weather.rounds * weather.counts["guests_came_and_went"]
    assert storm.happened["guests that were handed partitions"] == rounds
    assert storm.count("ended by itself") <= storm.disturbances
    if chaos:  # in a short storm each may be missing, where nobody was at it at that moment
        effects = (*(f"told: {what.replace('_', ' ')}" for what in TOLD), "zombies that lost their partitions")
        assert all(storm.happened[effect] for effect in effects), storm.happened


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
