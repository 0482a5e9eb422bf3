"""The simulator: the same seed gives the same people, and thieves behave like thieves."""

import hashlib

import numpy as np
import orjson
import pyarrow.compute as pc
import pytest

from stream.codec import Decoder
from stream.errors import UsageError
from stream.files import FileRecord
from stream.mapping import Limits, Mapping
from stream.simulate import LABEL_COLUMNS, Simulation, simulate, transactions
from stream.simulated_fraud import PATTERNS


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
