"""A report's page needs nothing else, its JSON holds every figure, and neither depends on when it was written."""

import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from models.errors import ModelError
from models.evaluation import Plan, Sample, evaluate
from models.folds import DAY_MS
from models.policy import Thresholds
from models.report import report_html, report_json
from models.report_plots import plots
from models.report_tables import TOO_FEW, as_text, plain, tables

ABOUT = {"model": "abc123", "data": "<script>alert(1)</script>.csv", "rows refused": 12_345}


@pytest.fixture(scope="module")
def evaluation():
    rng = np.random.default_rng(0)
    n = 2_000
    log_odds = rng.normal(-2, 1.5, n)
    sample = Sample(
        scores=(1 / (1 + np.exp(-log_odds))).astype(np.float32),
        log_odds=log_odds,
        labels=(rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(np.int8),
        times_ms=np.sort(rng.integers(0, 4 * DAY_MS, n)),
        users=rng.integers(0, 200, n).astype(np.int32),
        amounts=rng.lognormal(3, 1, n),
        dimensions={"country": ["$DE_{&<b>"] * (n - 15) + ["FR"] * 15, "channel": [""] * n},
        base={"xgboost": log_odds + rng.normal(size=n)},
    )
    return evaluate(sample, Plan(Thresholds(0.4, 1.0), resamples=20))


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.loads, self.data = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]

    def handle_data(self, data):
        self.data.append(data)


def test_a_page_holds_every_plot_and_table_and_loads_nothing(evaluation):
    drawn = plots(evaluation)
    text = report_html(evaluation, ABOUT, drawn)
    found = Elements()
    found.feed(text)
    assert found.loads == []
    assert "script" not in found.tags
    assert found.tags.count("svg") == len(drawn) == 6
    assert found.tags.count("table") == len(tables(evaluation, ABOUT))
    assert ABOUT["data"] in found.data
    assert "$DE_{&<b>" in found.data
    assert "@import" not in text
    assert "mathdefault" not in text
    for svg in drawn.values():
        ET.fromstring(svg)


def test_the_same_evaluation_gives_the_same_bytes(evaluation):
    assert plots(evaluation) == plots(evaluation)
    assert report_json(evaluation, ABOUT) == report_json(evaluation, ABOUT)


def test_the_ids_of_one_plot_are_not_referred_to_by_another(evaluation):
    defined = [set(re.findall(r'<(?:clipPath|path) id="([^"]+)"', svg)) for svg in plots(evaluation).values()]
    assert sum(map(len, defined)) == len(set().union(*defined))


def test_json_holds_everything_under_stable_keys(evaluation):
    found = json.loads(report_json(evaluation, ABOUT))
    assert list(found) == [
        "format",
        "about",
        "sample",
        "plan",
        "models",
        "thresholds",
        "cost",
        "calibration",
        "days",
        "segments",
        "curves",
        "histogram",
    ]
    assert set(found["models"]["ensemble"]) == {"auc_roc", "average_precision", "card_precision"}
    assert set(found["models"]["xgboost"]["auc_roc"]) == {"value", "low", "high"}
    assert found["days"][0]["day"] == "1970-01-01"
    assert found["thresholds"]["decline"]["precision"] == {"value": None, "low": None, "high": None}
    assert found["segments"]["country"][1]["auc_roc"] is None
    assert found["plan"]["seed"] == 1


def test_what_is_not_finite_becomes_null():
    assert plain({"a": [math.nan, math.inf, 1.5, (None, "x")]}) == {"a": [None, None, 1.5, [None, "x"]]}


def test_the_terminals_tables_are_aligned_and_say_where_frauds_are_too_few(evaluation):
    text = as_text(tables(evaluation, ABOUT))
    assert TOO_FEW in text
    assert "12,345" in text
    assert "No transaction says its channel." in text
    assert "nan" not in text
    ranking = text[text.index("Ranking") :].splitlines()
    assert ranking[2].index("0.") == ranking[1].index("AUC ROC") == ranking[3].index("0.")


def test_without_matplotlib_the_sentence_names_what_to_install(evaluation, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ModelError, match=r"pip install 'fraudstream\[train\]'"):
        plots(evaluation)
