"""A holdout reads back as it was written, and anything else is refused with a sentence."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import ModelError
from models.holdout import Holdout, holdout_path, read_holdout, write_holdout


@pytest.fixture
def holdout():
    return Holdout(
        feature_set="abc",
        feature_names=("a", "b", "c"),
        features=np.array([[1, np.nan, -0.0], [np.inf, 2, 1e-40]], np.float32),
        labels=np.array([0, 1], np.int8),
        times_ms=np.array([1_700_000_000_001, 1_700_000_000_002], np.int64),
        amount_minor=np.array([-5, 1 << 42], np.int64),
        transaction_ids=["t1", "ü"],
        user_ids=["u", "v"],
        countries=["", "DE"],
        channels=["pos", ""],
    )


def test_it_reads_back_bit_for_bit(tmp_path, holdout):
    path = holdout_path(tmp_path / "bundle")
    assert path.name == "bundle.holdout.parquet"
    write_holdout(path, holdout)
    first = path.read_bytes()
    found = read_holdout(path)
    for field in dataclasses.fields(Holdout):
        ours, theirs = getattr(holdout, field.name), getattr(found, field.name)
        if isinstance(ours, np.ndarray):
            assert (theirs.dtype, theirs.shape, theirs.tobytes()) == (ours.dtype, ours.shape, ours.tobytes())
        else:
            assert theirs == ours
    write_holdout(path, found)
    assert path.read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_columns_are_those_agreed_on(tmp_path, holdout):
    write_holdout(tmp_path / "h.parquet", holdout)
    schema = pq.read_schema(tmp_path / "h.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "transaction_id": "string",
        "user_id": "string",
        "event_time": "timestamp[ms, tz=UTC]",
        "label": "int8",
        "amount_minor": "int64",
        "country": "string",
        "channel": "string",
        "features": "fixed_size_list<element: float>[3]",
    }
    assert schema.metadata[b"feature_set"] == b"abc"
    assert schema.metadata[b"features"] == b'["a", "b", "c"]'


def test_what_is_no_holdout_is_one_sentence(tmp_path, holdout):
    with pytest.raises(ModelError, match="There is no holdout at"):
        read_holdout(tmp_path / "none.parquet")
    path = tmp_path / "h.parquet"
    write_holdout(path, holdout)
    table = pq.read_table(path)
    for spoiled in (
        table.drop_columns(["label"]),
        table.replace_schema_metadata({}),
        table.replace_schema_metadata({**table.schema.metadata, b"features": b'["a"]'}),
        table.set_column(1, "user_id", pa.array(["u", None])),
    ):
        pq.write_table(spoiled, path)
        with pytest.raises(ModelError, match="is no holdout that"):
            read_holdout(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(ModelError, match="is no holdout that"):
        read_holdout(path)
