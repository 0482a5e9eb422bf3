"""`fraudstream evaluate`: a file's labels, features and segments reach the figures, and mistakes get one sentence."""

import json
import re
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from command import Command, sentence
from models.bundle import open_bundle
from models.metrics import auc_roc, average_precision
from state.features import StateSpec, default_feature_set
from stream.backfill import backfill
from stream.cli import fraudstream
from stream.errors import UsageError
from stream.labelled import Period, read_labelled
from stream.mapping import Limits, Mapping
from stream.money import major_units
from stream.report_files import ReportFiles
from stream.simulate import Simulation, simulate
from stream.simulation_file import write_simulation

NOW_MS = 1_800_000_000_000
FEATURES = default_feature_set()


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    path = tmp_path_factory.mktemp("history") / "history.parquet"
    write_simulation(simulate(Simulation(events=8_000, users=200, merchants=50, fraud_rate=0.03, seed=5)), path)
    return path


def read(path, label="is_fraud", mapping=None):
    mapping = mapping or Mapping()
    spec = StateSpec(decoding=mapping.decoding)
    return read_labelled(path, label, mapping, Limits(), spec, FEATURES, now_ms=NOW_MS, allow_repeats=True)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def payment(number, **other):
    return {
        "transaction_id": f"t{number}",
        "user_id": f"u{number % 3}",
        "amount": 1.5 + number,
        "currency": "EUR",
        "event_time": 1_700_000_000_000 + 60_000 * number,
        "is_fraud": number % 2,
        **other,
    }


# --- the file --------------------------------------------------------------------------------------------------------


def test_features_and_labels_are_those_that_backfill_writes(tmp_path, history):
    target = tmp_path / "features.parquet"
    spec = StateSpec(decoding=Mapping().decoding)
    backfill(history, target, Mapping(), Limits(), spec, FEATURES, now_ms=NOW_MS, keep=["is_fraud"])
    table, found = pq.read_table(target), read(history)
    wanted = np.column_stack([table.column(name).to_numpy() for name in FEATURES.names])
    assert np.array_equal(found.features.view(np.uint32), wanted.view(np.uint32))
    assert found.labels.tolist() == [int(label) for label in table.column("is_fraud").to_pylist()]
    assert found.user_ids == table.column("user_id").to_pylist()
    assert found.times_ms.tolist() == table.column("event_time").cast(pa.int64()).to_pylist()


def test_columns_of_segments_come_by_the_mapping(tmp_path):
    mapping = Mapping(fields={"country": ("land", "state"), "channel": ("kanal",)}, defaults={"channel": "pos"})
    rows = [payment(0, land="DE"), payment(1, state="FR", kanal="web"), payment(2, land="", state=49), payment(3)]
    found = read(lines(tmp_path / "rows.jsonl", rows), mapping=mapping)
    assert (found.countries, found.channels) == (["DE", "FR", "49", ""], ["pos", "web", "pos", "pos"])


def test_amounts_are_in_major_units_of_their_own_currency(tmp_path):
    rows = [payment(0, amount=12.34), payment(1, amount=500, currency="JPY"), payment(2, amount=1.5, currency="KWD")]
    found = read(lines(tmp_path / "rows.jsonl", rows))
    amounts, currencies = major_units(found.amount_minor, found.currency)
    assert amounts.tolist() == [12.34, 500.0, 1.5]
    assert currencies == ("EUR", "JPY", "KWD")


def test_with_a_base_currency_all_amounts_are_in_it(tmp_path):
    rows = [payment(0, amount=12.34), payment(1, amount=500, currency="JPY")]
    mapping = Mapping(base_currency="EUR", rates={"JPY": Fraction("0.0061")})
    found = read(lines(tmp_path / "rows.jsonl", rows), mapping=mapping)
    amounts, currencies = major_units(found.amount_minor, found.currency)
    assert amounts.tolist() == [12.34, 3.05]
    assert currencies == ("EUR",)


def test_a_repeated_transaction_counts_once_and_refused_rows_are_counted_by_reason(tmp_path):
    rows = [payment(0), payment(1), payment(1), payment(2, amount=-1), payment(3, is_fraud=True), payment(4, amount=-2)]
    found = read(lines(tmp_path / "rows.jsonl", rows))
    assert (found.labels.tolist(), found.repeated) == ([0, 1, 1], 1)
    assert found.refused == {"out_of_range": 2}
    assert found.first_refused == {"out_of_range": 3}


def test_rows_in_any_order_of_time_are_judged_as_the_stream_would_have_met_them(tmp_path):
    day_ms = 86_400_000
    rows = [payment(at, user_id="u", event_time=1_700_000_000_000 + at * day_ms) for at in range(40)]
    path = lines(tmp_path / "rows.jsonl", rows[::-1])
    found = read(path)
    assert found.features.tobytes() == read(lines(tmp_path / "sorted.jsonl", rows)).features.tobytes()
    assert found.labels.tolist() == [row["is_fraud"] for row in rows]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("values", [[True, False], [1, 0], [1.0, 0.0], ["1", "0"], ["true", "false"]])
