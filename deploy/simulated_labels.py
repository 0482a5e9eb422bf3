"""Labels for simulated traffic, some time after it: `simulated_labels.py FILE --rate N --delay SECS`.

FILE is what `fraudstream simulate` wrote and `fraudstream publish FILE --rate N` sends at the same time: the label of
each payment goes to topics.labels so many seconds after the payment itself, keyed by user. Settings as for any verb.
"""

import argparse
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow.parquet as pq
from confluent_kafka import Producer

from stream.clients import check_properties, publisher_config
from stream.publish import Row, at_rate, publish
from stream.settings import load_settings


def labels(file: Path) -> Iterator[Row]:
    """Yield each payment's label in the file's order, dated now."""
    columns = ["transaction_id", "user_id", "is_fraud"]
    for batch in pq.ParquetFile(file).iter_batches(columns=columns):
        for row in batch.to_pylist():
            label = {**row, "is_fraud": bool(row["is_fraud"]), "label_time": time.time_ns() // 1_000_000}
            yield Row(str(row["user_id"]).encode(), orjson.dumps(label))


def main() -> None:
    """Wait out the delay, then publish at the rate of the traffic."""
    parser = argparse.ArgumentParser(description="Publish the labels of simulated traffic, some time after it.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float, default=50.0, metavar="N", help="Labels a second.")
    parser.add_argument("--delay", type=float, default=600.0, metavar="SECS", help="Time after the payment.")
    given = parser.parse_args()
    path = os.environ.get("FRAUDSTREAM_SETTINGS")
    settings = load_settings(Path(path) if path else None, os.environ)
    check_properties(settings)
    threading.Event().wait(given.delay)
    sent = publish(
        labels(given.file), Producer(publisher_config(settings)), settings.topics.labels, at_rate(given.rate)
    )
    print(f"{sent.count} labels sent to {settings.topics.labels}, {sent.failed} failed")
    raise SystemExit(1 if sent.failed else 0)


if __name__ == "__main__":
    main()
