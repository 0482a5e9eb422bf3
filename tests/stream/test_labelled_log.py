"""The features topic joined with the labels topic: the last label wins, what is too young to be known is left out."""

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import Command
from kafka_topics import Row
from line_output import create_line
from models.bundle import open_bundle
from models.holdout import read_holdout
from state.events import currency_code
from state.features import StateSpec, default_feature_set
from stream.backfill import backfill
from stream.errors import UsageError
from stream.feature_log import FeatureLog
from stream.labelled_log import Label, Payment, Vector, join, read_labelled_log
from stream.mapping import Limits, Mapping
from stream.settings import load_settings
from stream.simulate import Simulation, simulate, transactions

FEATURES = default_feature_set()
WIDTH = len(FEATURES.names)


def vector(number, time_ms, place=None):
    place = place or (0, number)
    return Vector(f"t{number}", place, time_ms, np.full(WIDTH, number, np.float32))


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", None]), st.integers(0, 40)), min_size=1, max_size=30
    ),
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(0, 11)),
        st.tuples(st.booleans(), st.integers(0, 60)),
        max_size=14,
    ),
    st.integers(0, 20),
)
def test_the_join_equals_a_naive_one_by_user_and_transaction(sent, labelled, delay):
    """None: the input topic no longer has the payment, so its user is not known but by a label that is left over."""
    vectors = [vector(number, time_ms, (at % 3, at)) for at, (number, _, time_ms) in enumerate(sent)]
    payments = {(at % 3, at): Payment(user, 1, 0, "", "") for at, (_, user, _) in enumerate(sent) if user is not None}
    labels = {(u, f"t{n}"): Label(f"t{n}", u, fraud, time_ms) for (u, n), (fraud, time_ms) in labelled.items()}
    newest = max([time_ms for _, _, time_ms in sent] + [time_ms for _, time_ms in labelled.values()])
    theirs = {(user, f"t{number}") for number, user, _ in sent}
    first: dict[tuple[str, str], Vector] = {}
    for one in sorted(vectors, key=lambda one: one.place):
        user = sent[one.place[1]][1]
        if user is None:
            left = [key for key in labels if key[1] == one.transaction_id and key not in theirs]
            if len(left) > 1:
                continue
            user = left[0][0] if left else ""
        if one.time_ms < newest - delay:
            first.setdefault((user, one.transaction_id), one)
    expected = sorted(first.items(), key=lambda each: (each[1].time_ms, each[1].place))
    refused: Counter[str] = Counter()
    if not expected:
        with pytest.raises(UsageError, match="younger than the label delay"):
            join(vectors, labels, payments, FEATURES, label_delay_ms=delay, refused=refused)
        return
    rows = join(vectors, labels, payments, FEATURES, label_delay_ms=delay, refused=refused)
    assert list(zip(rows.user_ids, rows.transaction_ids, strict=True)) == [key for key, _ in expected]
    assert rows.labels.astype(bool).tolist() == [key in labels and labels[key].is_fraud for key, _ in expected]


def test_two_users_payments_of_the_same_id_are_two_and_each_has_its_own_label():
    vectors = [vector(1, 10, (0, 0)), vector(1, 20, (1, 0)), vector(2, 90)]
    payments = {(0, 0): Payment("a", 5, 0, "", ""), (1, 0): Payment("b", 6, 0, "", "")}
    labels = {("b", "t1"): Label("t1", "b", True, 30)}
    rows = join(vectors, labels, payments, FEATURES, label_delay_ms=50, refused=Counter())
    assert rows.user_ids == ["a", "b"]
    assert rows.labels.tolist() == [0, 1]
    assert rows.refused == {"younger_than_the_label_delay": 1}


