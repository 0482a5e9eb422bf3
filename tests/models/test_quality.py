"""Figures of quality from late labels: those of the libraries, wherever one begins to read, quiet without a cause."""

import random
from collections import Counter

import numpy as np
import pytest
from river import metrics as river
from sklearn.metrics import average_precision_score, brier_score_loss, precision_score, recall_score, roc_auc_score

from models.policy import APPROVE, DECLINE, OUTCOMES, REVIEW
from models.quality_detectors import Detectors
from models.quality_drop import auc_with_error, compare
from models.quality_figures import Labelled, figures, ranking
from models.quality_rows import Decided
from models.quality_watch import QualityWatch

MINUTE_MS = 60_000
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


def watch(**changed):
    settings = {
        "window_ms": 30 * DAY_MS,
        "delay_ms": 7 * DAY_MS,
        "every_ms": 360 * MINUTE_MS,
        "max_events": 10_000,
        "min_frauds": 30,
        "max_segments": 50,
        "holdout": lambda _: None,
    }
    return QualityWatch(**settings | changed)


def decided(identity, fraud, score, *, outcome=None, segment="DE", weight=1.0):
    if outcome is None:
        outcome = DECLINE if score > 0.8 else REVIEW if score > 0.5 else APPROVE
    return Decided(identity, identity % 50, segment, float(np.float32(score)), outcome, weight, fraud)


def story(count, seed, *, days=60, share=0.2, contradicted=0.05):
    """(row, event time, label time, timestamp, former) in the order of the log."""
    rng = random.Random(seed)
    told, by_id = [], {}
    for number in range(count):
        at_ms = START_MS + number * days * DAY_MS // count
        if by_id and rng.random() < contradicted:
            identity = rng.choice(list(by_id))
            row, event_ms = by_id[identity]
            other = Decided(row.id, row.user, row.segment, row.score, row.outcome, row.weight, not row.fraud)
            told.append((other, event_ms, at_ms - 1, at_ms, row.fraud))
            by_id[identity] = other, event_ms
            continue
        fraud = rng.random() < share
        score = rng.betavariate(4, 2) if fraud else rng.betavariate(1, 8)
        row = decided(number, fraud, round(score, 2), segment=rng.choice("ABC"), weight=rng.choice([1.0, 10.0]))
        event_ms = at_ms - int(rng.expovariate(1 / (5 * DAY_MS)))
        by_id[number] = row, event_ms
        told.append((row, event_ms, at_ms - 1, at_ms, None))
    return told


def feed(quality, told):
    changes = []
    for row, event_ms, label_ms, at_ms, former in told:
        changes += quality.label("v1", row, event_time_ms=event_ms, label_time_ms=label_ms, at_ms=at_ms, former=former)
    return changes


def counted(told, now_ms, window_ms=30 * DAY_MS, delay_ms=7 * DAY_MS):
    """The same, from the definition: the last label of each decision, once it is old enough, for one window."""
    last = {}
    for row, event_ms, label_ms, _, _ in told:
        last[row.id] = row, max(label_ms, event_ms + delay_ms)
    return [row for row, due in last.values() if now_ms - window_ms < due <= now_ms]


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn_over_what_counts(seed):
    told = story(1_500, seed)
    quality = watch()
    quality.go_live()
    feed(quality, told)
    quality.refresh()
    rows = counted(told, told[-1][3])
    found = quality.snapshot().figures["v1", ""]
    truth = np.array([row.fraud for row in rows])
    scores = np.array([row.score for row in rows])
    weight = np.array([row.weight for row in rows])
    stopped = np.array([row.outcome >= REVIEW for row in rows])
    declined = np.array([row.outcome == DECLINE for row in rows])
    assert (found.events, found.frauds) == (len(rows), truth.sum())
    assert found.roc_auc == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight), abs=1e-12)
    assert found.average_precision == pytest.approx(
        average_precision_score(truth, scores, sample_weight=weight), abs=1e-12
    )
    assert found.brier == pytest.approx(brier_score_loss(truth, scores, sample_weight=weight), abs=1e-12)
    for flagged, precision, recall in (
        (stopped, found.review_precision, found.review_recall),
        (declined, found.decline_precision, found.decline_recall),
    ):
        assert precision == pytest.approx(precision_score(truth, flagged, sample_weight=weight))
        assert recall == pytest.approx(recall_score(truth, flagged, sample_weight=weight))
    assert found.label_rate == pytest.approx(np.average(truth, weights=weight))
    assert found.calibration_ratio == pytest.approx((weight * scores).sum() / (weight * truth).sum())


def test_figures_are_those_of_river_taken_one_by_one():
    told = story(1_500, 9, contradicted=0.0)
    quality = watch(delay_ms=0)
    quality.go_live()
    feed(quality, told)
    quality.refresh()
    rows = counted(told, told[-1][3], delay_ms=0)
    precision, recall, error = river.Precision(), river.Recall(), river.MSE()
    auc = river.ROCAUC(n_thresholds=1_000)
    for row in rows:
        precision.update(row.fraud, row.outcome >= REVIEW, w=row.weight)
        recall.update(row.fraud, row.outcome >= REVIEW, w=row.weight)
        error.update(float(row.fraud), row.score, w=row.weight)
        auc.update(row.fraud, row.score, w=row.weight)
    found = quality.snapshot().figures["v1", ""]
    assert found.review_precision == pytest.approx(precision.get())
    assert found.review_recall == pytest.approx(recall.get())
    assert found.brier == pytest.approx(error.get())
    assert found.roc_auc == pytest.approx(auc.get(), abs=2e-3)  # River counts at thresholds


