"""The watch is a function of the log: cut, shuffled or repeated, the same telemetry gives the same alerts."""

import dataclasses
import random

import msgspec
import numpy as np
import pytest
from river.drift import ADWIN, PageHinkley

from models.drift_detectors import DetectorPlan
from models.histograms import reference, render_histograms
from stream.alert_record import decode_alert, encode_alert
from stream.telemetry_record import reference_hash
from stream.watch import Watch, memory_ms, open_alerts
from stream.watch_panes import Layout
from stream.watch_rows import Ranks
from watched_traffic import (
    DRIFT,
    FEATURES,
    GRACE_INTERVALS,
    INTERVAL_MS,
    MONITOR,
    REFERENCE,
    TelemetryStream,
    at,
    inflated,
    reference_of,
    references,
    rows,
    run,
    said,
    watch,
)


def test_a_seeded_drift_is_raised_once_at_this_interval_and_cleared_once():
    _, alerts = run(TelemetryStream(intervals=300, change=inflated(100, 160)))
    raised = [alert for alert in alerts if alert.signal == "feature_drift"]
    assert said(raised) == [("raised", "feature_drift", "amount"), ("cleared", "feature_drift", "amount")]
    assert raised[0].id == raised[1].id
    assert raised[0].at == at(113)
    assert raised[0].since == at(107)  # three comparisons, fifteen seconds apart, agreed
    assert at(160) < raised[1].at < at(250)
    assert raised[0].value > DRIFT.psi
    assert raised[0].text.startswith("The feature amount is distributed unlike in training: a stability index of ")
    assert decode_alert(encode_alert(raised[0])) == raised[0]
    assert {alert.subject for alert in alerts if alert.signal != "adversarial_drift"} == {"amount"}


def test_its_twin_without_drift_stays_silent():
    watched, alerts = run(TelemetryStream(intervals=600))
    assert alerts == []
    state = watched.snapshot().models["m1"]
    assert state.events == 13 * 60  # 12 whole panes of an interval each, and the one now filling
    assert state.features["amount"].psi < 0.1
    assert state.features["amount"].psi_past is not None
    assert state.features["amount"].psi_long is not None
    assert state.features["seconds_since_last"].missing == pytest.approx(0.2, abs=0.05)
    assert state.detections == {}


def test_a_field_that_breaks_is_missing_and_not_also_drifted():
    def change(number, x, scores):
        if number >= 100:
            x[:, 2] = np.nan

    watched, alerts = run(TelemetryStream(change=change))
    assert ("raised", "feature_missing", "seconds_since_last") in said(alerts)
    assert "feature_drift" not in {alert.signal for alert in alerts}
    state = watched.snapshot().models["m1"].features["seconds_since_last"]
    assert (state.missing, state.psi, state.missing_alarm) == (1.0, None, True)


def test_a_nightly_rhythm_is_learned_after_a_day_and_raises_nothing_then():
    """For a third of each day amounts are seven times as large; the reference, of weeks, holds both."""
    night = inflated(0, factor=7.0)

    def change(number, x, scores):
        if number % 60 >= 40:
            night(number, x, scores)

    mixed = np.concatenate([np.ones(2), [7]])
    rng = np.random.default_rng(1)
    stream = TelemetryStream(intervals=60 * 8, change=change)

    x = rows(rng, 30_000)
    x[:, 0] *= np.tile(mixed, 10_000).astype(np.float32)
    learned = reference(x, FEATURES, rng.beta(1, 9, 20_000).astype(np.float32))
    stream.histograms, stream.reference = learned, reference_hash(render_histograms(learned))
    watched, alerts = run(stream, watch(references=lambda version: learned))
    assert watched.snapshot().models["m1"].features["amount"].psi > DRIFT.psi  # night, and unlike the reference
    # The first day and night know nothing else, and a rhythm this strong shows.
    assert said(alerts) == [("raised", "feature_drift", "amount"), ("cleared", "feature_drift", "amount")]
    assert alerts[-1].at < at(75)


def weekly(number, x, scores):
    """Two in seven of these five-minute days are a weekend: dearer, and more is held."""
    if number // 60 % 7 >= 5:
        x[:, 0] *= 4
        scores[:] = np.maximum(scores, 0.25 + scores / 2)


