"""How long one decision takes to be explained among many: found, computed again, and taken apart.

PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/explain.py [DECISIONS]   1,000,000 by default

Four versions have decided one after the other, a quarter each; asked is about one by the first, three versions old.
Every time is that of the whole command, from its start to its end.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from command import SCRIPT, environment
from decided import Past, write_versions
from figures import Row
from kafka_server import KafkaServer
from kafka_topics import Topics
from models.bundle import open_bundle
from spread import claim

DECISIONS = 1_000_000
PARTITIONS = 12
USERS = 20_000
STEP_MS = 500
BOUND = "≤ 10 s"
VERSIONS = ("v1", "v2", "v3", "v4")


def table(decisions: int = DECISIONS) -> list[Row]:
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_versions(folder / "var" / "models", VERSIONS, rounds=300)
        topics = Topics(kafka.bootstrap)
        for name in ("decisions", "features"):
            topics.create_exactly(name, PARTITIONS, {"retention.ms": "-1"})
        past = Past(kafka.bootstrap, "decisions", "features", PARTITIONS, users=USERS)
        started = time.monotonic()
        for version in VERSIONS:
            bundle = open_bundle(folder / "var" / "models" / version)
            past.write(bundle, "forest", decisions // len(VERSIONS), step_ms=STEP_MS, explained=False)
        print(f"{past.written:,} decisions written in {time.monotonic() - started:.0f} s", file=sys.stderr)
        (folder / "fraudstream.toml").write_text(f"[kafka]\nbootstrap_servers = '{kafka.bootstrap}'\n")
        old = decisions // 8
        asked = {
            "by its id": [f"t-{old}"],
            "by its id and user": [f"t-{old}", "--user", f"u-{old % USERS}"],
        }
        rows = []
        for name, arguments in asked.items():
            times = [measure(folder, arguments, old) for _ in range(3)]
            label = f"explain one of {decisions:,}, three versions old, {name}"
            rows.append(Row(label, claim(times, BOUND, 1), BOUND, times, "s"))
    return rows


def measure(folder: Path, arguments: list[str], number: int) -> float:
    """Return the seconds of one explanation, having looked at what it says."""
    started = time.monotonic()
    done = subprocess.run(
        [str(SCRIPT), "explain", *arguments, "--json"], cwd=folder, env=environment({}), capture_output=True, check=True
    )
    secs = time.monotonic() - started
    explained = orjson.loads(done.stdout)
    assert (explained["transaction_id"], explained["model"]) == (f"t-{number}", "v1")
    assert abs(explained["bias"] + explained["sum"] - explained["log_odds"]) < 1e-9
    return secs


if __name__ == "__main__":
    for row in table(*map(int, sys.argv[1:])):
        print(*row[:3], sep=" | ")
