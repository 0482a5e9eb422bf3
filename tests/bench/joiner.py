"""Decisions a second through the joiner, its CPU, and what its index takes; with --kills, killed again and again.

    PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/joiner.py [--decisions 1000000] [--kills 5]

Decisions of 40 days with labels up to 130 days later, repeats, contradictions and labels of nobody among them, on a
real broker. What is written must equal a naive join of the whole logs, and scikit-learn's ROC AUC over both must be
the same number. Run with few labels, as is usual, and with more than one each; reading alone is the same client on the
same topics.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import msgspec
import psutil
from confluent_kafka import Consumer, TopicPartition
from sklearn.metrics import roc_auc_score

from figures import Row
from joined_topics import JoinedTopics, Made, make
from joiner_process import POINTS, JoinerProcess
from kafka_server import KafkaServer
from kafka_topics import Topics
from labels_and_decisions import RETENTION_MS
from spread import claim
from stream.clients import joiner_configs
from stream.label_index import LabelIndex
from stream.labelled_record import LabelledDecision
from stream.settings import load_settings
from stream.topics import topic_id

DECISIONS = 1_000_000
BYTES_BOUND = "≤ 100"
SHOWN = "≥ 20,000"
#: Shares of decisions that get labels: what is usual, and what is hard.
FEW, MANY = 0.02, 0.8
LONG_SECS = 3_000


def null_secs(joined: JoinedTopics, settings: dict[str, object]) -> tuple[float, float]:
    """Return wall and CPU seconds of reading both topics to their ends with the joiner's consumer."""
    config, _ = joiner_configs(load_settings(None, {}, settings), 1 << 20)
    consumer = Consumer({**config, "group.id": f"null-{uuid.uuid4().hex}"})
    ends = {
        (name, number): end
        for name in (joined.decisions, joined.labels)
        for number, end in joined.topics.ends(name).items()
    }
    started, cpu = time.perf_counter(), time.process_time()
    consumer.assign([TopicPartition(*place, 0) for place in ends])
    left = sum(ends.values())
    while left:
        left -= len(consumer.consume(20_000, 0.2))
    consumer.close()
    return time.perf_counter() - started, time.process_time() - cpu


def through(joined: JoinedTopics, settings: dict[str, object], made: Made) -> tuple[float, float, float]:
    """Join everything undisturbed; return wall seconds from live to done, CPU seconds and index bytes a decision."""
    joiner = JoinerProcess(settings)
    try:
        joiner.wait_for("live", timeout_secs=LONG_SECS)
        live_at = next(at for at, event, _ in joiner.events if event == "live")
        cpu = sum(psutil.Process(joiner.process.pid).cpu_times()[:2])
        wait_caught_up(joined, joiner)
        cpu = sum(psutil.Process(joiner.process.pid).cpu_times()[:2]) - cpu
        done_at = max(at for at, event, _ in joiner.events if event == "committed")
        assert joiner.stop() == 0, joiner.errors
    finally:
        joiner.close()
    check(joined, made)
    kept, size = index_size(joined, settings)
    return done_at - live_at, cpu, size / kept


def wait_caught_up(joined: JoinedTopics, joiner: JoinerProcess) -> None:
    zero = [[joined.decisions, 0], [joined.labels, 0]]
    joiner.wait_until(lambda: joiner.count("committed") and joiner.values("lag")[-2:] == zero, "all joined", LONG_SECS)


def index_size(joined: JoinedTopics, settings: dict[str, object]) -> tuple[int, int]:
    identity = {f"topic {name}": topic_id(joined.topics.admin, name) for name in (joined.decisions, joined.labels)}
    identity |= {"group": str(settings["monitor.group"]), "sample_rate": "1.0"}
    index = LabelIndex(Path(str(settings["labels.index"])), identity, RETENTION_MS)
    kept, size = index.decisions, index.size_bytes
    index.close()
    return kept, size


def check(joined: JoinedTopics, made: Made) -> None:
    """Every label is joined once, as a naive join of the whole logs has it; so is the area under the curve."""
    written = joined.written()
    assert written == made.expected, f"{len(written):,} records written, {len(made.expected):,} expected"
    found, expected = auc(written), auc(made.expected)
    assert found == expected, (found, expected)
    print(f"joiner: {len(written):,} labels joined once; ROC AUC {found:.6f} as scikit-learn has it", file=sys.stderr)


