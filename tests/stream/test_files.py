"""Files: every row becomes the transaction its user would have published, or one sentence says why not."""

import datetime as dt
import decimal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.codec import Decoder
from stream.errors import UsageError
from stream.files import count_rows, read_records, read_rows
from stream.mapping import Limits, Mapping

OWN = Mapping(
    kept=("terminal_id",),
    fields={
        "transaction_id": ("ID",),
        "user_id": ("CUSTOMER", "GUEST"),
        "amount": ("AMOUNT",),
        "event_time": ("AT",),
        "terminal_id": ("TERMINAL",),
    },
    defaults={"currency": "EUR"},
    naive_time_zone="UTC",
)
AT_MS = 1_700_000_000_123


def written(tmp_path, name: str, content: str | bytes):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet(tmp_path, columns: dict):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def rows(path, mapping=OWN, batch=100):
    return [(key, orjson.loads(value)) for chunk in read_rows(path, mapping, batch) for key, value in chunk]


def test_csv_values_stay_as_they_are_written_and_empty_ones_are_left_out(tmp_path):
    path = written(tmp_path, "a.csv", 'ID,CUSTOMER,GUEST,AMOUNT,AT,TERMINAL\n1,007,,12.30,2023-11-14T22:13:20,"a, b"\n')
    assert rows(path) == [
        (b"007", {"ID": "1", "CUSTOMER": "007", "AMOUNT": "12.30", "AT": "2023-11-14T22:13:20", "TERMINAL": "a, b"})
    ]


def test_csv_epoch_times_become_numbers_and_the_first_user_id_present_is_the_key(tmp_path):
    path = written(tmp_path, "a.csv", f"ID,CUSTOMER,GUEST,AMOUNT,AT,TERMINAL\n1,,g,1,{AT_MS},\n2,,,1,{AT_MS}.5,t\n")
    (first, second) = rows(path)
    assert (first[0], first[1]["AT"]) == (b"g", AT_MS)
    assert (second[0], second[1]["AT"]) == (None, AT_MS + 0.5)


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "|")])
def test_other_delimiters_a_byte_order_mark_and_blank_lines_are_understood(tmp_path, name, delimiter):
    lines = [["ID", "CUSTOMER", "AMOUNT", "AT", "TERMINAL"], ["1", "u", "1", "x", "t"], [], ["2", "u", "1", "x", "t"]]
    content = "\ufeff" + "\r\n".join(delimiter.join(line) for line in lines)
    assert [row["ID"] for _, row in rows(written(tmp_path, name, content))] == ["1", "2"]


def test_parquet_values_become_json_without_losing_a_digit(tmp_path):
    moment = dt.datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=dt.UTC)
    path = parquet(
        tmp_path,
        {
            "ID": pa.array([1, 2**62], pa.int64()),
            "CUSTOMER": pa.array([5.0, None], pa.float64()),
            "GUEST": pa.array([None, "g"]).dictionary_encode(),
            "AMOUNT": pa.array([decimal.Decimal("12.30"), decimal.Decimal("0.05")], pa.decimal128(12, 2)),
            "AT": pa.array([moment, None], pa.timestamp("us", "Europe/Paris")),
            "TERMINAL": pa.array([7, None], pa.int32()),
            "NAIVE": pa.array([moment.replace(tzinfo=None), None], pa.timestamp("ns")),
            "SINGLE": pa.array([57.16, float("nan")], pa.float32()),
            "DOUBLE": pa.array([0.1, float("inf")], pa.float64()),
            "FLAG": pa.array([True, None]),
            "DAY": pa.array([dt.date(2023, 11, 14), None]),
            "NESTED": pa.array([{"a": [1]}, None]),
        },
    )
    assert count_rows(path) == 2
    assert rows(path) == [
        (
            b"5",
            {
                "ID": 1,
                "CUSTOMER": 5,
                "AMOUNT": "12.30",
                "AT": "2023-11-14T22:13:20.123456Z",
                "TERMINAL": 7,
                "NAIVE": "2023-11-14T22:13:20.123456000",
                "SINGLE": 57.16,
                "DOUBLE": 0.1,
                "FLAG": True,
                "DAY": "2023-11-14",
                "NESTED": {"a": [1]},
            },
        ),
        (b"g", {"ID": 2**62, "GUEST": "g", "AMOUNT": "0.05"}),
    ]