WEEKLY = msgspec.structs.replace(DRIFT, longer_rhythm=7 * DRIFT.rhythm)
LONGER = msgspec.structs.replace(DRIFT, longer_rhythm=3 * DRIFT.rhythm)


def test_a_second_weekend_is_no_drift_where_the_longer_rhythm_is_set():
    records = list(TelemetryStream(intervals=14 * 60, change=weekly))

    def raised(drift, first_day, last_day):
        _, alerts = run(records, Watch(drift, MONITOR, references))
        between = (a for a in alerts if a.state == "raised" and at(first_day * 60) < a.at < at(last_day * 60))
        return {alert.signal for alert in between}

    # Strong enough to show, the first time and, where a week is not remembered, every time.
    assert raised(DRIFT, 5, 7) >= {"feature_drift", "decision_mix_drift"}
    assert raised(DRIFT, 12, 14) >= {"feature_drift", "decision_mix_drift"}
    assert raised(WEEKLY, 5, 7) >= {"feature_drift", "decision_mix_drift"}
    assert "decision_mix_drift" not in raised(WEEKLY, 7, 14)


def test_a_drift_is_found_on_a_weekend_whose_like_is_known():
    def change(number, x, scores):
        weekly(number, x, scores)
        if number >= 12 * 60 + 10:
            x[:, 0] *= 8

    _, alerts = run(TelemetryStream(intervals=12 * 60 + 60, change=change), Watch(WEEKLY, MONITOR, references))
    later = [(alert.state, alert.signal, alert.subject) for alert in alerts if alert.at > at(12 * 60)]
    assert ("raised", "feature_drift", "amount") in later


def test_memory_reaches_as_far_back_as_the_longer_rhythm_does():
    further = memory_ms(WEEKLY, MONITOR) - memory_ms(DRIFT, MONITOR)
    assert further == WEEKLY.longer_rhythm - DRIFT.rhythm - DRIFT.epoch


def test_a_whole_day_that_is_unlike_the_reference_by_less_than_a_sunday_may_be_is_no_drift():
    def change(number, x, scores):
        x[:, 0] *= 1.0 + min(number, 600) / 1_000  # in the end an index of 0.24 by the day and by the hour

    for day_psi, expected in ((0.3, set()), (0.2, {"feature_drift"})):
        drift = msgspec.structs.replace(DRIFT, day_psi=day_psi)
        _, alerts = run(TelemetryStream(intervals=900, change=change), Watch(drift, MONITOR, references))
        assert {signal for _, signal, _ in said(alerts)} - {"detector_drift"} == expected
        assert all(alert.bound == day_psi for alert in alerts if alert.signal == "feature_drift")


def test_a_slow_change_that_no_hour_shows_is_raised_by_the_last_whole_rhythm():
    def change(number, x, scores):
        x[:, 0] *= 1.0 + min(number, 600) / 400

    _, alerts = run(TelemetryStream(intervals=600, change=change))
    assert ("raised", "feature_drift", "amount") in said(alerts)


@pytest.mark.parametrize("seed", range(2))
def test_records_that_arrive_in_any_order_within_the_grace_give_the_same(seed):
    records = list(TelemetryStream(intervals=200, workers=3, change=inflated(90)))
    calm, expected = run(records)
    rng = random.Random(seed)
    # Nothing moves past a record stamped later than its interval's end and the grace.
    shuffled = sorted(records, key=lambda each: each[1] + rng.uniform(0, MONITOR.grace - 10))
    stirred, alerts = run(shuffled)
    assert alerts == expected
    assert expected
    assert stirred.snapshot() == calm.snapshot()


def test_repeats_are_dropped_and_counted():
    records = list(TelemetryStream(intervals=120))
    calm, expected = run(records)
    twice = [each for record in records for each in (record, record)]
    stirred, alerts = run(twice)
    assert alerts == expected
    assert stirred.snapshot().totals.repeated == len(records)
    assert stirred.snapshot().models == calm.snapshot().models


