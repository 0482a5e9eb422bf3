"""Prometheus' view of the worker: exact counts, ages at the scrape, nothing of partitions given up."""

import math
import os
import shutil
import subprocess
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from stream.metrics import LATENCY_SECS, PrometheusObserver
from stream.observer import BatchReport, Observers
from stream.tally import Histogram, quantile


@pytest.fixture
def observer(clock):
    return PrometheusObserver(clock, started_at=1_700_000_000.0)


def shown(observer):
    """What a scrape shows: {name{label=value,…}: number}."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(observer.registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def hold(observer, *partitions):
    """The hooks of an assignment, in the order in which the worker calls them."""
    for number in partitions:
        observer.recovering(number, replay_from=10, live_from=20, reason="assigned")
    observer.assigned(list(partitions))
    for number in partitions:
        observer.live(number)


def full_report(events=4):
    return BatchReport(
        events=events,
        replayed=3,
        latency_ms=np.arange(1.0, events + 1),
        stage_secs={"consume": 0.01, "decode": 0.002, "score": 0.004},
        dead_letters={"invalid_json": 2, "key_mismatch": 1},
        outcomes={"approve": events - 2, "review": 1, "decline": 1},
        flags={"late": 1, "duplicate": 2},
    )


def busy(observer):
    """Everything that can happen, once."""
    observer.started(model="m-1", engine="onnx", feature_set="abc", state="def")
    hold(observer, 0, 3)
    observer.batch(full_report())
    observer.committed(0.004)
    observer.aborted("the broker refused")
    observer.position(3, committed=120, lag=30)
    observer.memory(3, users=7, size_bytes=4096, events=70, unwritten=5)
    observer.loaded(11, 0.001)
    observer.evicted(2)
    observer.checkpointed(3, users=5, watermark=100, secs=0.02)
    observer.store_failed("no connection")
    observer.paused([0], "the store is not available")
    observer.preparing("m-2")
    observer.prepared("m-2", 0.75)
    observer.swapped(model="m-2", engine="forest", feature_set="xyz", former="m-1", approved_by="ada")
    observer.swap_refused("m-3", "m-2", "altered")
    observer.window_kernel(feature_set="xyz", failure="No space left on device")
    observer.followed(failure="", is_current=False)
    observer.telemetry_written()
    observer.telemetry_dropped("its queue is full")


def test_every_hook_is_counted_where_its_name_says(observer):
    busy(observer)
    found = shown(observer)
    expected = {
        "fraudstream_events_total": 4,
        "fraudstream_replayed_events_total": 3,
        "fraudstream_decisions_total{decision=approve}": 2,
        "fraudstream_decisions_total{decision=decline}": 1,
        "fraudstream_dead_letters_total{reason=invalid_json}": 2,
        "fraudstream_dead_letters_total{reason=empty_value}": 0,
        "fraudstream_flagged_events_total{flag=duplicate}": 2,
        "fraudstream_flagged_events_total{flag=conflict}": 0,
        "fraudstream_batch_records_count": 1,
        "fraudstream_batch_records_sum": 4 + 3 + 3,
        "fraudstream_stage_seconds_sum{stage=decode}": 0.002,
        "fraudstream_commits_total": 1,
        "fraudstream_commit_seconds_sum": 0.004,
        "fraudstream_aborts_total": 1,
        "fraudstream_consumer_lag_records{partition=3}": 30,
        "fraudstream_committed_offset{partition=3}": 120,
        "fraudstream_watermark_offset{partition=3}": 100,
        "fraudstream_watermark_offset{partition=0}": 10,
        "fraudstream_state_users{partition=3}": 7,
        "fraudstream_state_bytes{partition=3}": 4096,
        "fraudstream_state_events{partition=3}": 70,
        "fraudstream_state_unwritten_users{partition=3}": 5,
        "fraudstream_loaded_users_total": 11,
        "fraudstream_evicted_users_total": 2,
        "fraudstream_store_failures_total": 1,
        "fraudstream_store_breaker_open": 1,
        "fraudstream_partition_paused{partition=0}": 1,
        "fraudstream_paused_partitions": 1,
        "fraudstream_assigned_partitions": 2,
        "fraudstream_live_partitions": 2,
        "fraudstream_model_info{engine=forest,feature_set=xyz,model=m-2,state=def}": 1,
        "fraudstream_telemetry_written_total": 1,
        "fraudstream_telemetry_dropped_total": 1,
        "fraudstream_model_swaps_total{outcome=swapped}": 1,
        "fraudstream_model_swaps_total{outcome=refused}": 1,
        "fraudstream_model_current": 0,
        "fraudstream_registry_readable": 1,
        "fraudstream_general_kernel": 1,
        "fraudstream_model_load_seconds_sum": 0.75,
        "fraudstream_start_time_seconds": 1_700_000_000.0,
        "fraudstream_worker_up": 1,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_latency_is_counted_into_the_bucket_whose_bound_it_meets_exactly(observer):
    bounds_ms = [round(bound * 1000, 1) for bound in LATENCY_SECS]
    for size in (1, 200):  # few values take another way than many
        observer.batch(BatchReport(events=size, latency_ms=np.tile(np.array(bounds_ms), size)))
    found = shown(observer)
    for place, bound in enumerate(LATENCY_SECS):
        assert found[f"fraudstream_decision_latency_seconds_bucket{{le={bound}}}"] == 201 * (place + 1)


@given(
    st.lists(
        st.lists(st.floats(-5, 100, allow_nan=False) | st.sampled_from([0.0, 1.0, 2.5, 60.0]), max_size=40), max_size=6
    )
)
@example([[-5.0, 1.0] * 20])
@settings(deadline=None)
def test_a_histogram_equals_one_that_counts_every_value_by_itself(batches):
    bounds = [0.0, 1.0, 2.5, 10.0, 60.0]
    fast, naive, total = Histogram(bounds), [0] * 6, 0.0
    for batch in batches:
        fast.add_all(np.array(batch, np.float64))
        for value in batch:
            naive[bisect_left(bounds, max(0.0, value))] += 1
            total += max(0.0, value)
        assert [count for _, count in fast.buckets] == np.cumsum(naive).tolist()
        assert fast.sum == pytest.approx(total)


@pytest.mark.parametrize(("q", "expected"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (0.8, 5.0), (0.99, 5.0)])
def test_a_quantile_is_interpolated_within_its_bucket(q, expected):
    # Of 20 values 10 lie up to 1 and 10 up to 5; for the last two rows, 4 of those lie beyond every bound.
    bounds, cumulative = [1.0, 5.0, math.inf], [10.0, 20.0 if q < 0.8 else 16.0, 20.0]
    assert quantile(q, bounds, cumulative) == pytest.approx(expected)


def test_a_quantile_of_nothing_is_no_number():
    assert math.isnan(quantile(0.5, [1.0, math.inf], [0.0, 0.0]))
    assert math.isnan(quantile(0.5, [], []))


def test_series_of_revoked_partitions_disappear_and_do_not_come_back_by_a_late_word(observer):
    hold(observer, 0, 3)
    observer.revoked([3], lost=False)
    observer.checkpointed(3, users=1, watermark=50, secs=0.1)
    observer.position(3, committed=1, lag=1)
    observer.memory(3, users=1, size_bytes=1, events=1, unwritten=0)
    names = [name for name in shown(observer) if "partition=" in name]
    assert names
    assert all("partition=0" in name for name in names)
    assert shown(observer)["fraudstream_assigned_partitions"] == 1


def test_a_stopped_worker_is_not_up_and_holds_nothing(observer):
    hold(observer, 0)
    observer.stopped()
    found = shown(observer)
    assert found["fraudstream_worker_up"] == 0
    assert found["fraudstream_assigned_partitions"] == 0
    assert not [name for name in found if "partition=" in name]


def test_checkpoint_age_grows_only_while_there_is_something_to_store(observer, clock):
    def age():
        return shown(observer)["fraudstream_checkpoint_age_seconds{partition=0}"]

    hold(observer, 0)
    clock.now += 4
    assert age() == 4
    observer.checkpointed(0, users=3, watermark=30, secs=0.1)
    assert age() == 0
    clock.now += 3
    observer.position(0, committed=30, lag=0)
    observer.memory(0, users=3, size_bytes=1, events=1, unwritten=2)
    assert age() == 3, "changed users wait to be written"
    observer.memory(0, users=3, size_bytes=1, events=1, unwritten=0)
    assert age() == 0, "everything is stored: an idle partition is not late"
    clock.now += 5
    observer.position(0, committed=31, lag=0)
    observer.memory(0, users=3, size_bytes=1, events=1, unwritten=0)
    assert age() == 5, "the watermark is behind the committed offset"


def test_a_partition_that_recovers_is_not_live_nor_paused_until_it_is_told(observer):
    hold(observer, 0)
    observer.paused([0], "too much is unwritten")
    observer.recovering(0, replay_from=10, live_from=40, reason="aborted")
    found = shown(observer)
    assert found["fraudstream_partition_live{partition=0}"] == 0
    assert found["fraudstream_partition_paused{partition=0}"] == 0
    observer.live(0)
    assert shown(observer)["fraudstream_partition_live{partition=0}"] == 1


def test_a_worker_that_follows_nothing_is_current_and_one_without_its_registry_says_so(observer):
    assert shown(observer)["fraudstream_model_current"] == 1
    assert shown(observer)["fraudstream_registry_readable"] == 1
    observer.followed(failure="There is no registry directory", is_current=False)
    assert shown(observer)["fraudstream_registry_readable"] == 0
    observer.followed(failure="", is_current=True)
    assert shown(observer)["fraudstream_registry_readable"] == shown(observer)["fraudstream_model_current"] == 1


def test_the_breaker_closes_again(observer):
    observer.store_failed("no connection")
    observer.breaker(is_open=False)
    assert shown(observer)["fraudstream_store_breaker_open"] == 0


def test_it_can_be_one_of_several_observers(observer):
    busy(Observers(observer, PrometheusObserver()))
    assert shown(observer)["fraudstream_events_total"] == 4


def test_open_metrics_can_be_parsed_and_says_the_same(observer):
    busy(observer)
    values = {
        sample.name: sample.value
        for family in parse_open_metrics(open_metrics(observer.registry).decode())
        for sample in family.samples
    }
    assert values["fraudstream_events_total"] == 4
    assert values["fraudstream_model_info"] == 1


def test_promtool_finds_nothing_to_say(observer):
    promtool = shutil.which("promtool")
    if promtool is None:
        reason = "promtool is missing: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    for told in (lambda: None, lambda: busy(observer)):
        told()
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=generate_latest(observer.registry), capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