@pytest.mark.parametrize("seed", range(4))
def test_it_does_not_matter_from_where_on_the_log_is_read_back(seed):
    rng = random.Random(seed)
    told = story(2_000, seed, days=120)
    options = {"max_events": rng.choice([300, 10_000]), "holdout": lambda _: HOLDOUT}
    whole, raised = watch(**options), []
    whole.go_live()
    raised = feed(whole, told)
    cut = rng.randrange(1_200, 1_900)
    begin = next(at for at, one in enumerate(told) if one[3] >= told[cut - 1][3] - 37 * DAY_MS)
    again = watch(**options)
    feed(again, told[begin:cut])
    open_then = {}
    for change in raised:
        if change.at_ms <= again.clock_ms:
            open_then[change.signal, change.subject, change.statistic] = change
    again.go_live(change for change in open_then.values() if change.raised)
    later = feed(again, told[cut:])
    whole.refresh()
    again.refresh()
    assert again.snapshot().figures == whole.snapshot().figures
    assert again.snapshot().concept == whole.snapshot().concept
    assert again.snapshot().open == whole.snapshot().open
    assert later == [change for change in raised if change.at_ms > told[cut - 1][3]]


HOLDOUT = {
    "events": 20_000.0,
    "frauds": 2_000.0,
    "auc_roc": 0.97,
    "review_recall": 0.8,
    "review_rate": 0.1,
    "decline_recall": 0.25,
    "decline_rate": 0.03,
}


def test_a_label_that_comes_early_counts_only_once_its_decision_is_as_old_as_the_others():
    quality = watch(min_frauds=1)
    quality.go_live()
    row = decided(1, fraud=True, score=0.9)
    quality.label("v1", row, event_time_ms=START_MS, label_time_ms=START_MS, at_ms=START_MS + 5, former=None)
    quality.advance(START_MS + 7 * DAY_MS - 1)
    quality.refresh()
    assert quality.snapshot().pending == 1
    assert quality.snapshot().figures == {}
    quality.advance(START_MS + 7 * DAY_MS)
    quality.refresh()
    assert quality.snapshot().figures["v1", ""].events == 1


def test_nothing_is_said_on_too_few_frauds_and_nothing_is_divided_by_zero():
    few = Labelled(*arrays([(0.5, True, APPROVE)] * 29 + [(0.5, False, APPROVE)] * 100))
    assert figures(few, 30).roc_auc is None
    assert figures(few, 30).events == 129
    only_frauds = figures(Labelled(*arrays([(0.5, True, APPROVE)] * 40)), 30)
    assert only_frauds.roc_auc is None
    assert only_frauds.review_precision is None
    assert only_frauds.average_precision == 1.0
    assert figures(Labelled(*arrays([])), 1).events == 0
    assert ranking(np.empty(0), np.empty(0, bool), np.empty(0)) == (None, None)


def arrays(rows):
    scores, frauds, outcomes = zip(*rows, strict=True) if rows else ((), (), ())
    n = len(rows)
    numbers = np.arange(n)
    return (
        np.array(scores, float),
        np.array(frauds, bool),
        np.array(outcomes, np.uint8),
        np.ones(n),
        numbers.astype(np.uint64),
        np.zeros(n, np.int64),
    )


def test_more_segments_than_are_told_apart_count_as_other():
    quality = watch(delay_ms=0, max_segments=3, min_frauds=1)
    quality.go_live()
    for number in range(100):
        row = decided(number, fraud=True, score=0.5, segment=f"S{int(number**0.5)}")
        quality.label("v1", row, event_time_ms=START_MS, label_time_ms=START_MS, at_ms=START_MS, former=None)
    quality.refresh()
    found = quality.snapshot().figures
    assert {segment for _, segment in found} == {"", "S9", "S8", "S7", "other"}
    assert sum(one.events for (_, segment), one in found.items() if segment) == found["v1", ""].events == 100


def test_memory_stays_within_what_is_kept():
    quality = watch(delay_ms=0, max_events=2_000)
    sizes = []
    for number in range(30_000):
        row = decided(number, fraud=number % 5 == 0, score=0.5, segment=f"S{number}")
        at_ms = START_MS + number * 1_000
        quality.label(f"v{number % 12}", row, event_time_ms=at_ms, label_time_ms=at_ms, at_ms=at_ms, former=None)
        if number >= 25_000 and number % 250 == 0:
            sizes.append(quality.snapshot().size_bytes)
    assert len(quality.snapshot().label_rate) == 8
    assert max(sizes) < 8 * 2_300 * 60


