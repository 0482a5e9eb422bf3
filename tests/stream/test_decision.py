"""The decision encoder: what is written reads back as the same decision."""

import hostile
import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.windows import Flag
from stream.codec import Decoder
from stream.decision import FLAG_NAMES, Decision, DecisionEncoder, Reason
from stream.files import FileRecord
from stream.mapping import Limits, Mapping

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENCODER = DecisionEncoder(["approve", "review", "decline"], "fraud-7", "onnx", "0123456789abcdef")


def decoded(*changes: dict):
    rows = [
        {"transaction_id": f"t-{i}", "user_id": 'u"\\é😀', "amount": 1, "currency": "EUR",
         "event_time": "2023-11-14T22:13:20.123Z", **change}
        for i, change in enumerate(changes)
    ]  # fmt: skip
    records = [
        FileRecord(str(row["user_id"]).encode(), orjson.dumps(row), 40 + i, hostile.NOW_MS + 500, "", 3)
        for i, row in enumerate(rows)
    ]
    batch, dead = Decoder(Mapping(), Limits()).decode(3, records)
    assert not dead
    return batch


def encode(batch, scores, outcomes, flags, reasons):
    columns = (np.array(scores, np.float32), np.array(outcomes, np.uint8), np.array(flags, np.uint8))
    return ENCODER.encode(batch, *columns, reasons, 1_700_000_001_000)


def test_a_decision_says_all_that_is_known_of_its_transaction():
    why = Reason("count_1h", 1.25, "9 payments in the last hour")
    first, second = encode(
        decoded({"traceparent": TRACE, "country": "DE"}, {}), [0.25, 0.9], [0, 2], [0, 5], {1: [why]}
    )
    assert orjson.loads(first) == {
        "transaction_id": "t-0",
        "user_id": 'u"\\é😀',
        "decision": "approve",
        "score": 0.25,
        "model": "fraud-7",
        "engine": "onnx",
        "feature_set": "0123456789abcdef",
        "reasons": [],
        "flags": [],
        "segment": "DE",
        "event_time": 1_700_000_000_123,
        "scored_at": 1_700_000_001_000,
        "partition": 3,
        "offset": 40,
        "traceparent": TRACE,
    }
    read = msgspec.json.decode(second, type=Decision)
    assert (read.decision, read.flags, read.reasons, read.offset) == ("decline", ["late", "conflict"], [why], 41)
    assert read.segment == "missing"
    assert b"traceparent" not in second


@pytest.mark.parametrize("user", ["u-1", "reasons:[]", '"reasons":[]', "é"])
def test_a_decision_with_reasons_is_the_same_to_the_byte_from_the_template_and_by_itself(user):
    whys = [Reason("f", -0.5, '"reasons":[] said'), Reason("g", float(np.float32(0.1)), "é")]
    batch = decoded({"user_id": user, "transaction_id": "flags", "country": "DE"}, {"user_id": user})
    values = encode(batch, [0.25, 0.9], [1, 2], [0, 5], {0: whys, 1: whys[:1]})
    for row, (score, outcome, flags, why) in enumerate([(0.25, 1, 0, whys), (0.9, 2, 5, whys[:1])]):
        alone = batch.rows(slice(row, row + 1))
        assert values[row] == ENCODER._one(alone, np.float32(score), outcome, flags, why, 1_700_000_001_000)


def test_reasons_may_be_plain_mappings():
    (value,) = encode(decoded({}), [0.9], [1], [0], {0: [{"feature": "f", "contribution": 0.5, "text": "t"}]})
    assert msgspec.json.decode(value, type=Decision).reasons == [Reason("f", 0.5, "t")]


def test_no_rows_give_no_decisions():
    assert encode(decoded(), [], [], [], {}) == []


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_a_score_reads_back_as_the_same_float32_and_is_written_no_longer_than_that_takes(scores):
    values = encode(decoded(*[{}] * len(scores)), scores, [0] * len(scores), [0] * len(scores), {})
    for score, value in zip(scores, values, strict=True):
        written = orjson.loads(value)["score"]
        assert np.float32(written) == np.float32(score)
        assert len(repr(written)) <= 13


def test_scores_are_written_as_short_as_the_other_encoder_writes_them():
    rng = np.random.default_rng(7)
    scores = np.concatenate(
        [rng.random(5_000), rng.random(5_000) ** 8, np.arange(1_001) / 1_000, 10.0 ** -np.arange(9)]
    )
    scores = scores.astype(np.float32)
    values = encode(decoded(*[{"user_id": "u"}] * len(scores)), scores, [0] * len(scores), [0] * len(scores), {})
    written = [value.split(b'"score":')[1].split(b",")[0] for value in values]
    assert written == orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def test_both_ways_of_encoding_write_the_same_form():
    rows = [{"user_id": "u", "country": "DÉ", "traceparent": TRACE if at % 3 else ""} for at in range(16)]
    batch, scores = decoded(*rows), np.linspace(0.001, 0.999, 16)
    flags, outcomes = list(range(16)), [at % 3 for at in range(16)]
    together = encode(batch, scores, outcomes, flags, {})
    assert together == encode(batch, scores, outcomes, flags, {at: [] for at in range(16)})
    batch.plain[:] = False
    assert together == encode(batch, scores, outcomes, flags, {})


def test_flag_names_stand_for_the_bits_that_the_windows_set():
    assert {name: 1 << bit for bit, name in enumerate(FLAG_NAMES)} == {
        str(flag.name).lower(): flag.value for flag in Flag if flag is not Flag.SKIPPED
    }


def test_what_cannot_be_written_is_a_bug_and_raises():
    with pytest.raises(TypeError):
        encode(decoded({}), [0.5], [0], [0], {0: [object()]})
