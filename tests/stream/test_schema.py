"""The published schemas: real messages fit them, broken ones do not."""

import json
import random

import hostile
import jsonschema
import numpy as np
import orjson
import pytest

from stream.alert_record import Alert, encode_alert
from stream.codec import Decoder
from stream.decision import DecisionEncoder, Reason
from stream.files import FileRecord
from stream.labelled_record import LabelledDecision, encode_labelled
from stream.mapping import Limits, Mapping
from stream.schema import (
    asyncapi,
    dead_letter_headers_schema,
    record_schema,
    transaction_schema,
    write_schemas,
)
from stream.sections import TopicSettings
from stream.simulate import Simulation, simulate, transactions
from stream.telemetry_record import Counts, Sample, Telemetry, encode_telemetry

GUESTS = Mapping(
    kept=("terminal_id",),
    fields={"user_id": ("CUSTOMER_ID", "GUEST"), "terminal_id": ("TERMINAL",), "transaction_id": ("ID",)},
    defaults={"currency": "EUR"},
)


def parsed(value: bytes) -> object:
    """Parse JSON as leniently as the decoder skips over fields it does not read: numbers may be of any size."""
    try:
        return json.loads(value, parse_int=lambda digits: int(digits) if len(digits) < 40 else float(digits))
    except ValueError:
        return None  # the parser names a wrong type without reading on to where the JSON breaks


def fits(document: object, schema: dict) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(document)