def test_a_deleted_payment_that_may_be_one_of_several_users_is_left_out_and_counted():
    labels = {(user, "t1"): Label("t1", user, user == "b", 30) for user in "ab"}
    rows = join(
        [vector(1, 10), vector(2, 20), vector(3, 90)], labels, {}, FEATURES, label_delay_ms=50, refused=Counter()
    )
    assert rows.transaction_ids == ["t2"]
    assert rows.refused["label_of_several_users"] == 1


def test_a_payment_the_input_topic_no_longer_has_keeps_its_amount_and_its_labels_user():
    payments = {(0, 1): Payment("u1", 4_200, currency_code("EUR"), "DE", "pos")}
    labels = {("7", "t2"): Label("t2", 7, True, 5)}
    rows = join(
        [vector(1, 10), vector(2, 20), vector(3, 30), vector(4, 90)],
        labels,
        payments,
        FEATURES,
        label_delay_ms=50,
        refused=Counter(),
    )
    assert rows.user_ids == ["u1", "7", ""]
    assert rows.amount_minor.tolist() == [4_200, 2, 3]
    assert rows.countries == ["DE", "", ""]


@dataclass
class Message:
    """A Kafka message as far as it is read."""

    body: bytes
    number: int = 0
    at_ms: int = 0

    def value(self):
        return self.body

    def key(self):
        return None

    def topic(self):
        return "topic"

    def partition(self):
        return 0

    def offset(self):
        return self.number

    def timestamp(self):
        return 1, self.at_ms


def logged(numbers, feature_set=FEATURES.hash):
    at = np.array(numbers, np.int64)
    log = FeatureLog(FEATURES.names, feature_set, max_bytes=1 << 20)
    features = np.zeros((len(at), WIDTH), np.float32)
    zeros = np.zeros_like(at)
    return [Message(record) for _, _, record in log.encode([f"t{n}" for n in numbers], zeros, at, at, features)]


@pytest.fixture
def read(tmp_path):
    """read(features, labels) joins what two topics hold; the input topic is empty."""

    def read(features, labels):
        settings = load_settings(None, {})
        held = {"features": features, "labels": labels, "transactions": []}
        return read_labelled_log(
            settings,
            FEATURES,
            label_delay_ms=10,
            refused_path=tmp_path / "refused.jsonl",
            read=lambda _, topic: iter([held[topic]]),
        )

    return read


def label(number, fraud, label_time, **other):
    record = {"transaction_id": f"t{number}", "user_id": "u", "is_fraud": fraud, "label_time": label_time, **other}
    return json.dumps(record).encode()


def test_the_last_label_of_a_transaction_wins_whatever_order_they_arrive_in(read):
    labels = [label(1, True, 50), label(2, False, 90), label(2, True, 60), label(1, False, 70), label(3, True, 5)]
    labels += [label(4, True, 80), label(4, False, 80)]
    messages = [Message(body, at) for at, body in enumerate(labels)]
    rows = read(logged([1, 2, 3, 4, 5, 85]), messages)
    assert dict(zip(rows.transaction_ids, rows.labels.tolist(), strict=True)) == {
        "t1": 0,
        "t2": 0,
        "t3": 1,
        "t4": 0,
        "t5": 0,
    }
    assert rows.refused == {"younger_than_the_label_delay": 1}


def test_what_is_no_label_is_kept_with_its_reason_and_the_others_go_on(read, tmp_path):
    bad = [b"", b"{", b"\xff", b'{"transaction_id": "t1"}', label(1, "yes", 5)]
    rows = read(logged([1, 2, 90]), [*map(Message, bad), Message(label(2, True, 5)), Message(label(77, True, 5))])
    assert rows.labels.tolist() == [0, 1]
    assert rows.refused == {"no_label": 5, "younger_than_the_label_delay": 1, "label_without_transaction": 1}
    kept = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [row["error"] for row in kept] == ["no_label"] * 5


