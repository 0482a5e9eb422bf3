"""`fraudstream label`: one label or a file of them onto the labels topic."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from joined_topics import JoinedTopics
from labels_and_decisions import decision
from stream.cli import fraudstream
from stream.errors import UsageError
from stream.label_file import LabelColumns, read_labels
from stream.murmur2 import partition_of

NOW_MS = 1_700_000_000_000


@pytest.fixture
def joined(topics):
    return JoinedTopics.create(topics)


@pytest.fixture
def label(joined, tmp_path, monkeypatch):
    """Run the verb on the test's topics; return what click made of it."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        keys = ("kafka.bootstrap_servers", "topics.decisions", "topics.labels")
        given = [part for key in keys for part in ("--set", f"{key}={joined.settings(tmp_path)[key]}")]
        return CliRunner().invoke(fraudstream, [*given, "label", *map(str, arguments)])

    return run


def labels(joined):
    return [(record.key, json.loads(record.value), record.partition) for record in joined.topics.read(joined.labels)]


@pytest.mark.kafka
def test_a_label_goes_to_its_users_partition(joined, label):
    done = label("t-1", "--fraud", "--user", "ann", "--time", "2023-11-14T22:13:20Z")
    assert (done.exit_code, done.output) == (0, "Labelled t-1 of ann as fraud.\n"), done.exception
    value = {"transaction_id": "t-1", "user_id": "ann", "is_fraud": True, "label_time": NOW_MS}
    assert labels(joined) == [(b"ann", value, partition_of(b"ann", 3))]


@pytest.mark.kafka
def test_a_user_that_is_not_given_is_looked_up_in_the_decisions(joined, label):
    rows = [("ann", "t-1"), ("bob", "t-2"), ("eve", "t-2")]
    joined.topics.produce(joined.decisions, [(user.encode(), decision(user, t, event_time=1)) for user, t in rows])
    assert label("t-1", "--honest").output == "Labelled t-1 of ann as honest.\n"
    assert [(key, value["is_fraud"]) for key, value, _ in labels(joined)] == [(b"ann", False)]
    for name, why in (("t-2", "Several users have a payment t-2 (bob, eve)"), ("t-9", "No decision on t-9")):
        error = label(name, "--fraud").exception
        assert isinstance(error, UsageError)
        assert str(error).startswith(why)
        assert "--user" in str(error)
    assert len(labels(joined)) == 1


@pytest.mark.kafka
def test_a_file_is_published_and_rows_that_are_no_labels_are_set_aside(joined, label, tmp_path):
    path = tmp_path / "charged.csv"
    path.write_text("payment;card;disputed\nt-1;7;yes\nt-2;7;maybe\n;7;no\nt-3;8;0\n")
    done = label(
        "--file", path, "--transaction-id-column", "payment", "--user-id-column", "card",
        "--is-fraud-column", "disputed", "--time", "2023-11-14T22:13:20Z",
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    assert "Published 2 labels" in done.output
    assert "2 rows are no label" in done.output
    found = sorted((value["transaction_id"], value["is_fraud"], value["label_time"]) for _, value, _ in labels(joined))
    assert found == [("t-1", True, NOW_MS), ("t-3", False, NOW_MS)]
    refused = [json.loads(line) for line in (tmp_path / "charged.csv.refused.jsonl").read_text().splitlines()]
    assert [(one["row"], one["message"].split(" must")[0]) for one in refused] == [(2, "disputed"), (3, "payment")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give a transaction id, or --file."),
        (["t-1"], "Give --fraud or --honest."),
        (["t-1", "--fraud", "--file", __file__], "Give a transaction id, or --file."),
        (["--file", __file__, "--fraud"], "a file has columns for them."),
        (
            ["t-1", "--fraud", "--user", "u", "--time", "noon"],
            "--time takes a time such as 2026-01-05T10:00:00Z, not noon.",
        ),
        (["t-1", "--fraud", "--user", "u", "--time", "9000-01-01T00:00:00Z"], "is yet to come."),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(fraudstream, ["--set", "kafka.bootstrap_servers=127.0.0.1:1", "label", *arguments])
    said = str(done.exception) if isinstance(done.exception, UsageError) else done.output
    assert sentence in said
    assert done.exit_code != 0


def refuse_none(number, why, row):
    raise AssertionError((number, why, row))


def test_every_kind_of_file_gives_the_same_labels(tmp_path):
    rows = [
        {"transaction_id": 42, "user_id": "u", "is_fraud": True, "label_time": NOW_MS},
        {"transaction_id": 43, "user_id": "v", "is_fraud": False, "label_time": NOW_MS + 1},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{row['transaction_id']},{row['user_id']},{row['is_fraud']},{row['label_time']}" for row in rows]
    (tmp_path / "a.csv").write_text("\n".join(["transaction_id,user_id,is_fraud,label_time", *lines]))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [
        list(read_labels(tmp_path / name, LabelColumns(), 0, refuse_none)) for name in ("a.jsonl", "a.csv", "a.parquet")
    ]
    assert read[0] == read[1] == read[2]
    assert [json.loads(row.value) for row in read[0]] == [
        row | {"transaction_id": str(row["transaction_id"])} for row in rows
    ]


def test_seconds_for_milliseconds_are_told_apart_before_such_labels_expire_unseen(tmp_path):
    (tmp_path / "a.csv").write_text(
        f"transaction_id,user_id,is_fraud,label_time\na,u,1,{NOW_MS // 1000}\nb,u,0,{NOW_MS}"
    )
    refused = []
    read = list(read_labels(tmp_path / "a.csv", LabelColumns(), 0, lambda *one: refused.append(one)))
    assert [json.loads(row.value)["transaction_id"] for row in read] == ["b"]
    assert [(row, "give milliseconds, not seconds" in why) for row, why, _ in refused] == [(1, True)]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "x", "has none of the extensions"),
        ("a.csv", "", "is empty"),
        ("a.csv", "transaction_id,user_id,fraud\n", "has no column is_fraud .* with --is-fraud-column"),
        ("a.csv", "transaction_id,user_id,is_fraud\na,b\n", "line 2 has 2 columns"),
        ("a.jsonl", "{\n", "line 1 is no JSON"),
        ("a.parquet", "x", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=sentence):
        list(read_labels(tmp_path / name, LabelColumns(), 0, refuse_none))
