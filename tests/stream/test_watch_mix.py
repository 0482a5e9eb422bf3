"""Of all the segments that workers named, only so many are judged, and the same ones by whoever reads the log."""

import random
from collections import Counter

import msgspec
import pytest

from stream.alert_record import Alert
from stream.telemetry_record import Telemetry
from stream.watch_alerts import AlertBook, Cause
from stream.watch_comparison import Vectors, compare
from stream.watch_findings import mix_finding, subject_findings
from stream.watch_mix import DecisionMix
from stream.watch_panes import WINDOW_PANES, Layout, Times
from watched_traffic import DRIFT, REFERENCE, START_MS

TIMES = Times.of(DRIFT.window, DRIFT.rhythm)


def record(segments):
    return Telemetry(
        worker="w1",
        epoch=START_MS,
        sequence=0,
        interval=START_MS // 1_000,
        interval_ms=1_000,
        opened_at_ms=START_MS,
        closed_at_ms=START_MS,
        model="m1",
        engine="forest",
        feature_set="f",
        segments=segments,
    )


def added(records, most):
    """records: of one interval each, a pane apart."""
    mix = DecisionMix(DRIFT, TIMES, most)
    for pane, segments in enumerate(records):
        mix.add(record(segments), pane)
    return mix, len(records) * TIMES.pane_ms


def test_workers_that_each_name_others_do_not_add_up_to_more_segments_than_are_told_apart():
    ids = random.Random(3)
    records = [
        {"DE": {"approve": 90}, "FR": {"approve": 50, "review": 5}, "": {}, "other": {"approve": 3}}
        | {f"t-{ids.randrange(10**9)}": {"approve": 1} for _ in range(40)}
        for _ in range(12)
    ]
    mix, at_ms = added(records, 4)
    assert mix.compare(at_ms, AlertBook(3)) == []
    assert len(mix.states) == 6
    assert {"", "other", "DE", "FR"} < mix.states.keys()
    assert mix.states["FR"].shares == pytest.approx({"approve": 10 / 11, "review": 1 / 11, "decline": 0})
    assert sum(state.events for segment, state in mix.states.items() if segment) == mix.states[""].events == 12 * 188


def test_which_segments_are_judged_depends_on_the_counts_alone_not_on_their_order():
    rng = random.Random(4)
    records = [{f"s{rng.randrange(60)}": {"approve": rng.randrange(9)} for _ in range(30)} for _ in range(10)]
    found = []
    for _ in range(3):
        mix = DecisionMix(DRIFT, TIMES, 5)
        for pane, segments in enumerate(records):
            mix.add(record(dict(rng.sample(sorted(segments.items()), len(segments)))), pane)
        mix.compare(len(records) * TIMES.pane_ms, AlertBook(3))
        found.append(mix.states)
    assert found[0] == found[1] == found[2]
    counts = Counter()
    for segments in records:
        counts.update({segment: by["approve"] for segment, by in segments.items()})
    least = sorted(counts.values(), reverse=True)[4]
    assert all(counts[segment] >= least for segment in found[0].keys() - {"", "other"})
    assert len(found[0]) == 7


@pytest.mark.parametrize("most", [2, 3])
def test_an_alert_about_a_segment_that_is_judged_no_more_ends(most):
    said = Alert(
        id="1",
        state="raised",
        signal="decision_mix_drift",
        subject="",
        segment="IT",
        model="",
        statistic="psi",
        value=1.0,
        bound=0.1,
        since=0,
        at=0,
        runbook="decision_mix_drift",
        text="",
    )
    book = AlertBook(3, [said])
    mix, at_ms = added([{"DE": {"approve": 9}, "FR": {"approve": 8}, "IT": {"approve": 1}}] * 3, most)
    alerts = mix.compare(at_ms, book)
    assert [(alert.state, alert.segment) for alert in alerts] == ([("cleared", "IT")] if most == 2 else [])
    assert ("IT" in mix.states) == (Cause("decision_mix_drift", "", "IT", "") in book.open) == (most == 3)


@pytest.mark.parametrize(("times", "raised"), [(1, []), (20, ["decision_mix_drift"])])
def test_one_stolen_card_on_a_thin_night_is_no_other_mix_and_the_same_shares_of_many_payments_are(times, raised):
    drift = msgspec.structs.replace(DRIFT, unlearned_psi=DRIFT.psi)
    mix = DecisionMix(drift, TIMES, 4)
    rhythm = TIMES.rhythm

    def counted(declined):
        return {"": {"approve": (300 - declined) * times, "decline": declined * times}}

    for pane in range(rhythm - WINDOW_PANES):
        mix.add(record(counted(2)), pane)
    mix.add(record(counted(14)), rhythm)
    alerts = mix.compare((rhythm + 1) * TIMES.pane_ms, AlertBook(1))
    assert [alert.signal for alert in alerts if not alert.segment] == raised


def test_what_ends_an_alert_does_not_say_that_it_goes_on():
    said = mix_finding("", 0.003, 0.05, 0.75, judged=True, sure=True)
    assert (said.state, "unlike" in said.text) == ("well", False)
    assert "unlike" in mix_finding("DE", 0.3, 0.05, 0.75, judged=True, sure=True).text
    layout = Layout(REFERENCE)
    (figures, *_) = compare(layout, Vectors(layout.reference, layout.reference, None), DRIFT, set())
    texts = {signal: finding.text for signal, finding in subject_findings("amount", figures, DRIFT)}
    assert texts["detector_drift"].startswith("The feature amount is back: ")
    assert "unlike" not in texts["feature_drift"]