def test_lost_records_are_counted_once_their_interval_has_closed():
    records = [each for each in TelemetryStream(intervals=60) if each[0].sequence not in (20, 21, 40)]
    watched, _ = run(records)
    assert watched.snapshot().totals.lost == 6


@pytest.mark.parametrize(("seed", "drift"), [(0, DRIFT), (1, DRIFT), (2, DRIFT), (3, LONGER)])
def test_cut_anywhere_and_read_back_it_goes_on_as_the_undisturbed_run(seed, drift):
    rng = random.Random(seed)

    def change(number, x, scores):
        if number // 100 % 3 == 1:
            x[:, 0] *= 4
        if number // 70 % 5 == 2:
            x[:, 2] = np.nan

    records = list(TelemetryStream(intervals=1_000 if drift is DRIFT else 1_600, seed=seed, change=change))
    records = [each for each in records if rng.random() > 0.002]  # some offsets stay uncovered
    undisturbed, expected = run(records, Watch(drift, MONITOR, references))
    needed = memory_ms(drift, MONITOR) // INTERVAL_MS
    crash = rng.randrange(2 * needed + 200, len(records) - 100)
    before, written = Watch(drift, MONITOR, references), []
    for record, timestamp in records[:crash]:
        written += before.observe(record, timestamp)
    first = crash - 2 * needed - rng.randrange(20, 150)
    judge_from_ms = before.reading_from(records[first][1])
    already = open_alerts(written, judge_from_ms)
    again = Watch(drift, MONITOR, references, already=already, judge_from_ms=judge_from_ms)
    _, alerts = run(records[first:], again)
    topic = {(alert.id, alert.state) for alert in written}
    further = [alert for alert in alerts if (alert.id, alert.state) not in topic]
    assert written + further == expected
    assert len(expected) > 8
    shown, wanted = again.snapshot(), undisturbed.snapshot()
    assert dataclasses.replace(shown, totals=wanted.totals) == wanted


def test_before_it_judges_it_raises_nothing():
    judge_from_ms = at(220)
    watched, alerts = run(TelemetryStream(change=inflated(100)), watch(judge_from_ms=judge_from_ms))
    assert [alert for alert in alerts if alert.at < judge_from_ms] == []
    assert ("raised", "feature_drift", "amount") in said(alerts)
    assert not watch(judge_from_ms=1).snapshot().caught
    assert watched.snapshot().caught


