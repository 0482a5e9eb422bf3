"""The model card says what the holdout says, by segment too, and its plots are the same bytes for the same figures."""

import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from models.card import MIN_SEGMENT_EVENTS, Judged, card_text, days, reliability, segments
from models.card_plots import card_plots
from models.errors import ModelError
from models.manifest import PLOTS
from models.policy import Thresholds

DAY_MS = 86_400_000
THRESHOLDS = Thresholds(0.5, 0.9)


def judged(n=2_000, seed=1):
    rng = np.random.default_rng(seed)
    scores = rng.random(n).astype(np.float32) ** 4
    return Judged(
        labels=(rng.random(n) < scores).astype(np.int8),
        scores=scores.astype(np.float32),
        amount_minor=rng.integers(-500, 100_000, n),
        countries=rng.choice(["DE", "FR", "X|Y", "", "rare"], n, p=[0.5, 0.3, 0.1, 0.09, 0.01]).tolist(),
        channels=[""] * n,
    )


def test_segments_equal_a_naive_count():
    data = judged()
    found = {(one.kind, one.name): one for one in segments(data, 0.5)}
    for country in ("DE", "FR", "X|Y", ""):
        rows = [
            (label, score)
            for label, score, name in zip(data.labels, data.scores, data.countries, strict=True)
            if name == country
        ]
        one = found["country", country or "not known"]
        honest = [score for label, score in rows if label == 0]
        frauds = [score for label, score in rows if label == 1]
        assert (one.events, one.frauds) == (len(rows), len(frauds))
        assert one.reviewed == pytest.approx(np.mean([score >= 0.5 for _, score in rows]))
        assert one.false_positives == pytest.approx(np.mean([score >= 0.5 for score in honest]))
        assert one.recall == pytest.approx(np.mean([score >= 0.5 for score in frauds]))
    rare = found["country", "all others"]
    assert rare.events == data.countries.count("rare") < MIN_SEGMENT_EVENTS
    assert not any(kind == "channel" for kind, _ in found)
    amounts = [one for (kind, _), one in found.items() if kind == "amount"]
    assert len(amounts) == 4
    assert sum(one.events for one in amounts) == len(data.labels)


def test_reliability_bins_hold_every_event_once_from_low_to_high():
    data = judged()
    bins = reliability(data.scores, data.labels)
    assert sum(one.events for one in bins) == len(data.labels)
    assert [one.score for one in bins] == sorted(one.score for one in bins)
    assert sum(one.frauds * one.events for one in bins) == pytest.approx(data.labels.sum())
    assert len(reliability(data.scores[:3], data.labels[:3])) == 3


def test_days_count_events_and_frauds():
    times = np.array([0, DAY_MS - 1, DAY_MS, 5 * DAY_MS + 3])
    assert days(times, np.array([1, 0, 1, 1], np.int8)) == [(0, 2, 1), (DAY_MS, 1, 1), (5 * DAY_MS, 1, 1)]


def test_the_card_names_quality_limits_and_plots_and_keeps_tables_whole(trained):
    data = judged()
    text = card_text(trained, data, {"data": {"sha256": "ab12", "first_ms": 0, "last_ms": DAY_MS}}, PLOTS[:2]).decode()
    assert f"| ensemble | {trained.metrics['out_of_fold_auc_roc']:.4f} |" in text
    for name in ("auc_roc", "average_precision", "xgboost_auc_roc", "lightgbm_average_precision"):
        assert f"{trained.metrics[name]:.4f}" not in text, "a figure of the holdout"
    assert f"{trained.thresholds.review:.4f}" in text
    assert "1970-01-02" in text
    assert "`ab12`" in text
    assert r"X\|Y" in text
    assert "![quality](card_quality.svg)" in text
    assert "card_data.svg" not in text
    assert f"Of {data.labels.sum():,} frauds, a share" in text


def test_plots_are_svg_without_dates_and_equal_in_another_process(tmp_path):
    plots = card_plots(judged(), THRESHOLDS, [(0, 10, 1), (DAY_MS, 12, 0)])
    assert sorted(plots) == sorted(PLOTS)
    for content in plots.values():
        assert ET.fromstring(content).tag.endswith("svg")
        assert b"dc:date" not in content
    code = (
        "import sys, test_card as t; from models.card_plots import card_plots; from pathlib import Path\n"
        "for name, content in card_plots(t.judged(), t.THRESHOLDS, [(0, 10, 1), (t.DAY_MS, 12, 0)]).items():\n"
        "    Path(sys.argv[1], name).write_bytes(content)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=__file__.rpartition("/")[0])
    for name, content in plots.items():
        assert (tmp_path / name).read_bytes() == content, name


def test_a_holdout_whose_lowest_bins_hold_no_fraud_can_be_drawn():
    data = judged(60)
    quiet = Judged(np.where(data.scores > 0.9, 1, 0).astype(np.int8), data.scores * 0, *(data.amount_minor,), [], [])
    assert card_plots(quiet, THRESHOLDS, [(0, 10, 1)])["card_calibration.svg"]


def test_without_matplotlib_the_sentence_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModelError, match=r"pip install 'fraudstream\[train\]'"):
        card_plots(judged(), THRESHOLDS, [(0, 10, 1)])