@pytest.mark.parametrize(
    "schema",
    [
        transaction_schema(Mapping(), Limits()),
        transaction_schema(GUESTS, Limits()),
        *map(record_schema, ("decision", "telemetry", "label", "labelled", "alert")),
        dead_letter_headers_schema(),
    ],
)
def test_every_schema_is_a_json_schema(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


def test_simulated_transactions_fit_the_schema():
    schema = transaction_schema(Mapping(), Limits())
    rows = [row for batch in transactions(simulate(Simulation(events=200))) for row in batch]
    assert all(fits(orjson.loads(value), schema) for _, value in rows)


def test_whatever_the_decoder_takes_fits_the_schema_and_whatever_breaks_a_type_does_not():
    decoder, schema = Decoder(Mapping(), Limits()), transaction_schema(Mapping(), Limits())
    decoded, dead = decoder.decode(0, list(hostile.messages(seed=3, count=2_000)))
    assert len(decoded.messages) > 300
    assert all(fits(parsed(message.value()), schema) for message in decoded.messages)
    broken = [letter for letter in dead if letter.error in ("wrong_type", "missing_field", "too_long")]
    unfit = [letter for letter in broken if not fits(parsed(letter.message.value()), schema)]
    # What is left over is a text that is no time: JSON Schema sees a text.
    assert {letter.field for letter in broken if letter not in unfit} <= {"event_time"}
    assert len(unfit) > 100


def test_the_schema_of_a_mapping_speaks_the_senders_names():
    schema = transaction_schema(GUESTS, Limits())
    row = {"ID": 1, "amount": "1.50", "event_time": 1_700_000_000_000}
    assert fits({**row, "CUSTOMER_ID": 5}, schema)
    assert fits({**row, "GUEST": "g", "TERMINAL": 9, "more": []}, schema)
    assert not fits(row, schema)
    assert not fits({**row, "GUEST": ""} | {"ID": ""}, schema)


def encoded(count: int) -> list[bytes]:
    rng = random.Random(1)
    rows = [hostile.valid(rng, number) for number in range(count)]
    rows[0]["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    records = [
        FileRecord(str(row["user_id"]).encode(), orjson.dumps(row), number, hostile.NOW_MS)
        for number, row in enumerate(rows)
    ]
    decoded, _ = Decoder(Mapping(), Limits()).decode(0, records)
    encoder = DecisionEncoder(["approve", "decline"], "m", "onnx", "f")
    scores = np.linspace(0, 1, count, dtype=np.float32)
    flags = np.arange(count).astype(np.uint8) % 16
    reasons = {1: [Reason("count_1h", 0.3, "three payments")]}
    return encoder.encode(decoded, scores, np.arange(count).astype(np.uint8) % 2, flags, reasons, hostile.NOW_MS)


def test_encoded_decisions_fit_the_schema_and_altered_ones_do_not():
    schema = record_schema("decision")
    for value in encoded(40):
        decision = orjson.loads(value)
        assert fits(decision, schema)
        assert not fits({**decision, "score": 1.5}, schema)
        assert not fits({**decision, "flags": ["odd"]}, schema)
        assert not fits({**decision, "extra": 1}, schema)
        assert not fits({name: value for name, value in decision.items() if name != "offset"}, schema)


def test_dead_letter_headers_fit_the_schema():
    _, dead = Decoder(Mapping(), Limits()).decode(0, list(hostile.messages(seed=4, count=500)))
    schema = dead_letter_headers_schema()
    for letter in dead:
        headers = {name: value.decode() for name, value in letter.headers()}
        assert fits(headers, schema)
        assert not fits({**headers, "error": "other"}, schema)


WATCHED = {
    "telemetry": (
        encode_telemetry(
            Telemetry(
                worker="w1",
                epoch=1,
                sequence=0,
                interval=1,
                interval_ms=1_000,
                opened_at_ms=1_000,
                closed_at_ms=1_999,
                model="m",
                engine="forest",
                feature_set="f",
                events=1,
                features={"a": Counts([1, 0], 0)},
                sample=Sample([[1.5, None]], [0.25], [hostile.NOW_MS]),
                offsets={"0": [(0, 1)]},
            )
        ),
        ({"worker": ""}, {"sequence": -1}, {"extra": 1}, {"offsets": {"0": [[0]]}}),
    ),
    "label": (
        b'{"transaction_id": 7, "user_id": "u-1", "is_fraud": true, "label_time": 1750000000000}',
        ({"is_fraud": "yes"}, {"label_time": None}),
    ),
    "labelled": (
        encode_labelled(
            LabelledDecision(
                transaction_id="t",
                user_id="u",
                score=0.5,
                decision="review",
                model="m",
                segment="DE",
                event_time=1,
                partition=0,
                offset=3,
                is_fraud=True,
                label_time=9,
                delay_ms=8,
            )
        ),
        ({"score": 2}, {"extra": 1}),
    ),
    "alert": (
        encode_alert(
            Alert(
                id="a",
                state="raised",
                signal="feature_drift",
                subject="amount",
                segment="",
                model="m",
                statistic="psi",
                value=0.3,
                bound=0.2,
                since=1,
                at=2,
                runbook="feature_drift",
                text="amount has drifted",
            )
        ),
        ({"state": "maybe"}, {"signal": "mood"}),
    ),
}


@pytest.mark.parametrize("name", WATCHED)
def test_records_of_the_watch_fit_their_schemas_and_altered_ones_do_not(name):
    value, alterations = WATCHED[name]
    schema, record = record_schema(name), orjson.loads(value)
    assert fits(record, schema)
    for altered in alterations:
        assert not fits(record | altered, schema)


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        inner = [reference for value in node.values() for reference in references(value)]
        return [node["$ref"], *inner] if "$ref" in node else inner
    return [ref for value in node for ref in references(value)] if isinstance(node, list) else []


def test_the_asyncapi_document_names_every_topic_and_all_its_references_lead_somewhere():
    topics = TopicSettings(decisions="my.decisions")
    document = asyncapi(topics, GUESTS, Limits())
    assert document["asyncapi"] == "3.0.0"
    assert {channel["address"] for channel in document["channels"].values()} == {
        "transactions",
        "my.decisions",
        "features",
        "transactions.dlq",
        "telemetry",
        "labels",
        "labelled",
        "alerts",
    }
    assert {operation["action"] for operation in document["operations"].values()} == {"send", "receive"}
    assert len(references(document)) >= 12
    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_messages_fit_the_schemas_inside_the_asyncapi_document():
    document = asyncapi(TopicSettings(), Mapping(), Limits())
    decision = {"$ref": "#/components/schemas/Decision", "components": document["components"]}
    assert all(fits(orjson.loads(value), decision) for value in encoded(5))


def test_the_schemas_are_written_as_files(tmp_path):
    paths = write_schemas(tmp_path / "schemas", TopicSettings(), Mapping(), Limits())
    assert [path.name for path in paths] == [
        "transaction.schema.json",
        "decision.schema.json",
        "telemetry.schema.json",
        "label.schema.json",
        "labelled.schema.json",
        "alert.schema.json",
        "dead_letter_headers.schema.json",
        "asyncapi.json",
    ]
    assert orjson.loads(paths[1].read_bytes()) == record_schema("decision")
