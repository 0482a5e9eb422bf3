"""The simulator: the same seed gives the same people, and thieves behave like thieves."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from command import Command, sentence
from stream.cli import fraudstream
from stream.codec import Decoder
from stream.errors import UsageError
from stream.files import FileRecord
from stream.label_file import LabelColumns, read_labels
from stream.mapping import Limits, Mapping
from stream.simulate import LABEL_COLUMNS, Simulation, simulate, transactions
from stream.simulated_drift import KINDS, read_drift
from stream.simulated_fraud import NEW_PATTERN, PATTERNS
from stream.simulated_labels import simulated_labels
from stream.simulation_file import write_simulation

#: SHA-256 of a simulation's records, taken before there were drifts.
UNCHANGED = "a32d6f9f6ef968745a60f81ad1c94f550212ab7806a31c6648d4b2c1e7a072e3"


@pytest.fixture(scope="module")
def table():
    return simulate(Simulation(events=50_000, users=800, seed=5))


def column(table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def test_a_seed_is_a_data_set_and_another_seed_is_another():
    rows = [row for batch in transactions(simulate(Simulation(events=1_000, users=50, seed=7))) for row in batch]
    again = [row for batch in transactions(simulate(Simulation(events=1_000, users=50, seed=7)), 10) for row in batch]
    other = [row for batch in transactions(simulate(Simulation(events=1_000, users=50, seed=8))) for row in batch]
    assert rows == again
    assert {value for _, value in rows}.isdisjoint(value for _, value in other)
    digest = hashlib.sha256(b"\n".join(value for _, value in rows[:100])).hexdigest()
    assert digest == "75a79b61766441b5a3235b677e8d0913b0e54d4bc6f0a876ec56ed198f0c140c"


def test_payments_come_in_order_of_time_within_the_span(table):
    simulation = Simulation()
    times = column(table, "event_time").astype("M8[ms]").astype(np.int64)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= simulation.start_ms
    assert times[-1] < simulation.start_ms + 30 * 86_400_000


def test_every_simulated_payment_is_a_valid_transaction_keyed_by_its_user(table):
    decoder, limits = Decoder(Mapping(), Limits()), 1 << 60
    for rows in transactions(table.slice(0, 5_000)):
        decoded, dead = decoder.decode(0, [FileRecord(key, value, at, limits) for at, (key, value) in enumerate(rows)])
        assert dead == []
        assert len(decoded.users) == len(rows)


def test_labels_are_columns_of_the_table_and_no_part_of_a_transaction(table):
    assert set(LABEL_COLUMNS) < set(table.column_names)
    (rows,) = transactions(table.slice(0, 100))
    assert not any(set(orjson.loads(value)) & set(LABEL_COLUMNS) for _, value in rows)


def test_fraud_has_the_rate_asked_for_and_every_pattern(table):
    assert pc.sum(table["is_fraud"]).as_py() == 500
    assert set(pc.unique(table["fraud_pattern"]).to_pylist()) == {None, *PATTERNS}
    assert pc.all(pc.equal(table["is_fraud"], pc.is_valid(table["fraud_pattern"]))).as_py()


def test_without_fraud_there_is_none_and_all_of_it_may_be_small():
    assert not pc.any(simulate(Simulation(events=300, fraud_rate=0))["is_fraud"]).as_py()
    assert simulate(Simulation(events=1, users=1, days=0.01)).num_rows == 1
    assert simulate(Simulation(events=2, users=1, fraud_rate=0.5)).num_rows == 2


def test_card_testing_comes_in_bursts_of_tiny_amounts_from_a_strange_device(table):
    frauds = table.filter(pc.equal(table["fraud_pattern"], "card_testing")).to_pylist()
    genuine = set(pc.unique(table.filter(pc.invert(table["is_fraud"]))["device_id"]).to_pylist())
    devices = {row["device_id"] for row in frauds}
    assert devices.isdisjoint(genuine)
    for device in devices:
        burst = [row for row in frauds if row["device_id"] == device]
        assert (burst[-1]["event_time"] - burst[0]["event_time"]).total_seconds() < 3_600
        assert len({row["user_id"] for row in burst}) == 1


def test_an_account_is_taken_over_abroad_for_more_than_its_owner_spends(table):
    home = majority(table.filter(pc.invert(table["is_fraud"])), "country")
    usual = table.group_by("user_id").aggregate([("amount", "approximate_median")]).to_pydict()
    median = dict(zip(usual["user_id"], usual["amount_approximate_median"], strict=True))
    frauds = table.filter(pc.equal(table["fraud_pattern"], "account_takeover")).to_pylist()
    assert all(row["country"] != home.get(row["user_id"]) for row in frauds)
    assert np.median([row["amount"] / median[row["user_id"]] for row in frauds]) > 4


def majority(table, name: str) -> dict[str, str]:
    counts = table.group_by(["user_id", name]).aggregate([([], "count_all")]).sort_by("count_all").to_pydict()
    return dict(zip(counts["user_id"], counts[name], strict=True))


def test_a_skimming_wave_follows_visits_to_few_merchants(table):
    victims = set(table.filter(pc.equal(table["fraud_pattern"], "skimming"))["user_id"].to_pylist())
    genuine = table.filter(pc.invert(table["is_fraud"]))
    visitors: dict[str, set[str]] = {}
    for user, merchant in zip(genuine["user_id"].to_pylist(), genuine["merchant_id"].to_pylist(), strict=True):
        visitors.setdefault(merchant, set()).add(user)
    covered: set[str] = set()
    for _ in range(3):
        covered |= max((victims & users for users in visitors.values()), key=lambda users: len(users - covered))
    assert len(covered) >= 0.9 * len(victims)


def test_people_sleep(table):
    hours = column(table, "event_time").astype("M8[h]").astype(np.int64) % 24
    counts = np.bincount(hours, minlength=24)
    assert counts[13:18].min() > 2 * counts[2:5].max()


def test_a_zipf_law_makes_few_cardholders_pay_most():
    def share_of_the_top_tenth(zipf: float) -> float:
        users = column(simulate(Simulation(events=20_000, users=1_000, zipf=zipf)), "user_id")
        counts = np.sort(np.unique(users, return_counts=True)[1])[::-1]
        return counts[:100].sum() / counts.sum()

    assert share_of_the_top_tenth(0) < 0.35
    assert share_of_the_top_tenth(1.1) > 0.6


@pytest.mark.parametrize(
    "changes", [{"events": 0}, {"users": 0}, {"merchants": 3}, {"fraud_rate": 0.9}, {"days": 0}, {"seed": -1}]
)
def test_an_impossible_simulation_is_refused_with_a_sentence(changes):
    with pytest.raises(UsageError, match=r"^a simulation needs "):
        Simulation(**changes)


# --- drifts ----------------------------------------------------------------------------------------------------------

DAY_MS = 86_400_000
CALM = Simulation(events=20_000, users=300, merchants=100, days=10, seed=5)


@pytest.fixture(scope="module")
def calm():
    return simulate(CALM)


def drifted(*texts: str):
    return simulate(replace(CALM, drifts=tuple(map(read_drift, texts))))


def since(table, day: float):
    times = column(table, "event_time").astype("M8[ms]").astype(np.int64)
    return table.filter(pa.array(times >= CALM.start_ms + day * DAY_MS))


def rows_of(table) -> list[bytes]:
    return [value for batch in transactions(table) for _, value in batch]


def test_a_simulation_without_drift_is_byte_for_byte_what_it_was():
    rows = rows_of(simulate(Simulation(events=3_000, users=100, seed=9)))
    assert hashlib.sha256(b"\n".join(rows)).hexdigest() == UNCHANGED


@pytest.mark.parametrize("kind", KINDS)
def test_before_its_day_a_drift_changes_nothing_and_from_then_on_it_does(calm, kind):
    before, after = rows_of(calm), rows_of(drifted(f"{kind}@6"))
    first = next(at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other)
    assert len(before) - since(calm, 6).num_rows <= first < len(before) - since(calm, 7).num_rows


def test_inflation_multiplies_every_amount_by_its_strength(calm):
    ratio = column(since(drifted("inflation:2@6"), 6), "amount") / column(since(calm, 6), "amount")
    assert np.median(ratio) == pytest.approx(2, abs=1e-3)
    assert ratio.max() < 2.6  # amounts of a cent or two are rounded


def test_a_trend_grows_by_its_strength_in_a_week(calm):
    grown = simulate(replace(CALM, drifts=(read_drift("trend:1.5@2"),)))
    ratio = column(since(grown, 9), "amount")[:200] / column(since(calm, 9), "amount")[:200]
    assert np.median(ratio) == pytest.approx(1.5, rel=0.02)


def test_a_new_country_mix_moves_the_share_asked_for_to_rare_countries(calm):
    def rare(table) -> float:
        return pc.mean(pc.is_in(table["country"], pa.array(["US", "JP", "KW"])).cast("int8")).as_py()

    usual = rare(since(calm, 6))
    assert rare(since(drifted("countries:0.4@6"), 6)) == pytest.approx(usual + 0.4 * (1 - usual), abs=0.02)


def test_a_new_fraud_uses_the_owners_own_devices_and_takes_the_place_of_honest_payments(calm):
    table = drifted("fraud:0.05@6")
    frauds = table.filter(pc.equal(table["fraud_pattern"], NEW_PATTERN))
    assert table.num_rows == calm.num_rows
    assert frauds.num_rows == pytest.approx(0.05 * since(calm, 6).num_rows, abs=1)
    assert pc.all(frauds["is_fraud"]).as_py()
    known = set(pc.unique(calm.filter(pc.invert(calm["is_fraud"]))["device_id"]).to_pylist())
    strange = [device for device in pc.unique(frauds["device_id"]).to_pylist() if device not in known]
    assert len(strange) < 0.3 * len(pc.unique(frauds["device_id"]))


@pytest.mark.parametrize("name", ["device_id", "country"])
def test_a_broken_field_turns_missing_for_the_share_asked_for_and_nothing_else_changes(calm, name):
    table = drifted(f"no-{name.removesuffix('_id')}:0.7@6")
    after, usual = since(table, 6)[name], since(calm, 6)[name]
    assert after.null_count - usual.null_count == pytest.approx(0.7 * (len(usual) - usual.null_count), rel=0.05)
    assert table.drop_columns([name]).equals(calm.drop_columns([name]))


def test_drifts_come_together_and_without_a_day_begin_in_the_middle(calm):
    table = drifted("inflation:3", "no-country")
    assert table.slice(0, calm.num_rows - since(calm, 5).num_rows).equals(
        calm.slice(0, calm.num_rows - since(calm, 5).num_rows)
    )
    assert since(table, 5)["country"].null_count == since(table, 5).num_rows
    assert np.median(column(since(table, 5), "amount") / column(since(calm, 5), "amount")) == pytest.approx(3, abs=0.01)


def test_a_weekend_has_as_many_payments_as_asked_for():
    week = simulate(replace(CALM, days=14.0, weekend=0.5))  # 2024-01-01 is a Monday
    days = (column(week, "event_time").astype("M8[D]").astype(np.int64) + 3) % 7
    counts = np.bincount(days, minlength=7)
    assert counts[5:].mean() == pytest.approx(0.5 * counts[:5].mean(), rel=0.05)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inflaton", "there is no drift inflaton; did you mean inflation?"),
        ("inflation:", "a drift is written KIND"),
        ("inflation:much", "a drift is written KIND"),
        ("inflation@", "a drift is written KIND"),
        ("inflation:0", "takes a strength of 0.01 to 100"),
        ("no-device:nan", "takes a strength of 0 to 1"),
        ("fraud@-1", "begins on a day from 0 on"),
        ("fraud@nan", "begins on a day from 0 on"),
    ],
)
def test_a_drift_that_cannot_be_is_refused_with_a_sentence(text, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        read_drift(text)


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_come_within_hours_from_analysts_and_within_weeks_from_chargebacks(table):
    labels = simulated_labels(table, 5)
    truth = dict(zip(table["transaction_id"].to_pylist(), table["is_fraud"].to_pylist(), strict=True))
    paid = dict(zip(table["transaction_id"].to_pylist(), table["event_time"].cast("int64").to_pylist(), strict=True))
    rows = labels.to_pylist()
    assert all(truth[row["transaction_id"]] is row["is_fraud"] for row in rows)
    assert [row["label_time"] for row in rows] == sorted(row["label_time"] for row in rows)
    days = {
        fraud: np.array([row["label_time"] - paid[row["transaction_id"]] for row in rows if row["is_fraud"] is fraud])
        / DAY_MS
        for fraud in (True, False)
    }
    assert len(days[True]) == 500
    assert 0.4 < (days[True] <= 3).mean() < 0.6
    assert 10 < np.median(days[True][days[True] > 3]) < 25
    assert days[True].max() <= 120
    assert days[False].max() <= 3
    assert 0.45 < len(days[False]) / (table.num_rows - 500) < 0.55


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_of_labels_is_one_that_the_label_verb_takes(tmp_path, table, kind):
    labels = simulated_labels(table.slice(0, 500), 5)
    path, refused = tmp_path / f"labels.{kind}", []
    write_simulation(labels, path)
    found = [orjson.loads(row.value) for row in read_labels(path, LabelColumns(), 0, lambda *why: refused.append(why))]
    assert refused == []
    assert found == [{**row, "is_fraud": bool(row["is_fraud"])} for row in labels.to_pylist()]


def test_the_verb_writes_drifted_payments_and_their_labels(tmp_path):
    path, labels = tmp_path / "payments.parquet", tmp_path / "labels.csv"
    args = ["simulate", "-o", str(path), "--events", "2000", "--users", "50", "--days", "4", "--labels", str(labels)]
    done = CliRunner().invoke(fraudstream, [*args, "--drift", "no-country@2", "--weekend", "0.8"])
    assert done.exit_code == 0
    assert pq.read_table(path)["country"].null_count == pytest.approx(1_000, abs=150)
    lines = labels.read_text().splitlines()
    assert lines[0] == '"transaction_id","user_id","is_fraud","label_time"'
    assert f"{labels}: {len(lines) - 1:,} labels" in done.output


def test_a_drift_the_verb_does_not_know_ends_with_a_sentence(tmp_path):
    done = Command(tmp_path)("simulate", "-o", "x.csv", "--drift", "inflaton")
    assert (done.returncode, sentence(done)) == (2, "there is no drift inflaton; did you mean inflation?")