def test_json_lines_are_passed_on_byte_for_byte(tmp_path):
    lines = [b'{"CUSTOMER": 5,  "x":1.10}', b'{"GUEST":"\xc3\xa9"}', b"{}"]
    path = written(tmp_path, "a.jsonl", b"\n".join([lines[0], b"", lines[1] + b"\r", lines[2]]))
    found = [row for chunk in read_rows(path, OWN, 2) for row in chunk]
    assert found == [(b"5", lines[0]), ("é".encode(), lines[1]), (None, lines[2])]
    assert count_rows(path) is None


def test_rows_come_in_batches_and_as_records_in_the_order_of_the_file(tmp_path):
    path = written(tmp_path, "a.ndjson", "".join(f'{{"CUSTOMER":{number}}}\n' for number in range(25)))
    assert [len(chunk) for chunk in read_rows(path, OWN, 10)] == [10, 10, 5]
    records = [record for chunk in read_records(path, OWN, 99, 10) for record in chunk]
    assert [record.offset() for record in records] == list(range(25))
    assert {(record.timestamp(), record.partition()) for record in records} == {((1, 99), 0)}
    assert records[7].key() == b"7"


@pytest.mark.parametrize("name", ["a.csv", "rows.parquet"])
def test_what_is_read_from_a_file_is_what_the_decoder_takes(tmp_path, name):
    if name == "a.csv":
        path = written(tmp_path, name, "ID,CUSTOMER,AMOUNT,AT,TERMINAL\n1,42,57.16,2023-11-14T22:13:20.123,9\n")
    else:
        moment = dt.datetime(2023, 11, 14, 22, 13, 20, 123000)
        path = parquet(tmp_path, {"ID": [1], "CUSTOMER": [42], "AMOUNT": [57.16], "AT": [moment], "TERMINAL": [9]})
    (records,) = read_records(path, OWN, AT_MS)
    decoded, dead = Decoder(OWN, Limits()).decode(0, records)
    assert dead == []
    assert (decoded.users, decoded.transaction_ids, decoded.time_ms.tolist()) == ([b"42"], ["1"], [AT_MS])
    assert decoded.events.amount_minor.tolist() == [5_716]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.xlsx", "", "{path} has none of the extensions .csv, .tsv, .parquet, .pq, .jsonl, .ndjson"),
        ("a.csv", "ID,CUSTOMR,AMOUNT,AT,TERMINAL\n", "{path} has no column CUSTOMER or GUEST (the nearest is CUSTOMR)"),
        ("a.csv", "", "{path} is empty: its first line must name the columns"),
        ("a.csv", "ID,CUSTOMER,AMOUNT,AMOUNT,AT,TERMINAL\n", "{path} has the column AMOUNT twice: rename one"),
        ("a.csv", "ID,CUSTOMER,AMOUNT,AT,TERMINAL\n1,2\n", "{path} line 2 has 2 columns where the header has 5"),
        ("a.csv", 'ID,CUSTOMER,AMOUNT,AT,TERMINAL\n1,2,3,4,"5', "{path} line 2 is no CSV: "),
        ("a.csv", b"ID,CUSTOMER,AMOUNT,AT,TERMINAL\n1,2,3,4,\xff\n", "{path} must be UTF-8 text"),
        ("a.jsonl", '{"CUSTOMER":1}\n\n{"CUSTOMER":', "{path} line 3 is no JSON: "),
        ("a.jsonl", "[1]", "{path} line 1 is no JSON object"),
        ("a.parquet", "PAR1", "{path} cannot be read as Parquet: "),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path, name, content, sentence):
    path = written(tmp_path, name, content)
    with pytest.raises(UsageError) as error:
        rows(path)
    assert str(error.value).startswith(sentence.format(path=path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_a_missing_file_is_one_sentence(tmp_path, name):
    with pytest.raises(UsageError, match=r"(does not exist|cannot be read: No such file or directory)$"):
        rows(tmp_path / name)


def test_optional_columns_under_our_own_names_may_be_absent_but_mapped_ones_may_not(tmp_path):
    path = written(tmp_path, "a.csv", "transaction_id,user_id,amount,currency,event_time\n1,2,3,EUR,4\n")
    assert len(rows(path, Mapping())) == 1
    with pytest.raises(UsageError, match=r"has no column shop .*our merchant_id under codec\.fields"):
        rows(path, Mapping(fields={"merchant_id": ("shop",)}))
