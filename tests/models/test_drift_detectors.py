"""River's detectors as the watch runs them: equal to River alone, a pinned index of detection, a silent twin."""

import math

import numpy as np
import pytest
from river.drift import ADWIN, KSWIN, PageHinkley

from models.drift_detectors import DELTA, DETECTORS, Detection, DetectorPlan, Detectors

PLAN = DetectorPlan(subjects=3, rows=86_400, kswin_every=20)


def ranks(rows, seed, drift_at=None, subject=1):
    values = np.random.default_rng(seed).random((rows, 3))
    if drift_at is not None:
        values[drift_at:, subject] **= 0.4  # a mean rank of 0.71
    return values


def found(values, plan=PLAN):
    detectors = Detectors(plan)
    return [each for row in values for each in detectors.update(row)]


def test_results_equal_river_run_alone_over_the_same_sequence():
    values = ranks(6_000, seed=3, drift_at=3_000)
    values[np.random.default_rng(4).random(values.shape) < 0.1] = np.nan
    alone = []
    for subject in range(3):
        adwin = ADWIN(delta=PLAN.adwin_delta, clock=32)
        hinkley = PageHinkley(
            min_instances=300, delta=DELTA, threshold=PLAN.page_hinkley_threshold, alpha=1.0, mode="both"
        )
        kswin = KSWIN(alpha=PLAN.kswin_alpha, window_size=500, stat_size=150, seed=1_000_003 + subject)
        for row, value in enumerate(values[:, subject].tolist()):
            if math.isnan(value):
                continue
            for name, detector in (("adwin", adwin), ("page_hinkley", hinkley), ("kswin", kswin)):
                if name == "kswin" and row % 20:
                    continue
                detector.update(value)
                if detector.drift_detected:
                    alone.append(Detection(subject, name, row))
    place = {name: at for at, name in enumerate(DETECTORS)}
    alone.sort(key=lambda each: (each.row, each.subject, place[each.detector]))
    assert found(values) == alone
    assert alone


def test_a_seeded_drift_is_found_at_these_rows_and_its_twin_without_drift_stays_silent():
    drifted = found(ranks(12_000, seed=8, drift_at=6_000))
    first = {name: next(each for each in drifted if each.detector == name) for name in DETECTORS}
    assert {name: (each.subject, each.row) for name, each in first.items()} == {
        "adwin": (1, 6_143),
        "page_hinkley": (1, 6_089),
        "kswin": (1, 9_980),
    }
    assert {each.subject for each in drifted} == {1}
    assert found(ranks(12_000, seed=8)) == []


def test_ten_epochs_without_drift_keep_to_the_budget():
    plan = DetectorPlan(subjects=3, rows=20_000, false_alarms=0.1, kswin_every=200)
    assert sum(len(found(ranks(20_000, seed), plan)) for seed in range(10)) <= 2


def test_the_same_rows_give_the_same_alarms_whatever_ran_before():
    values = ranks(7_000, seed=5, drift_at=2_000)
    assert found(values) == found(values)


@pytest.mark.parametrize("value", [0.5, math.nan])
def test_a_constant_and_an_all_missing_feature_raise_nothing(value):
    assert found(np.full((3_000, 3), value)) == []


def test_missing_values_do_not_count_as_rows_of_their_subject():
    plan = DetectorPlan(subjects=1, rows=86_400)
    values = np.random.default_rng(2).random(4_000)
    values[2_000:] **= 0.3
    with_gaps = np.full(8_000, np.nan)
    with_gaps[::2] = values
    dense = [each for each in found(values[:, None], plan) if each.detector != "kswin"]
    sparse = [each for each in found(with_gaps[:, None], plan) if each.detector != "kswin"]
    assert [(each.detector, each.row // 2) for each in sparse] == [(each.detector, each.row) for each in dense]