def test_detectors_find_what_river_alone_finds_over_the_same_ranks():
    """One worker and one row an interval: the sequence is the sample, ranked in the reference until a day is known."""
    records = list(TelemetryStream(intervals=600, workers=1, sampled=1, change=inflated(400, factor=50)))
    drift = msgspec.structs.replace(DRIFT, epoch=DRIFT.epoch * 1_000_000, every=DRIFT.every * 1_000)
    watched, _ = run(records, Watch(drift, MONITOR, references))
    found = watched.snapshot().totals.detections
    layout = Layout(REFERENCE)
    ranks = Ranks(layout, layout.reference)
    plan = DetectorPlan(4, drift.epoch // drift.detector_every, drift.detector_false_alarms, drift.kswin_every)
    alone = {("adwin", "amount"): plan.adwin(), ("page_hinkley", "amount"): plan.page_hinkley()}
    assert isinstance(alone["adwin", "amount"], ADWIN)
    assert isinstance(alone["page_hinkley", "amount"], PageHinkley)
    counts = {}
    for record, _ in records[: len(records) - GRACE_INTERVALS]:
        row = record.sample.features[0]
        values = dict(zip(record.features, row, strict=True)) | {"the score": record.sample.scores[0]}
        rank = ranks.of([float("nan") if values[name] is None else values[name] for name in layout.names])
        for (name, subject), detector in alone.items():
            detector.update(rank[layout.names.index(subject)])
            if detector.drift_detected:
                counts[name, subject] = counts.get((name, subject), 0) + 1
    assert {key: count for key, count in found.items() if key in alone} == counts
    assert set(counts) == set(alone)


def test_detectors_begin_anew_with_each_epoch():
    watched = watch()
    for record, timestamp in TelemetryStream(intervals=130):
        watched.observe(record, timestamp)
    stream = [record for record, _ in TelemetryStream(intervals=129, workers=1)]
    begun = at(128) // DRIFT.epoch * DRIFT.epoch
    of_this_epoch = sum((record.interval + 1) * INTERVAL_MS > begun for record in stream)
    assert watched._models["m1"][1]._detectors.rows == of_this_epoch


def test_two_models_during_a_swap_are_each_compared_with_their_own_reference():
    other = reference_of(2, ("amount", "count_1h"))
    other_hash = reference_hash(render_histograms(other))
    old = list(TelemetryStream(intervals=150, workers=1))
    new = [
        (msgspec.structs.replace(record, worker="worker-9"), timestamp)
        for record, timestamp in TelemetryStream(
            intervals=150, workers=1, seed=3, model="m2", reference=other_hash, histograms=other
        )
    ]
    both = sorted(old + new, key=lambda each: each[1])
    watched, alerts = run(both, watch(references=lambda version: other if version == "m2" else REFERENCE))
    assert alerts == []
    models = watched.snapshot().models
    assert list(models["m1"].features) == ["amount", "count_1h", "seconds_since_last"]
    assert list(models["m2"].features) == ["amount", "count_1h"]
    assert models["m1"].events == models["m2"].events == 13 * 30


def test_a_model_that_scores_no_longer_is_let_go_and_its_alerts_end():
    old = list(TelemetryStream(intervals=150, change=inflated(60)))
    new = [
        (msgspec.structs.replace(record, model="m2"), timestamp)
        for record, timestamp in list(TelemetryStream(intervals=300))[300:]
    ]
    watched, alerts = run(old + new)
    assert list(watched.snapshot().models) == ["m2"]
    assert {alert.model for alert in watched.snapshot().alerts} <= {"", "m2"}
    assert ("cleared", "feature_drift", "amount") in said(alerts)


def test_a_day_without_events_and_empty_intervals_raise_nothing_and_keep_workers_alive():
    stream = TelemetryStream(intervals=400, per_worker=0)
    watched, alerts = run(stream)
    assert alerts == []
    assert watched.snapshot().workers == ("worker-0", "worker-1")
    assert watched.snapshot().models == {}


def test_features_constant_or_all_missing_in_reference_and_traffic_raise_nothing():
    def change(number, x, scores):
        x[:, 0], x[:, 2], scores[:] = 5.0, np.nan, 0.0

    x = rows(np.random.default_rng(1), 5_000)
    change(0, x, np.zeros(1))
    constant = reference(x, FEATURES, np.zeros(5_000, np.float32))
    stream = TelemetryStream(change=change, histograms=constant, reference=reference_hash(render_histograms(constant)))
    watched, alerts = run(stream, watch(references=lambda version: constant))
    assert alerts == []
    features = watched.snapshot().models["m1"].features
    assert features["amount"].psi == 0.0
    assert features["seconds_since_last"].psi is None


def test_a_shift_of_the_decision_mix_is_raised_for_all_and_for_its_segment():
    def change(number, x, scores):
        if number >= 150:
            scores[:] = np.maximum(scores, 0.31)

    watched, alerts = run(TelemetryStream(change=change))
    mix = [alert for alert in alerts if alert.signal == "decision_mix_drift"]
    assert {(alert.state, alert.segment) for alert in mix} >= {("raised", ""), ("raised", "DE")}
    assert ("raised", "score_drift", "") in said(alerts)
    assert watched.snapshot().mix[""].shares["review"] == 1.0


def test_a_killed_workers_offsets_are_a_finding_that_ends_a_window_later():
    records = list(TelemetryStream(intervals=120))
    lost = [each for each in records if not (each[0].worker == "worker-1" and each[0].sequence in (50, 51))]
    watched, alerts = run(lost)
    assert said(alerts) == [("raised", "telemetry_uncovered", "1"), ("cleared", "telemetry_uncovered", "1")]
    assert alerts[0].value == 60
    # Seen when interval 52 closed; said at the next comparison after the grace, and taken back a window later.
    assert [alert.at for alert in alerts] == [at(53), at(65)]
    assert watched.snapshot().totals.uncovered == {0: 0, 1: 60}
    assert watched.snapshot().coverage[1].uncovered == 0
