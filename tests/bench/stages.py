"""What each stage of the real worker costs: µs of CPU an event, over full windows, exactly once, with everything on.

    python stages.py            runs the worker in the race's scene and prints the table
    python stages.py JOB FILE   is that worker: it writes what its threads spent to FILE when it ends

Every stage is measured by its own thread's CPU clock, so that others on the machine do not count. What the loop's
thread, the commit's and the checkpoints' did not spend of the process's CPU, librdkafka's own threads did.
"""

import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contender import OWN, Contender, Job, job_argument
from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from ours import settings_of
from race import Ring
from redis_server import RedisServer
from scene import WARM, scene
from spread import spread

STAGES = {
    "consume": "consume: take records from the client",
    "decode": "decode: bytes to columns",
    "windows": "windows: find users, observe",
    "score": "score: 600 trees, thresholds, reasons",
    "encode": "encode: decisions and feature log",
    "produce": "produce: hand decisions to the client",
    "commit": "commit: offsets and transaction, its own thread",
    "store": "store: checkpoints written, its own thread",
    "loop": "the rest of the loop: observers, checkpoints, waiting for the commit",
    "client": "the client's own threads: fetch, compress, send",
    "whole": "the whole process",
}
ROUNDS = 3


def table(rounds: int = ROUNDS) -> list[Row]:
    """Rows of each stage."""
    found: list[Counter[str]] = []
    with KafkaServer() as kafka, RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        servers = [kafka.pid, redis.pid]
        ring = Ring(scene(), Topics(kafka.bootstrap), redis.url, servers)
        for number in range(rounds):
            target = Path(folder, f"{number}.json")

            def command(job: Job, target: Path = target) -> list[str]:
                return [sys.executable, __file__, job_argument(job), str(target)]

            ring.run(Contender("ours, by stages", "exactly_once", command, environ=OWN))
            found.append(Counter(json.loads(target.read_text())))
            print({name: round(us, 2) for name, us in found[-1].items()}, file=sys.stderr, flush=True)
    rows = []
    for name, meaning in STAGES.items():
        values = [one[name] for one in found]
        rows.append(Row(f"stage, {meaning}", f"{spread(values)} µs of CPU an event", "", values, "µs of CPU an event"))
    return rows


def run_worker(job: Job, target: Path) -> None:
    """Run the worker as the command composes it; write µs an event of the measured part, by stage."""
    from stream import checkpoint, delivery, line, worker
    from stream.app import compose
    from stream.observer import BatchReport, Observer
    from stream.settings import load_settings

    spent: Counter[str] = Counter()
    began: Counter[str] = Counter()
    ended: Counter[str] = Counter()

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*args)
            finally:
                spent[stage] += time.thread_time() - start

        return run

    class Stages(Observer):
        def batch(self, report: BatchReport) -> None:
            for stage, secs in report.stage_secs.items():
                spent[stage] += secs
            spent["events"] += report.events
            spent["thread"], spent["whole"] = time.thread_time(), time.process_time()
            if spent["events"] == WARM:
                began.update(spent)
            # What comes after the last batch, the last checkpoint above all, is not the measured part's.
            ended.clear()
            ended.update(spent)

    line.perf_counter = worker.perf_counter = time.thread_time
    delivery.ExactlyOnce._produce = timed("produce", delivery.ExactlyOnce._produce)
    delivery.ExactlyOnce._commit = timed("commit", delivery.ExactlyOnce._commit)
    checkpoint.Checkpointer._write = timed("store", checkpoint.Checkpointer._write)
    app = compose(load_settings(None, {}, settings_of(job)), Stages())
    signal.signal(signal.SIGTERM, lambda *_: app.stop())
    app.run()
    assert began, f"no batch ended with the {WARM:,} payments of the warm part: {ended['events']:,} were decided"
    ended.subtract(began)
    us = Counter({stage: secs / ended["events"] * 1e6 for stage, secs in ended.items()})
    us["loop"] = us["thread"] - sum(us[stage] for stage in list(STAGES)[:6])
    us["client"] = us["whole"] - us["thread"] - us["commit"] - us["store"]
    target.write_text(json.dumps({name: us[name] for name in STAGES}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_worker(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]))
    else:
        for row in table():
            print(*row[:3], sep=" | ")