def test_a_label_dated_after_its_own_record_makes_no_payment_older(read):
    """Microseconds in place of milliseconds would make honest all that nobody has had the time to label."""
    labels = [Message(label(2, True, 1_700_000), at_ms=95), Message(label(3, True, -5), at_ms=96)]
    rows = read(logged([1, 2, 3, 88, 91]), labels)
    assert rows.transaction_ids == ["t1", "t2", "t3"]
    assert rows.labels.tolist() == [0, 1, 0]
    assert rows.refused == {"no_label": 1, "younger_than_the_label_delay": 2}
    assert rows.source["known_until_ms"] == 95


def test_rows_of_another_feature_set_are_left_out_and_counted(read):
    rows = read([*logged([1, 2, 90]), *logged([3, 4], "another"), Message(b"rubbish")], [])
    assert rows.transaction_ids == ["t1", "t2"]
    assert (rows.refused["another_feature_set"], rows.refused["no_feature_record"]) == (2, 1)
    with pytest.raises(UsageError, match=r"holds nothing of feature set default .*\(2 rows are of another one\)"):
        read(logged([3, 4], "another"), [])


@pytest.mark.kafka
def test_the_command_learns_from_the_topics_of_a_real_broker(topics, tmp_path):
    table = simulate(Simulation(events=5_000, users=120, days=60, fraud_rate=0.05, seed=9))
    line = create_line(topics)
    labels = topics.create("labels", 2)
    sent = topics.produce(line.transactions, [row for rows in transactions(table) for row in rows])
    ids, users = (table.column(name).to_pylist() for name in ("transaction_id", "user_id"))
    times = table.column("event_time").cast(pa.int64()).to_numpy()
    features = features_of(table, tmp_path)
    log = FeatureLog(FEATURES.names, FEATURES.hash, max_bytes=100_000)
    for partition in range(4):
        rows = [row for row, record in enumerate(sent) if record.partition == partition]
        offsets = np.array([sent[row].offset for row in rows], np.int64)
        places = np.full_like(offsets, partition)
        records = log.encode([ids[row] for row in rows], places, offsets, times[rows], features[rows])
        topics.produce(line.features, [Row(None, record, partition) for _, _, record in records])
    frauds = [row for row, fraud in enumerate(table.column("is_fraud").to_pylist()) if fraud]
    topics.produce(
        labels,
        [
            (users[row].encode(), label(0, True, int(times[-1]), transaction_id=ids[row], user_id=users[row]))
            for row in frauds
        ],
    )
    command = Command(tmp_path)
    command.settings(
        f"[kafka]\nbootstrap_servers = '{topics.bootstrap}'\n[topics]\nlabels = '{labels}'\n"
        + "".join(f"{key.split('.')[1]} = '{name}'\n" for key, name in line.settings().items())
    )
    done = command("train", "--from-log", "-o", "b", "--folds", 2, "--trials", 0, "--threads", 1)
    assert done.returncode == 0, done.stderr
    known = int((times < times[-1] - 7 * 86_400_000).sum())
    assert done.stderr == f"{5_000 - known:,} rows left out ({5_000 - known:,} younger_than_the_label_delay)\n"
    bundle, holdout = open_bundle(tmp_path / "b"), read_holdout(tmp_path / "b.holdout.parquet")
    assert bundle.lineage["data"]["rows"] == known
    assert bundle.lineage["data"]["frauds"] == sum(row < known for row in frauds)
    first = known - len(holdout.labels)
    assert holdout.transaction_ids == ids[first:known]
    assert holdout.user_ids == users[first:known]
    assert holdout.countries == table.column("country").to_pylist()[first:known]
    assert holdout.features.tobytes() == features[first:known].tobytes()


def features_of(table, folder):
    history, target = folder / "h.parquet", folder / "f.parquet"
    pq.write_table(table, history)
    spec = StateSpec(decoding=Mapping().decoding)
    backfill(history, target, Mapping(), Limits(), spec, FEATURES, now_ms=1_800_000_000_000)
    found = pq.read_table(target)
    return np.column_stack([found.column(name).to_numpy() for name in FEATURES.names])
