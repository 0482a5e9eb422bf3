"""Training and serving see the same features: the feature log equals `backfill` of the same file, bit for bit."""

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from committed import wait_until_committed
from kafka_topics import Topics
from line_output import create_line, read_line
from state.features import default_feature_set
from stream.backfill import backfill
from stream.settings import load_settings
from traffic import traffic
from worker_process import WorkerProcess

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("workers", [1, 2])
def test_the_feature_log_equals_backfill_of_the_same_file(topics: Topics, redis, tmp_path, workers):
    # Keyed by a user of its own JSON, so that every record of the file is where its user is.
    rows = [(key, value) for key, value in traffic(20_000, seed=5) if is_transaction(key, value)]
    history = tmp_path / "history.jsonl"
    history.write_bytes(b"".join(value + b"\n" for _, value in rows))
    line = create_line(topics)
    topics.produce(line.transactions, rows)
    settings = line.settings() | {
        "kafka.bootstrap_servers": topics.bootstrap,
        "kafka.group": f"parity-{line.decisions}",
        "kafka.session_timeout_ms": 3000,
        "model.engine": "constant",
        "metrics.enabled": False,
        "store.kind": "redis",
        "store.url": redis.url,
        "worker.max_batch": 512,
    }
    crew = [WorkerProcess(settings) for _ in range(workers)]
    try:
        wait_until_committed(topics, settings["kafka.group"], line.transactions, crew)
        assert [worker.stop() for worker in crew] == [0] * workers
    finally:
        for worker in crew:
            worker.close()
    streamed = read_line(topics, line).features

    own = load_settings(None, {}, settings)
    features = default_feature_set()
    target = tmp_path / "features.parquet"
    done = backfill(history, target, own.mapping(), own.limits(), own.state_spec(), features, now_ms=2_000_000_000_000)
    table = pq.read_table(target)
    offline = np.column_stack([table.column(name).to_numpy() for name in features.names])

    assert done.rows == len(rows) == len(streamed)
    # A repeated transaction id stands more than once in both; per id, both are in the user's order.
    by_id: dict[str, list[bytes]] = {}
    for _, (transaction_id, _, vector) in sorted(streamed.items()):
        by_id.setdefault(transaction_id, []).append(vector)
    for row, transaction_id in enumerate(table.column("transaction_id").to_pylist()):
        assert by_id[transaction_id].pop(0) == offline[row].tobytes(), f"row {row} differs"


def is_transaction(key: bytes | None, value: bytes | None) -> bool:
    """Whether the pair is a payment of its key's user; the hostile rest has tests of its own."""
    try:
        payment = orjson.loads(value or b"")
        return payment["user_id"].encode() == key and payment["amount"] >= 0 and payment["transaction_id"] != "k"
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        return False
