"""`fraudstream train`: a history becomes a bundle and its holdout, twice the same; bad input is one sentence."""

import json
import shutil

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from command import Command, run_here, sentence
from models.bundle import open_bundle
from models.ensemble import load_engine
from models.holdout import read_holdout
from models.manifest import FILES, MANIFEST, OPTIONAL_FILES
from state.features import StateSpec, default_feature_set
from stream.backfill import backfill
from stream.mapping import Limits, Mapping
from stream.simulate import Simulation, simulate

DAY_MS = 86_400_000
SIMULATION = Simulation(events=6_000, users=120, days=50, fraud_rate=0.04, seed=5)
QUICK = ("--folds", 2, "--trials", 0, "--threads", 1)


@pytest.fixture(scope="module")
def history():
    return simulate(SIMULATION).drop_columns(["fraud_pattern"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(folder, history, monkeypatch, capsys):
    """train(table, …) writes h.parquet and runs the command on it, in this process."""

    def train(table=history, *args):
        pq.write_table(table, folder / "h.parquet")
        return run_here(monkeypatch, capsys, "train", "h.parquet", "-o", "bundle", *QUICK, *args)

    return train


@pytest.fixture(scope="module")
def trained(tmp_path_factory, history):
    """The same training in two processes, with a search: the folder of each, and what the first one said."""
    folders = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    said = []
    for folder in folders:
        pq.write_table(history, folder / "h.parquet")
        done = Command(folder)("train", "h.parquet", "-o", "models/b", "--folds", 2, "--trials", 1, "--threads", 1)
        assert (done.returncode, done.stderr) == (0, "")
        said.append(done.stdout)
    return *folders, said[0]


def test_training_twice_in_two_processes_gives_every_file_byte_for_byte(trained):
    one, two, _ = trained
    names = sorted(path.name for path in (one / "models" / "b").iterdir())
    assert names == sorted([*FILES, *OPTIONAL_FILES, MANIFEST])
    for name in names:
        assert (one / "models/b" / name).read_bytes() == (two / "models/b" / name).read_bytes(), name
    holdouts = [(folder / "models" / "b.holdout.parquet").read_bytes() for folder in (one, two)]
    assert holdouts[0] == holdouts[1]


def test_the_bundle_says_what_it_was_made_from(trained):
    bundle = open_bundle(trained[0] / "models" / "b")
    lineage = bundle.lineage
    assert lineage["data"]["rows"] == SIMULATION.events
    assert lineage["data"]["frauds"] == 240
    assert len(lineage["data"]["sha256"]) == 64
    assert lineage["data"]["first_ms"] < lineage["data"]["last_ms"]
    assert lineage["feature_set"]["hash"] == bundle.feature_set_hash
    assert {"version"} <= lineage["code"].keys()
    assert [trial["library"] for trial in lineage["search"]] == ["xgboost", "lightgbm"] * 2
    assert lineage["search"][0]["chosen"] == {}
    assert bundle.parameters["seed"] == 1
    assert bundle.parameters["xgboost"]["version"]
    assert "var" not in json.dumps(lineage)


def test_the_holdout_is_the_last_days_and_its_metrics_are_the_bundles(trained, history):
    bundle = open_bundle(trained[0] / "models" / "b")
    holdout = read_holdout(trained[0] / "models" / "b.holdout.parquet")
    times = history.column("event_time").cast(pa.int64()).to_numpy()
    last = times > times[-1] - 7 * DAY_MS
    assert holdout.transaction_ids == history.filter(pa.array(last)).column("transaction_id").to_pylist()
    assert holdout.labels.sum() == bundle.metrics["frauds"] == pc.sum(history.column("is_fraud").filter(last)).as_py()
    assert holdout.countries == history.filter(pa.array(last)).column("country").to_pylist()
    assert holdout.feature_set == bundle.feature_set_hash
    assert holdout.feature_names == bundle.feature_names
    scores = load_engine(bundle).score(holdout.features)
    assert float((scores >= np.float32(bundle.thresholds.review)).mean()) == bundle.metrics["review_rate"]
    # Trained on what was known 7 days before: the reference histograms count those rows.
    known = int((times < times[-1] - 7 * DAY_MS + 1 - 7 * DAY_MS).sum())
    assert {one.events for one in bundle.histograms.features.values()} == {known}
    assert bundle.parameters["training_events"] == known
    assert bundle.histograms.score.events == last.sum()
    assert bundle.histograms.score.count(scores).counts == pytest.approx(bundle.histograms.score.counts, abs=2)


def test_the_reference_histograms_count_the_features_that_backfill_writes(trained, tmp_path):
    bundle = open_bundle(trained[0] / "models" / "b")
    target, spec = tmp_path / "f.parquet", StateSpec(decoding=Mapping().decoding)
    backfill(
        trained[0] / "h.parquet", target, Mapping(), Limits(), spec, default_feature_set(), now_ms=1_800_000_000_000
    )
    table = pq.read_table(target).slice(0, bundle.parameters["training_events"])
    for name, found in bundle.histograms.features.items():
        assert found == found.count(table.column(name).to_numpy()), name


def test_it_says_how_good_the_ensemble_is_beside_its_base_models(trained):
    bundle, said = open_bundle(trained[0] / "models" / "b"), trained[2]
    assert f"models/b: model {bundle.version}, 6,000 transactions, trained in " in said
    found = [line.split() for line in said.splitlines()]
    for name, key in (("ensemble", ""), ("XGBoost alone", "xgboost_"), ("LightGBM alone", "lightgbm_")):
        figures = [f"{bundle.metrics[f'out_of_fold_{key}{metric}']:.4f}" for metric in ("auc_roc", "average_precision")]
        assert [*name.split(), *figures] in found
    card = (trained[0] / "models" / "b" / "card.md").read_text()
    for heading in ("Data", "Quality", "Calibration", "Segments", "How it was trained", "Limits"):
        assert f"## {heading}" in card
    assert f"| {bundle.metrics['out_of_fold_average_precision']:.4f} |" in card
    for name in ("auc_roc", "average_precision", "xgboost_auc_roc", "lightgbm_average_precision"):
        assert f"{bundle.metrics[name]:.4f}" not in said + card, "a figure of the holdout, which is for the gates"


def test_rows_may_come_in_any_order_of_time(train, history, folder):
    metrics = []
    for order in (np.arange(len(history)), np.random.default_rng(1).permutation(len(history))):
        assert train(history.take(pa.array(order))).returncode == 0
        bundle = open_bundle(folder / "bundle")
        metrics.append((bundle.metrics, bundle.xgboost, bundle.lightgbm, bundle.histograms))
        shutil.rmtree(bundle.directory)
    assert metrics[0] == metrics[1]


def labels_of(table, change):
    labels = np.array(table.column("is_fraud").to_pylist(), np.float64)
    times = table.column("event_time").cast(pa.int64()).to_numpy()
    return table.set_column(table.column_names.index("is_fraud"), "is_fraud", pa.array(change(labels, times)))


def leaking(table):
    """Amounts that were overwritten once the fraud was known."""
    fraud = np.array(table.column("is_fraud").to_pylist())
    amount = np.where(fraud, 9_000_000.0, table.column("amount").to_numpy())
    return table.set_column(table.column_names.index("amount"), "amount", pa.array(amount))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda t: t.rename_columns([{"is_fraud": "IS_FRAUD"}.get(name, name) for name in t.column_names]),
            "h.parquet has no column is_fraud with labels: name yours with --label; did you mean IS_FRAUD?",
        ),
        (
            lambda t: labels_of(t, lambda y, _: y * 0),
            "All 6000 events have the label 0; give a history that holds both",
        ),
        (lambda t: labels_of(t, lambda y, _: y * 0 + 1), "All 6000 events have the label 1"),
        (
            lambda t: labels_of(t, lambda y, _: y * (np.cumsum(y) % 12 == 0)),
            "and needs at least 20 frauds and an honest payment; give a longer history, fewer folds",
        ),
        (
            lambda t: pa.concat_tables([t, t.slice(7, 2)]),
            "h.parquet holds 2 rows whose transaction id stands in an earlier row, the first of them t5-000000007 in",
        ),
        (
            leaking,
            "The features amount (AUC 1.0000), sum_amount_1h (AUC 0.9999) alone tell frauds from honest payments",
        ),
        (
            lambda t: labels_of(t, lambda y, at: np.where(at == at[40], np.nan, y)),
            "h.parquet row 40, counted from 0 (transaction t5-000000040), has no label in the column is_fraud",
        ),
        (lambda t: t.drop_columns(["user_id"]), "h.parquet has no column user_id"),
    ],
)
def test_a_history_that_cannot_be_learned_from_is_one_sentence_and_exit_code_2(train, history, folder, spoil, says):
    done = train(spoil(history))
    assert says in sentence(done)
    assert (done.returncode, done.stdout) == (2, "")
    assert not (folder / "bundle").exists()


