"""A labelled file becomes rows to train on: in order of time, with the stream's features, none without a label."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from state.features import StateSpec, default_feature_set
from stream.backfill import backfill
from stream.errors import UsageError
from stream.labelled import read_labelled
from stream.mapping import Limits, Mapping
from stream.simulate import Simulation, simulate
from stream.simulation_file import write_simulation

SPEC = StateSpec(decoding=Mapping().decoding)
FEATURES = default_feature_set()
NOW_MS = 1_800_000_000_000
START_MS = 1_700_000_000_000


def read(path, label="is_fraud", mapping=None):
    refused = path.with_suffix(".refused.jsonl")
    mapping = mapping or Mapping()
    return read_labelled(path, label, mapping, Limits(), SPEC, FEATURES, now_ms=NOW_MS, refused_path=refused)


@pytest.fixture
def lines(tmp_path):
    """lines(rows) writes a JSON-lines file and returns its path."""

    def write(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path

    return write


def payment(number, **other):
    return {
        "transaction_id": f"t{number}",
        "user_id": f"u{number % 3}",
        "amount": 1.5,
        "currency": "EUR",
        "event_time": START_MS + 60_000 * number,
        "is_fraud": number % 2,
        **other,
    }


def test_times_and_labels_are_checked_in_order_of_time_before_any_feature_is_computed(lines, monkeypatch):
    class TooFewError(Exception):
        pass

    def check(times_ms, labels):
        assert times_ms.tolist() == [START_MS + 60_000 * number for number in range(4)]
        assert labels.tolist() == [0, 1, 0, 1]
        raise TooFewError

    monkeypatch.setattr("stream.labelled.compute", lambda *_: pytest.fail("features were computed"))
    path = lines([payment(number) for number in (3, 1, 0, 2)])
    with pytest.raises(TooFewError):
        read_labelled(path, "is_fraud", Mapping(), Limits(), SPEC, FEATURES, now_ms=NOW_MS, check=check)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_rows_in_any_order_get_the_features_of_the_file_in_order_of_time(tmp_path, kind):
    table = simulate(Simulation(events=800, users=20, fraud_rate=0.1, seed=4))
    sorted_path, shuffled_path = tmp_path / f"sorted.{kind}", tmp_path / f"shuffled.{kind}"
    write_simulation(table, sorted_path)
    order = np.random.default_rng(2).permutation(len(table))
    write_simulation(table.take(pa.array(order)), shuffled_path)
    target = tmp_path / "features.parquet"
    backfill(sorted_path, target, Mapping(), Limits(), SPEC, FEATURES, now_ms=NOW_MS)
    backfilled = pq.read_table(target)
    expected = np.column_stack([backfilled.column(name).to_numpy() for name in FEATURES.names])
    for path in (sorted_path, shuffled_path):
        rows = read(path)
        assert rows.features.tobytes() == expected.astype(np.float32).tobytes()
        assert rows.transaction_ids == table.column("transaction_id").to_pylist()
        assert rows.user_ids == table.column("user_id").to_pylist()
        assert rows.labels.tolist() == [int(label) for label in table.column("is_fraud").to_pylist()]
        assert rows.countries == table.column("country").to_pylist()
        assert rows.channels == table.column("channel").to_pylist()
        assert rows.times_ms.tolist() == backfilled.column("event_time").cast(pa.int64()).to_pylist()
        assert rows.amount_minor.tolist() == backfilled.column("amount").to_numpy().astype(np.int64).tolist()


def test_rows_of_the_same_moment_keep_the_files_order(lines):
    rows = read(lines([payment(n, event_time=START_MS + n // 4, user_id="u") for n in (5, 4, 7, 6, 1, 0, 3, 2)]))
    assert rows.transaction_ids == ["t1", "t0", "t3", "t2", "t5", "t4", "t7", "t6"]
    assert rows.features[:, FEATURES.names.index("count_24h")].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("one", [1, True, "1", "true", "True", 1.0, "1.0"])
def test_a_label_may_be_written_in_many_ways(lines, one):
    zero = {"1": "0", "true": "false", "True": "False", "1.0": "0.0"}[one] if isinstance(one, str) else type(one)(0)
    assert read(lines([payment(0, is_fraud=zero), payment(1, is_fraud=one)])).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (None, r"row 2, counted from 0 \(transaction t2\), has no label in the column is_fraud"),
        ("", "has no label"),
        ("NaN", "has no label"),
        (2, "says 2, which is neither 0 nor 1"),
        ("fraud", "says 'fraud', which is neither"),
        (0.5, "says 0.5, which is neither"),
        ([1], r"says \[1\], which is neither"),
    ],
)
def test_a_label_that_is_missing_or_none_names_its_row(lines, label, words):
    with pytest.raises(UsageError, match=words):
        read(lines([payment(0), payment(1), payment(2, is_fraud=label), payment(3)]))


def test_a_label_that_is_nan_in_parquet_names_its_row(tmp_path):
    path = tmp_path / "h.parquet"
    table = pa.Table.from_pylist([payment(n, is_fraud=float("nan") if n == 3 else 1.0) for n in range(5)])
    pq.write_table(table, path)
    with pytest.raises(UsageError, match=r"row 3, counted from 0 \(transaction t3\), has no label"):
        read(path)


def test_a_label_column_that_is_missing_is_named_with_the_nearest(lines):
    with pytest.raises(UsageError, match=r"has no column is_fruad with labels: .*; did you mean is_fraud\?"):
        read(lines([payment(0)]), label="is_fruad")


def test_ids_that_occur_twice_are_counted_and_the_first_is_named(lines):
    rows = [payment(n) for n in range(6)]
    path = lines([*rows, payment(4), payment(2), payment(4)])
    with pytest.raises(UsageError, match=r"holds 3 rows whose .* the first of them t4 in row 6, counted from 0"):
        read(path)


def test_refused_rows_are_counted_and_kept_and_need_no_label(lines):
    path = lines([payment(0), payment(1, amount=-1, is_fraud=None), {"user_id": "u"}, payment(2)])
    rows = read(path)
    assert rows.transaction_ids == ["t0", "t2"]
    assert dict(rows.refused) == {"out_of_range": 1, "missing_field": 1}
    kept = [json.loads(line) for line in path.with_suffix(".refused.jsonl").read_text().splitlines()]
    assert [(row["row"], row["error"]) for row in kept] == [(1, "out_of_range"), (2, "missing_field")]


def test_a_file_without_any_transaction_is_one_sentence(lines):
    with pytest.raises(UsageError, match="holds no rows"):
        read(lines([]))
    with pytest.raises(UsageError, match=r"No row of .* is a transaction \(1 missing_field\).* stands in .*refused"):
        read(lines([{"user_id": "u"}]))


def test_country_and_channel_are_read_under_the_users_own_names(lines):
    mapping = Mapping(fields={"country": ("land", "COUNTRY"), "channel": ("how",)}, defaults={"channel": "pos"})
    rows = [payment(0, land="DE", how="web"), payment(1, land="", COUNTRY="FR"), payment(2, COUNTRY="IT")]
    found = read(lines(rows), mapping=mapping)
    assert found.countries == ["DE", "FR", "IT"]
    assert found.channels == ["web", "pos", "pos"]
