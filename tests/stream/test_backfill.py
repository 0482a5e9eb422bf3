"""Backfill gives each transaction of a file the features that a naive recomputation gives it, and loses no row."""

import json
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from state.events import currency_code, hash_field, hash_transaction
from state.features import StateSpec, default_feature_set
from stream.backfill import backfill
from stream.errors import FraudstreamError, UsageError
from stream.mapping import Limits, Mapping
from stream.simulate import Simulation, simulate
from stream.simulation_file import write_simulation

sys.path.append(str(Path(__file__).parents[1] / "state"))

from oracle import Oracle, Payment

SPEC = StateSpec(decoding=Mapping().decoding)
FEATURES = default_feature_set()
NOW_MS = 1_800_000_000_000
DECIMALS = {"JPY": 0, "KWD": 3}


@pytest.fixture
def run(tmp_path):
    """run(path, keep=…) backfills and returns what became of it, the table, and the refused rows."""

    def run(path, **options):
        target = tmp_path / "features.parquet"
        done = backfill(path, target, Mapping(), Limits(), SPEC, FEATURES, now_ms=NOW_MS, **options)
        refused = target.with_suffix(".refused.jsonl")
        lines = [json.loads(line) for line in refused.read_text().splitlines()] if refused.exists() else []
        return done, pq.read_table(target), lines

    return run


@pytest.fixture
def lines(tmp_path):
    """lines(rows) writes a JSON-lines file and returns its path."""

    def write(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return write


def payment(number, **other):
    return {
        "transaction_id": f"t{number}",
        "user_id": f"u{number % 3}",
        "amount": 1.5,
        "currency": "EUR",
        "event_time": 1_700_000_000_000 + 60_000 * number,
        **other,
    }


def naively(table):
    """Each row's features and flags as the rules say them, from a simulated table."""
    oracle = Oracle(SPEC, FEATURES)
    for offset, row in enumerate(table.to_pylist()):
        amount = Decimal(str(row["amount"])).scaleb(DECIMALS.get(row["currency"], 2))
        assert amount == int(amount)
        values = [hash_field(at, row[name]) if row[name] else 0 for at, name in enumerate(SPEC.fields)]
        yield oracle.observe(
            row["user_id"].encode(),
            Payment(
                time=int((row["event_time"] - EPOCH).total_seconds() * 1000 + 0.5),
                offset=offset,
                transaction=hash_transaction(row["transaction_id"]),
                amount=int(amount),
                currency=currency_code(row["currency"]),
                values=tuple(values),
            ),
        )


EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_feature_equals_a_naive_recomputation_bit_for_bit(tmp_path, run, kind):
    table = simulate(Simulation(events=1_500, users=25, days=45, fraud_rate=0.1, seed=11))
    # Some ids are seen again while the payment is kept, some once it no longer is.
    repeated = pa.concat_tables([table, table.slice(900, 40), table.slice(100, 40)])
    path = tmp_path / f"history.{kind}"
    write_simulation(repeated, path)
    done, features, refused = run(path)
    assert (done.rows, refused) == (1_580, [])
    expected = list(naively(repeated))
    found = np.column_stack([features.column(name).to_numpy() for name in FEATURES.names])
    wanted = np.array([row for row, _ in expected], np.float32)
    different = np.argwhere(found.view(np.uint32) != wanted.view(np.uint32))
    assert different.size == 0, [(FEATURES.names[k], n, found[n, k], wanted[n, k]) for n, k in different[:5]]
    assert features.column("flags").to_pylist() == [int(flags) for _, flags in expected]
    assert done.flags["duplicate"] > 0
    assert done.flags["late"] > 0
    assert features.schema.metadata[b"feature_set"].decode() == FEATURES.hash
    assert features.column("transaction_id").to_pylist() == repeated.column("transaction_id").to_pylist()
    assert features.column("event_time").to_pylist() == repeated.column("event_time").to_pylist()


def test_refused_rows_are_kept_with_the_reason_and_the_others_go_on(lines, run):
    bad = [
        payment(1, amount=-1),
        payment(2, currency="XXZ"),
        {**payment(3), "event_time": "2099-01-01T00:00:00Z"},
        {"user_id": "u"},
    ]
    done, features, refused = run(lines([payment(0), *bad, payment(4)]))
    assert features.column("transaction_id").to_pylist() == ["t0", "t4"]
    assert [(row["row"], row["error"]) for row in refused] == [
        (1, "out_of_range"),
        (2, "unknown_currency"),
        (3, "too_far_ahead"),
        (4, "missing_field"),
    ]
    assert [json.loads(row["value"]) for row in refused] == bad
    assert done.refused.total() == 4
    assert done.rows + done.refused.total() == 6


def test_a_later_run_leaves_no_refused_rows_of_an_earlier_one(lines, run):
    assert run(lines([payment(0), payment(1, amount=-1)]))[2]
    assert run(lines([payment(0)]))[2] == []


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ([True, False, None], pa.bool_(), [True, False, None]),
        ([0, 1, 1], pa.int64(), [0, 1, 1]),
        (["0", "1", "1"], pa.int64(), [0, 1, 1]),
        ([1, 2.5, "3"], pa.float64(), [1.0, 2.5, 3.0]),
        (["007", "8", "9"], pa.string(), ["007", "8", "9"]),
        (["a", 1, True], pa.string(), ["a", "1", "true"]),
        ([[1, 2], {"a": 1}, "x"], pa.string(), ["[1,2]", '{"a":1}', "x"]),
    ],
)
def test_kept_columns_have_one_type_that_holds_all_of_their_values(lines, run, values, kind, kept):
    _, features, _ = run(lines([payment(n, label=value) for n, value in enumerate(values)]), keep=["label"])
    assert features.schema.field("label").type == kind
    assert features.column("label").to_pylist() == kept