def test_a_column_that_the_mapping_names_and_the_file_lacks_is_one_sentence(train, folder):
    (folder / "fraudstream.toml").write_text("[codec.fields]\nuser_id = 'CUSTOMER'\n")
    done = train()
    assert "h.parquet has no column CUSTOMER" in sentence(done)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "Give a HISTORY file or --from-log, one of the two."),
        (("h.csv", "--from-log"), "Give a HISTORY file or --from-log, one of the two."),
        (("--from-log", "--label", "x"), "--label goes with a HISTORY file"),
        (("h.csv", "--decline-rate", "0.5"), "The rates must satisfy 0 < decline <= review < 1"),
        (("h.csv", "--folds", "0"), "is not in the range"),
        (("h.csv", "--holdout-days", "nan"), "nan is no finite number."),
        (("h.csv", "--holdout-days", "1e300"), "is not in the range"),
        (("h.csv", "--label-delay-days", "inf"), "is not in the range"),
        (("h.csv", "-o", "there"), "There is already something at there: choose another directory with -o."),
        (("h.csv", "-o", "h.csv/bundle"), "h.csv/bundle cannot be written"),
        (("h.csv", "-o", "/dev/fd/bundle"), "/dev/fd/bundle cannot be written"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(folder, monkeypatch, capsys, args, says):
    (folder / "h.csv").write_text("transaction_id,user_id,amount,currency,event_time,is_fraud\n")
    (folder / "there").mkdir()
    done = run_here(monkeypatch, capsys, "train", *args)
    assert says in sentence(done)
    assert done.returncode == 2


def test_refused_rows_are_kept_beside_the_bundle(train, history, folder):
    amount = history.column("amount").to_numpy().copy()
    amount[100] = -5.0
    done = train(history.set_column(history.column_names.index("amount"), "amount", pa.array(amount)))
    assert done.returncode == 0
    assert done.stderr == "1 row left out (1 out_of_range); see bundle.refused.jsonl\n"
    refused = orjson.loads((folder / "bundle.refused.jsonl").read_bytes())
    assert (refused["row"], refused["error"]) == (100, "out_of_range")
    assert open_bundle(folder / "bundle").lineage["data"]["left_out_by_reason"] == {"out_of_range": 1}
