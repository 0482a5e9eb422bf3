"""The feature log's records."""

import json

import numpy as np

from stream.feature_log import FeatureLog, read_feature_log

NAMES = ["amount", "count_1h", "mean_amount_30d"]


def rows(n):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(n, 3)).astype(np.float32)
    features[::7, 1] = np.nan
    return [f"t-{i}" for i in range(n)], np.arange(n, dtype=np.int64) * 2, np.arange(n, dtype=np.int64), features


def test_a_record_reads_back_bit_for_bit():
    ids, offsets, times, features = rows(100)

    ((first, record),) = FeatureLog(NAMES, "abc", max_bytes=1 << 20).encode(ids, 3, offsets, times, features)
    table = read_feature_log(record)

    assert first == 0
    assert table.column("transaction_id").to_pylist() == ids
    assert set(table.column("partition").to_pylist()) == {3}
    assert table.column("offset").to_pylist() == offsets.tolist()
    assert table.column("event_time").cast("int64").to_pylist() == times.tolist()
    vectors = table.column("features").combine_chunks().values.to_numpy()
    assert vectors.tobytes() == features.tobytes()
    assert json.loads(table.schema.metadata[b"features"]) == NAMES
    assert table.schema.metadata[b"feature_set"] == b"abc"


def test_records_are_split_by_bytes_and_each_names_its_first_row():
    ids, offsets, times, features = rows(1000)
    log = FeatureLog(NAMES, "abc", max_bytes=10_000)

    records = list(log.encode(ids, 0, offsets, times, features))

    assert len(records) > 1
    assert all(len(record) <= 10_000 + 2_000 for _, record in records)  # the schema comes on top
    read = [read_feature_log(record) for _, record in records]
    assert [t.column("offset")[0].as_py() for t in read] == [first for first, _ in records]
    assert [offset for t in read for offset in t.column("offset").to_pylist()] == offsets.tolist()


def test_halving_goes_down_to_one_row():
    ids, offsets, times, features = rows(4)
    log = FeatureLog(NAMES, "abc", max_bytes=1000)
    for _ in range(20):
        log.halve()

    assert len(list(log.encode(ids, 0, offsets, times, features))) == 4