def sample(rng, *, recall_at=1.5, declined_labelled=True, count=6_000):
    """Labelled decisions of a model as good as HOLDOUT; of another where recall_at is less."""
    n = count
    frauds = rng.random(n) < 0.1
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) * 0.8 - 2.6 + recall_at * 2 * frauds)))
    outcomes = np.where(scores > 0.66, DECLINE, np.where(scores > 0.24, REVIEW, APPROVE)).astype(np.uint8)
    rows = Labelled(
        scores, frauds, outcomes, np.ones(n), rng.integers(0, n // 3, n).astype(np.uint64), np.zeros(n, int)
    )
    return rows if declined_labelled else rows.take(outcomes < DECLINE)


def holdout_of(rows):
    found = figures(rows, 30)
    return {
        "events": float(len(rows)),
        "frauds": float(found.frauds),
        "auc_roc": found.roc_auc,
        "review_recall": found.review_recall,
        "decline_recall": found.decline_recall,
        "decline_rate": float((rows.outcomes == DECLINE).mean()),
    }


def test_a_model_as_good_as_its_holdout_is_never_said_to_have_dropped():
    rng = np.random.default_rng(3)
    holdout = holdout_of(sample(rng, count=20_000))
    found = [one for _ in range(100) for one in compare(sample(rng), holdout, 30)]
    assert Counter(one.statistic for one in found) == {"roc_auc": 100, "review_recall": 100}
    assert [one for one in found if one.dropped] == []


def test_a_worse_model_is_told_by_both_figures_and_by_recall_alone_where_declined_payments_get_no_label():
    rng = np.random.default_rng(4)
    holdout = holdout_of(sample(rng, count=20_000))
    worse = compare(sample(rng, recall_at=0.9), holdout, 30)
    assert {one.statistic for one in worse if one.dropped} >= {"review_recall"}
    censored = compare(sample(rng, declined_labelled=False), holdout, 30)
    assert [(one.statistic, one.dropped) for one in censored] == [("review_recall", False)]
    censored = compare(sample(rng, recall_at=0.9, declined_labelled=False), holdout, 30)
    assert [(one.statistic, one.dropped) for one in censored] == [("review_recall", True)]


def test_the_error_of_the_auc_is_what_repeating_shows_also_where_users_bring_frauds_in_a_row():
    rng = np.random.default_rng(5)
    aucs, errors = [], []
    for _ in range(150):
        users = np.repeat(np.arange(400), 5)
        frauds = (rng.random(400) < 0.1)[users]
        scores = rng.normal(size=400)[users] * 0.9 + rng.normal(size=2_000) * 0.3 + 1.2 * frauds
        rows = Labelled(scores, frauds, np.zeros(2_000, np.uint8), np.ones(2_000), users.astype(np.uint64), users)
        auc, error = auc_with_error(rows)
        assert auc == pytest.approx(roc_auc_score(frauds, scores))
        aucs.append(auc)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(aucs), rel=0.2)


@pytest.mark.parametrize("missed", [0.05, 0.2, 0.5])
def test_detectors_are_quiet_for_two_weeks_on_errors_that_stay_as_they_are(missed):
    found = 0
    for seed in range(5):
        rng = random.Random(seed)
        detectors = Detectors(15 * DAY_MS, DAY_MS, 30)
        for number in range(4_000):
            fraud = rng.random() < 0.3
            approved = rng.random() < (missed if fraud else 0.97)
            found += len(list(detectors.feed(fraud, approved, START_MS + number * 250_000)))
    assert found == 0


@pytest.mark.parametrize(("detector", "latest"), [("ddm", 1_300), ("adwin", 1_300)])
def test_detectors_tell_that_more_frauds_are_missed(detector, latest):
    rng = random.Random(7)
    detectors = Detectors(15 * DAY_MS, DAY_MS, 30)
    told = {}
    for number in range(2_000):
        approved = rng.random() < (0.2 if number < 1_000 else 0.6)
        for alarm in detectors.feed(True, approved, number):
            told.setdefault((alarm.detector, alarm.sequence), number)
    assert 1_000 < told[detector, "misses"] < latest


def test_a_drop_is_raised_once_and_cleared_once():
    rng = random.Random(1)
    quality = watch(window_ms=10 * DAY_MS, delay_ms=0, every_ms=3_600_000, holdout=lambda _: HOLDOUT)
    quality.go_live()
    changes = []
    for number in range(12_000):
        day = number / 100
        fraud = rng.random() < 0.3
        missed = rng.random() < (0.95 if 40 < day < 60 else 0.1)
        score = 0.6 if fraud and not missed else 0.1 * rng.random()
        at_ms = START_MS + int(day * DAY_MS)
        row = decided(number, fraud, score)
        changes += quality.label("v1", row, event_time_ms=at_ms, label_time_ms=at_ms, at_ms=at_ms, former=None)
    drops = [(one.raised, one.since_ms) for one in changes if one.statistic == "review_recall"]
    assert [raised for raised, _ in drops] == [True, False]
    assert drops[0][1] == drops[1][1]


def test_the_outcomes_are_those_of_the_policy():
    assert OUTCOMES[APPROVE], OUTCOMES[DECLINE] == ("approve", "decline")