def test_labels_may_be_written_in_any_of_the_usual_ways(tmp_path, kind, values):
    rows = [payment(at, is_fraud=value) for at, value in enumerate(values)]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        lines(path, rows)
    elif kind == "csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert read(path).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no rows"),
        ([payment(0, is_fruad=1, is_fraud=0)], "has no column is_fruad"),
        (
            [payment(0), payment(1, is_fraud=None)],
            r"row 1, counted from 0 \(transaction t1\), has no label",
        ),
        ([payment(0), payment(1, is_fraud=2)], "says 2, which is neither 0 nor 1, in the column is_fraud"),
        ([payment(0), payment(1, is_fraud=[1])], r"says \[1\], which is neither"),
        ([payment(0, amount=-1)], r"No row of .* is a transaction \(1 out_of_range\): name your columns"),
    ],
)
def test_a_file_that_cannot_be_judged_gets_a_sentence(tmp_path, rows, words):
    label = "is_fruad" if "fruad" in words else "is_fraud"
    if label == "is_fruad":
        rows = [{name: value for name, value in row.items() if name != label} for row in rows]
    with pytest.raises(UsageError, match=words) as caught:
        read(lines(tmp_path / "rows.jsonl", rows), label)
    if label == "is_fruad":
        assert "did you mean is_fraud?" in str(caught.value)


def test_days_outside_the_period_fill_windows_and_need_no_label(tmp_path):
    day_ms = 86_400_000
    rows = [payment(0, event_time=1_700_000_000_000 + at * day_ms, transaction_id=f"t{at}") for at in range(5)]
    for row in (rows[0], rows[4]):
        del row["is_fraud"]
    path = lines(tmp_path / "rows.jsonl", rows)
    mapping = Mapping()
    spec = StateSpec(decoding=mapping.decoding)

    def judged(first, last):
        period = Period(1_700_000_000_000 + first * day_ms, 1_700_000_000_000 + last * day_ms)
        return read_labelled(path, "is_fraud", mapping, Limits(), spec, FEATURES, now_ms=NOW_MS, period=period)

    found = judged(1, 4)
    assert found.outside == 2
    assert found.features[:, FEATURES.names.index("count_30d")].tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(UsageError, match=r"row 4, counted from 0 \(transaction t4\), has no label"):
        judged(1, 5)
    with pytest.raises(UsageError, match="lies between the dates given"):
        judged(7, 9)


