"""Telemetry that fits nothing and clocks that go wrong are set aside and counted; they raise and disturb nothing."""

import msgspec
import pytest

from stream import watch_clock
from stream.telemetry_record import Counts, Sample, decode_telemetry, encode_telemetry
from stream.watch import memory_ms
from watched_traffic import (
    DRIFT,
    GRACE_INTERVALS,
    INTERVAL_MS,
    MONITOR,
    REFERENCE,
    TelemetryStream,
    at,
    inflated,
    run,
    said,
    watch,
)


def test_an_unknown_model_is_set_aside_raised_once_and_ended_when_its_reference_comes():
    known = []
    stream = list(TelemetryStream(intervals=60, model="x1", reference="0" * 16))
    watched, alerts = run(stream, watch(references=lambda version: known[0] if known else None))
    assert said(alerts) == [("raised", "unknown_model", "x1")]
    assert watched.snapshot().unknown_models == ("x1",)
    assert watched.snapshot().totals.set_aside == {"unknown_model": 2 * (60 - GRACE_INTERVALS)}
    assert watched.snapshot().mix[""].events > 0
    known.append(REFERENCE)
    later = [
        (msgspec.structs.replace(record, model="x1"), timestamp)
        for record, timestamp in list(TelemetryStream(intervals=80))[120:]
    ]
    _, alerts = run(later, watched)
    assert said(alerts) == [("cleared", "unknown_model", "x1")]


def broken(record, **changes):
    return msgspec.structs.replace(record, **changes)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("other_reference", lambda record: broken(record, reference="f" * 16)),
        ("no_reference", lambda record: broken(record, reference="")),
        ("other_bins", lambda record: broken(record, score=Counts([1, 2]))),
        ("other_bins", lambda record: broken(record, features={**record.features, "amount": Counts([], 5)})),
        ("no_feature", lambda record: broken(record, features={"amount": record.features["amount"]})),
        ("unknown_feature", lambda record: broken(record, features={**record.features, "new": Counts([1], 0)})),
        ("sample", lambda record: broken(record, sample=Sample([[1.0]], [0.5], [1]))),
        ("sample", lambda record: broken(record, sample=Sample(record.sample.features, [], []))),
        ("offsets", lambda record: broken(record, offsets={"x": [(1, 2)], "0": [(9, 3)]})),
        ("offsets", lambda record: broken(record, offsets={"9" * 5_000: [(1, 2)]})),
        ("ahead", lambda record: broken(record, interval=record.interval * 2)),
    ],
)
def test_telemetry_that_fits_nothing_is_counted_by_reason_and_raises_nothing(reason, change):
    stream = [
        (change(record) if record.worker == "worker-1" else record, timestamp)
        for record, timestamp in TelemetryStream(intervals=100)
    ]
    watched, alerts = run([(decode_telemetry(encode_telemetry(record)), at_ms) for record, at_ms in stream])
    assert [alert for alert in alerts if alert.signal != "telemetry_uncovered"] == []
    assert watched.snapshot().totals.set_aside[reason] > 40


@pytest.mark.parametrize(
    "change",
    [
        {"events": 10**400},
        {"sequence": 10**400},
        {"interval": 1 << 60},
        {"features": {"amount": Counts([1 << 62] * 4)}},
        {"score": Counts([1, 2], 1 << 70)},
        {"segments": {"DE": {"approve": (1 << 63) - 1}}},
        {"offsets": {"0": [(0, 1 << 63)]}},
        {"sample": Sample([[1e39]], [0.5], [1])},
        {"dropped": 1 << 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_numbers_that_no_worker_counts_to_are_refused_before_they_can_overflow_anything(change):
    """Such a record would end the monitor, and meet it again at every start."""
    (record, _), *_ = TelemetryStream(intervals=1)
    with pytest.raises(msgspec.ValidationError):
        decode_telemetry(encode_telemetry(broken(record, **change)))


def test_an_interval_far_ahead_is_called_ahead_also_where_its_record_moves_the_clock_on():
    (first, at_ms), *_ = TelemetryStream(intervals=1)
    watched, _ = run([(broken(first, interval=first.interval * 2), at_ms + offset * 1_000) for offset in range(1)])
    later = broken(first, sequence=1, interval=first.interval * 2)
    for number in range(40):  # after a while the new time is believed
        watched.observe(broken(later, sequence=1 + number), at_ms + 3_600_000 + number)
    assert set(watched.snapshot().totals.set_aside) == {"ahead"}


def test_a_worker_whose_clock_is_years_ahead_disturbs_nobody():
    records = list(TelemetryStream(intervals=200, workers=3, change=inflated(90)))
    good = [each for each in records if each[0].worker != "worker-2"]
    calm, expected = run(good)
    far = 70 * 365 * 86_400_000
    astray = [
        (broken(record, interval=record.interval + far // INTERVAL_MS, offsets={}), timestamp + far)
        if record.worker == "worker-2"
        else (record, timestamp)
        for record, timestamp in records
    ]
    stirred, alerts = run(astray)
    assert alerts == expected
    assert stirred.snapshot().models == calm.snapshot().models
    assert stirred.snapshot().totals.set_aside["ahead"] == 200


def test_a_log_that_begins_with_a_time_to_come_is_judged_once_that_is_disbelieved(monkeypatch):
    """What lies before was deleted, so the watch waits until its memory is full: as counted from a true time."""
    monkeypatch.setattr(watch_clock, "VOTES_BACK", 50)
    far = 70 * 365 * 86_400_000
    (first, at_ms), *others = TelemetryStream(intervals=720, workers=1, change=inflated(650))
    astray = broken(first, interval=first.interval + far // INTERVAL_MS, offsets={}), at_ms + far
    memory = memory_ms(DRIFT, MONITOR)
    watched, alerts = run([astray, *others], watch(judge_from_ms=astray[1] + memory))
    assert ("raised", "feature_drift", "amount") in said(alerts)
    assert watched.judge_from_ms == at(50) + memory


def test_after_a_silent_weekend_the_clock_moves_on_and_nothing_is_raised():
    weekend = 2 * 86_400_000
    records = list(TelemetryStream(intervals=240))
    moved = [
        (broken(record, interval=record.interval + weekend // INTERVAL_MS), timestamp + weekend)
        for record, timestamp in records[240:]
    ]
    watched, alerts = run(records[:240] + moved)
    assert alerts == []
    snapshot = watched.snapshot()
    assert snapshot.totals.set_aside == {"ahead": 31}
    assert snapshot.at_ms == at(239) - MONITOR.grace + weekend
    assert snapshot.models["m1"].events == 13 * 60


def test_records_of_a_clock_set_back_are_late_until_it_has_caught_up():
    everything = list(TelemetryStream(intervals=130))
    records = everything[:200]
    back = [
        (
            broken(record, epoch=record.epoch + 1, interval=record.interval - 20),
            timestamp - 20 * INTERVAL_MS,
        )
        for record, timestamp in everything[200:]
    ]
    watched, alerts = run(records + back)
    assert alerts == []
    assert watched.snapshot().totals.late == 38  # 19 intervals of two workers
    assert watched.snapshot().at_ms == at(108)
