"""The feature log's records."""

import itertools
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

    log = FeatureLog(NAMES, "abc", max_bytes=1 << 20)
    ((partition, first, record),) = log.encode(ids, np.full(100, 3), offsets, times, features)
    table = read_feature_log(record)

    assert (partition, first) == (3, 0)
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

    records = list(log.encode(ids, np.zeros_like(offsets), offsets, times, features))

    assert len(records) > 1
    assert all(len(record) <= 10_000 + 2_000 for _, _, record in records)  # the schema comes on top
    read = [read_feature_log(record) for _, _, record in records]
    assert [t.column("offset")[0].as_py() for t in read] == [first for _, first, _ in records]
    assert [offset for t in read for offset in t.column("offset").to_pylist()] == offsets.tolist()


def test_each_partition_has_records_of_its_own_as_if_it_had_been_alone():
    ids, offsets, times, features = rows(300)
    log, starts = FeatureLog(NAMES, "abc", max_bytes=10_000), [0, 1, 3, 200, 300]
    partitions = np.repeat([7, 0, 12, 3], np.diff(starts))

    found = list(log.encode(ids, partitions, offsets, times, features))

    alone = []
    for start, end in itertools.pairwise(starts):
        part = slice(start, end)
        alone += log.encode(ids[part], partitions[part], offsets[part], times[part], features[part])
    assert [(*place, *read(record)) for *place, record in found] == [
        (*place, *read(record)) for *place, record in alone
    ]
    assert [partition for partition, _, _ in found][:3] == [7, 0, 12]
    none = np.empty(0, np.int64)
    assert list(log.encode([], none, none, none, np.empty((0, 3), np.float32))) == []


def read(record):
    table = read_feature_log(record)
    return table.drop(["features"]).to_pylist(), table.column(
        "features"
    ).combine_chunks().flatten().to_numpy().tobytes()


def test_halving_goes_down_to_one_row():
    ids, offsets, times, features = rows(4)
    log = FeatureLog(NAMES, "abc", max_bytes=1000)
    for _ in range(20):
        log.halve()

    assert len(list(log.encode(ids, np.zeros_like(offsets), offsets, times, features))) == 4