# --- the verb --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported(tmp_path_factory, model_bundle, history):
    """What the verb printed, and the folder it wrote, for a bundle trained on other cardholders."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        args = ["evaluate", str(model_bundle), str(history), "-o", "out", "--resamples", "20", "--cards", "10"]
        done = CliRunner().invoke(fraudstream, args, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output, folder / "out"


def test_the_figures_are_those_of_the_bundle_on_the_files_own_features(reported, model_bundle, history):
    from models.ensemble import load_engine

    bundle, rows = open_bundle(model_bundle), read(history)
    scores = load_engine(bundle, "onnx").score(rows.features)
    found = json.loads((reported[1] / "report.json").read_text())
    ensemble = found["models"]["ensemble"]
    assert ensemble["auc_roc"]["value"] == pytest.approx(auc_roc(scores, rows.labels), abs=1e-4)
    assert ensemble["average_precision"]["value"] == pytest.approx(average_precision(scores, rows.labels), abs=1e-3)
    review = found["thresholds"]["review"]
    held = scores >= np.float32(bundle.thresholds.review)
    amounts, _ = major_units(rows.amount_minor, rows.currency)
    assert review["rate"]["value"] == pytest.approx(held.mean(), abs=1e-3)
    assert found["cost"]["without_model"]["value"] == pytest.approx(amounts[rows.labels == 1].sum())
    assert found["about"]["model"] == bundle.version
    assert found["sample"]["events"] == 8_000
    assert {segment["name"] for segment in found["segments"]["channel"]} == set(rows.channels)
    bands = [segment["name"] for segment in found["segments"]["amount"]]
    assert bands == ["under 10", "10 to 50", "50 to 100", "100 to 500", "500 and more"]


def test_the_terminal_shows_the_base_models_beside_the_ensemble_and_where_the_report_is(reported):
    output, folder = reported
    for words in ("ensemble", "xgboost", "lightgbm", "AUC ROC", "CP@10", "Calibration", "By country"):
        assert words in output
    assert output.index("ensemble") < output.index("xgboost")
    assert output.rstrip().endswith("out/report.json")
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 6


def test_the_handbooks_protocol_compares_five_models(tmp_path, command):
    path = tmp_path / "month.parquet"
    simulation = Simulation(events=24_000, users=800, merchants=50, days=22, fraud_rate=0.08, seed=3)
    write_simulation(simulate(simulation), path)
    args = ("--protocol", "handbook", "--train-start", "2024-01-01", path, "--resamples", 5, "-o", "out")
    done = command("evaluate", *args)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "out" / "report.json").read_text())["comparison"]["runs"][0]
    assert list(run["models"]) == ["ensemble", "XGBoost", "LightGBM", "random forest", "logistic regression"]
    assert all(one["auc_roc"]["value"] > 0.6 for one in run["models"].values())
    assert run["left_out"] > 0
    assert "card precision@100" in done.stdout
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") == 3
    late = sentence(command("evaluate", *args[:3], "2024-01-05", *args[4:]))
    assert "choose a first training day from 2024-01-01 to 2024-01-0" in late


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["bundle"], "Give MODEL and DATA."),
        (["--protocol", "handbook", "--train-start", "2024-01-01", "bundle", "x.csv"], "give DATA alone"),
        (["--protocol", "handbook", "x.csv"], "--protocol handbook and --train-start DATE go together."),
        (["bundle", "x.csv"], "File 'x.csv' does not exist."),
        (
            ["bundle", "there.csv"],
            "There is no model bundle, neither as a directory nor as a version in var/models.",
        ),
        (["there", "there.csv", "-o", "there.csv"], "there.csv is a file: give -o a folder"),
        (["there", "there.csv", "--json", "there.csv"], "there.csv would be overwritten by its own report"),
        (
            ["there", "there.csv", "--from", "2024-01-02", "--until", "2024-01-01"],
            "--until must not lie before --from.",
        ),
        (["--protocol", "handbook", "--from", "2024-01-01", "there.csv"], "leave out --from and --until"),
        (["there", "there.csv", "--review-cost", "nan"], "nan is no finite number."),
        (["there", "there.csv", "--until", "9999-12-31"], "There is no model there"),
    ],
)
def test_wrong_use_is_one_sentence_with_exit_code_2(command, args, words):
    (command.folder / "there.csv").write_text("a\n1\n")
    done = command("evaluate", *args)
    assert words in sentence(done)
    assert done.returncode == 2


@pytest.mark.parametrize("text", ["", "10,5", "x", "0,10", "nan"])
def test_bands_that_do_not_rise_are_refused(command, text):
    (command.folder / "there.csv").write_text("")
    done = command("evaluate", "there", "there.csv", "--amount-bands", text)
    assert done.returncode == 2
    assert sentence(done).startswith("--amount-bands takes rising amounts above 0")


def test_days_that_the_model_learned_from_are_named_with_the_day_to_begin_at(command):
    simulation = Simulation(events=3_000, users=60, days=40, fraud_rate=0.05, seed=5)
    write_simulation(simulate(simulation), command.folder / "h.parquet")
    done = command("train", "h.parquet", "-o", "b", "--folds", 2, "--trials", 0, "--threads", 1)
    assert done.returncode == 0, done.stderr
    known = open_bundle(command.folder / "b").parameters["training_events"]
    wanted = ("evaluate", "b", "h.parquet", "--resamples", 2, "--json", "r.json")
    assert command(*wanted).returncode == 0
    said = json.loads((command.folder / "r.json").read_text())["about"]["rows the model may know"]
    assert said == f"{known:,}, which flatter it: judge from 2024-01-27 on (--from)"
    assert command(*wanted, "--from", "2024-01-27").returncode == 0
    assert "rows the model may know" not in json.loads((command.folder / "r.json").read_text())["about"]


def test_a_model_whose_fields_the_state_does_not_keep_is_refused(command, model_bundle, history):
    command.settings('[state]\nfields = ["country"]\n')
    done = command("evaluate", model_bundle, history)
    assert done.returncode == 2
    assert "but the state keeps country" in sentence(done)


def test_one_class_is_one_sentence(command, model_bundle):
    path = lines(command.folder / "rows.jsonl", [payment(at, is_fraud=0) for at in range(30)])
    assert "All 30 transactions are labelled as honest" in sentence(command("evaluate", model_bundle, path))


def test_a_page_that_cannot_be_written_is_said_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        ReportFiles(tmp_path / "file" / "page.html", None, tmp_path / "data.csv")


def test_the_verb_imports_what_it_needs_only_when_it_runs():
    import subprocess
    import sys

    code = "import sys, stream.worker, stream.app, stream.line; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("settings", "options", "engine"), [("onnx", (), "onnx"), ("onnx", ("--engine", "forest"), "forest")]
)
def test_what_scores_is_what_a_worker_would_score_with_unless_it_is_named(
    tmp_path, monkeypatch, model_bundle, settings, options, engine
):
    data = lines(tmp_path / "d.jsonl", map(payment, range(60)))
    monkeypatch.chdir(tmp_path)
    args = ["--set", f"model.engine={settings}", "evaluate", model_bundle, data, "--resamples", 2, *options]
    done = CliRunner().invoke(fraudstream, [str(arg) for arg in args], catch_exceptions=False)
    assert re.search(rf"engine +{engine}\n", done.output)
