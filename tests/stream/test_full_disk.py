"""A disk that is full under the SQLite store, and then no longer: nothing is lost, and the worker lives."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from absent import absent
from kafka_topics import Topics
from line_thread import line_settings, threaded_crew

pytestmark = pytest.mark.kafka

DISK = "2m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        absent("a small disk takes the right to mount one: run the tests as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_is_waited_for(topics: Topics, calm, small_disk: Path):
    settings = line_settings(topics.bootstrap) | {
        "store.kind": "sqlite",
        "store.path": str(small_disk / "state.sqlite"),
        "store.checkpoint_interval_ms": 100,
        "worker.max_batch": 16,
    }
    ballast = small_disk / "ballast"
    with threaded_crew(topics, calm.source, settings) as crew:
        worker = crew.here("w1")
        worker.wait_for("checkpointed", 2)
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass  # not a byte is left
        worker.wait_for("store_failed")
        ballast.unlink()
        checkpoints = worker.count("checkpointed")
        worker.wait_for("checkpointed", checkpoints + 1)
        output = crew.finish()

    assert "full" in worker.values("store_failed")[0]
    assert output.differences(calm.output) == []
