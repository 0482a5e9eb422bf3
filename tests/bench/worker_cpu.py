"""What a worker spends on an event, once it is warm."""

import psutil

from committed import wait_until_committed
from kafka_topics import Topics
from worker_process import WorkerProcess


def cpu_us(worker: WorkerProcess, topics: Topics, group: str, source: str) -> float:
    """Return µs of CPU an event of the whole process, from its fifth commit or so to its last; stop it."""
    process = psutil.Process(worker.process.pid)
    worker.wait_for("committed", 5)  # warm: kernels loaded, fetch queue full
    first = len(worker.values("committed"))
    cpu = process.cpu_times()
    wait_until_committed(topics, group, source, [worker])
    done = process.cpu_times()
    commits = worker.count("committed")
    events = sum(worker.values("batch")[first:commits])
    assert worker.stop() == 0, worker.errors[-2000:]
    return (done.user + done.system - cpu.user - cpu.system) / events * 1e6