def auc(values: list[bytes]) -> float:
    decode = msgspec.json.Decoder(LabelledDecision).decode
    records = [decode(value) for value in values]
    return float(roc_auc_score([one.is_fraud for one in records], [one.score for one in records]))


def killed(joined: JoinedTopics, settings: dict[str, object], made: Made, kills: int, seed: int = 7) -> str:
    """Join everything while the process is killed, at named points and at random moments; return how."""
    rng, done, tick = random.Random(seed), [], threading.Event()
    ways = ["random", *POINTS]
    for number in range(kills):
        way = ways[number % len(ways)]
        joiner = JoinerProcess(
            settings, None if way == "random" else f"{way}:{2 if way == 'stored' else rng.randrange(2, 4)}"
        )
        try:
            if way == "random":
                joiner.wait_for("committed", timeout_secs=LONG_SECS)
                tick.wait(rng.random())
                joiner.kill()
            assert joiner.end(LONG_SECS) == -signal.SIGKILL, joiner.errors
        finally:
            joiner.close()
        done.append(way)
    last = JoinerProcess(settings)
    try:
        wait_caught_up(joined, last)
        assert last.stop() == 0, last.errors
    finally:
        last.close()
    check(joined, made)
    return ", ".join(done)


def table(decisions: int = DECISIONS, kills: int = 0) -> list[Row]:
    if kills:
        return killed_rows(decisions, kills)
    return [row for share in (FEW, MANY) for row in undisturbed_rows(decisions, share)]


def undisturbed_rows(decisions: int, labelled: float) -> list[Row]:
    made = make(decisions, users=max(200, decisions // 50), labelled=labelled)
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as folder:
        joined = JoinedTopics.create(Topics(kafka.bootstrap))
        joined.produce(made.decisions, made.labels)
        settings = joined.settings(Path(folder))
        null_wall, null_cpu = null_secs(joined, settings)
        wall, cpu, size = through(joined, settings, made)
        rebuilt = rebuild_secs(settings)
    count = len(made.decisions)
    each = f"{len(made.labels) / count:.2f} labels each"
    return [
        _row(f"joiner: decisions a second, {each}", count / wall, "decisions/s", SHOWN),
        _row(f"joiner: decisions a second of CPU, {each}", count / cpu, "decisions/s of CPU", SHOWN),
        _row(f"joiner: µs of CPU a decision, {each}", cpu / count * 1e6, "µs", digits=1),
        Row(f"joiner: time of reading alone, {each}", f"1/{wall / null_wall:.1f} (CPU 1/{cpu / null_cpu:.1f})", ""),
        _row(f"joiner: index read again, decisions a second, {each}", count / rebuilt, "decisions/s"),
        _row(f"joiner: index, bytes a decision, {each}", size, "B", BYTES_BOUND, digits=1),
    ]


def _row(name: str, value: float, unit: str, bound: str = "", digits: int = 0) -> Row:
    return Row(name, claim([value], bound, digits), bound, [value], unit)


def rebuild_secs(settings: dict[str, object]) -> float:
    """Return the seconds from the first record to the last of reading a lost index again."""
    Path(str(settings["labels.index"])).unlink()
    joiner = JoinerProcess(settings)
    try:
        joiner.wait_for("live", timeout_secs=LONG_SECS)
        told = {event: at for at, event, _ in joiner.events if event in ("rebuilding", "live")}
        assert joiner.stop() == 0, joiner.errors
    finally:
        joiner.close()
    return told["live"] - told["rebuilding"]


def killed_rows(decisions: int, kills: int) -> list[Row]:
    made = make(decisions, users=max(200, decisions // 50), labelled=MANY)
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as folder:
        joined = JoinedTopics.create(Topics(kafka.bootstrap))
        joined.produce(made.decisions, made.labels)
        settings = joined.settings(Path(folder))
        how = killed(joined, settings, made, kills)
        kept, size = index_size(joined, settings)
    what = f"joiner: {len(made.decisions):,} decisions, {len(made.labels):,} labels, killed {kills} times ({how})"
    return [
        Row(what, "each joined once", "each once"),
        _row("joiner: index after that, bytes a decision", size / kept, "B", BYTES_BOUND, digits=1),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=DECISIONS)
    parser.add_argument("--kills", type=int, default=0)
    given = parser.parse_args()
    for row in table(given.decisions, given.kills):
        print(*row[:3], sep=" | ")