def test_a_kept_column_changes_its_kind_far_down_the_file_without_harm(lines, run):
    rows = [payment(n, risk=1) for n in range(9_000)]
    rows.append(payment(9_000, risk=0.5))
    _, features, _ = run(lines(rows), keep=["risk"])
    assert features.column("risk").to_pylist()[-2:] == [1.0, 0.5]


def test_wrong_use_is_said_in_one_sentence_and_leaves_no_file(tmp_path, lines, run):
    path = lines([payment(0, is_fraud=True)])
    with pytest.raises(UsageError, match=r"has no column is_fruad to keep; did you mean is_fraud\?"):
        run(path, keep=["is_fruad"])
    with pytest.raises(UsageError, match="The output has a column amount already"):
        run(path, keep=["amount"])
    with pytest.raises(UsageError, match="holds no rows"):
        run(lines([]))
    with pytest.raises(UsageError, match="line 2 is no JSON"):
        run(lines([payment(0), "{"]))
    with pytest.raises(FraudstreamError, match=r"No row of .* is a transaction \(2 missing_field\): .* stands in"):
        run(lines([{"user_id": "u"}, {"user_id": "v"}]))
    assert [found.name for found in tmp_path.iterdir() if "unfinished" in found.name] == []


def test_a_target_that_cannot_be_written_is_said_before_any_work(tmp_path, lines):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        backfill(
            lines([payment(0)]), tmp_path / "file" / "f.parquet", Mapping(), Limits(), SPEC, FEATURES, now_ms=NOW_MS
        )


def test_an_interrupted_run_leaves_the_earlier_output_whole(tmp_path, lines, run):
    run(lines([payment(0)]))

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(lines([payment(n) for n in range(5)]), progress=interrupt)
    assert pq.read_table(tmp_path / "features.parquet").num_rows == 1
    assert not list(tmp_path.glob(".*"))


def test_progress_counts_every_row_read(lines, run):
    seen = []
    run(lines([payment(n, amount=-1 if n % 5 == 0 else 1) for n in range(10_000)]), progress=seen.append)
    assert seen == [8_192, 10_000]


def test_a_file_is_never_overwritten_by_what_is_made_of_it(tmp_path):
    history = tmp_path / "history.parquet"
    write_simulation(simulate(Simulation(events=50, users=5, merchants=20)), history)
    before = history.read_bytes()

    with pytest.raises(UsageError, match="would be overwritten"):
        backfill(history, history, Mapping(), Limits(), SPEC, FEATURES, now_ms=NOW_MS)

    assert history.read_bytes() == before


def test_a_target_that_is_there_survives_a_file_without_transactions(tmp_path):
    bad, target = tmp_path / "bad.jsonl", tmp_path / "features.parquet"
    bad.write_text('{"transaction_id": "t", "user_id": "u", "amount": -1, "currency": "EUR", "event_time": 1}\n')
    target.write_bytes(b"an earlier result")

    with pytest.raises(FraudstreamError, match=r"No row of .* is a transaction \(1 out_of_range\)"):
        backfill(bad, target, Mapping(), Limits(), SPEC, FEATURES, now_ms=NOW_MS)

    assert target.read_bytes() == b"an earlier result"
