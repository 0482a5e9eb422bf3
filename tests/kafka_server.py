"""A real Apache Kafka broker for the tests and for work by hand: one node, KRaft, in a temporary directory.

``python tests/kafka_server.py`` starts one, prints its address and stops it on Ctrl-C.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

ROOT = Path(__file__).resolve().parent.parent
POM = ROOT / "deploy" / "kafka" / "pom.xml"
CACHE = ROOT / "var" / "kafka"

INSTALL = "apt-get install openjdk-17-jdk-headless maven"
START_DEADLINE_SECS = 60.0
STOP_DEADLINE_SECS = 20.0

# Below Linux's ephemeral range (32768 and up): while the broker is down, a client that keeps connecting to a port
# inside that range can be given the same port as its own, meets itself and takes the address away for good.
PORTS = range(20_000, 32_000)

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One node: every internal topic has one replica, and few partitions, so that the first commit does not wait
    # for fifty logs to be made.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "auto.create.topics.enable": "false",
    # Tests wait for members and transactions to be given up; these are the shortest times a client may ask for.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # Retention goes by record timestamps, and tests write old ones: records go only where a topic's own settings say
    # so, and then soon.
    "log.retention.ms": "-1",
    "log.retention.check.interval.ms": "1000",
    # Everything is allowed until a test denies a topic to User:ANONYMOUS.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    # After a crash the controller refuses the same broker until its former session has run out.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "250",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": str(8 << 20),
}

LOGGING = """\
<Configuration status="error">
  <Appenders>
    <File name="file" fileName="{path}"><PatternLayout pattern="%d %p %c{{1}} %m%n"/></File>
  </Appenders>
  <Loggers><Root level="info"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""


class KafkaMissingError(RuntimeError):
    """The machine lacks a part that a real broker needs; the message holds the command that brings it."""


class KafkaServer:
    """One broker with its own data directory and a fixed address; may be stopped, killed and started again.

    ``properties`` are added to the broker's server.properties. ``proxy``: the port of a way to the broker's second
    listener, at ``proxied_port``; clients that come by it are told to stay on it.
    """

    def __init__(self, properties: Mapping[str, str] | None = None, *, proxy: int = 0) -> None:
        self._jars = jars()
        # Classes loaded and checked once are mapped by later brokers, which then start twice as fast.
        self._classes = self._jars.with_name(f"{self._jars.name}.jsa")
        self._dir = Path(tempfile.mkdtemp(prefix="fraudstream-kafka-"))
        self._port, self._controller_port = free_port(), free_port()
        self._properties = dict(properties or {})
        self.proxied_port = free_port() if proxy else 0
        if proxy:
            self._properties |= {
                "listeners": f"{self._listeners()},PROXIED://127.0.0.1:{self.proxied_port}",
                "advertised.listeners": f"PLAINTEXT://{self.bootstrap},PROXIED://127.0.0.1:{proxy}",
                "listener.security.protocol.map": f"{PROPERTIES['listener.security.protocol.map']},PROXIED:PLAINTEXT",
            }
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address clients connect to; the same after a restart."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The broker's process id."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the broker has logged so far."""
        paths = [self._dir / "stdout.log", self._dir / "server.log"]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def start(self) -> Self:
        """Start the broker and wait until it answers; formats the data directory the first time."""
        if not (self._dir / "data" / "meta.properties").exists():
            self._format()
        with (self._dir / "stdout.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._dir / "server.properties"), options=["-Xmx512m", self._sharing()]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal reaches the tests, which stop the broker themselves
            )
        self._watchdog = watch(self._process.pid, self._dir)
        self._wait_until_ready()
        return self

    def stop(self) -> None:
        """Stop the broker in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the broker as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self, *, crash: bool = False) -> None:
        """Stop (or, with ``crash``, kill) the broker and start it again on the same address and data."""
        self._end(signal.SIGKILL if crash else signal.SIGTERM)
        self.start()

    def suspend(self) -> None:
        """Freeze the broker: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended broker go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the broker and remove its data."""
        if self._classes.exists():
            self.kill()
        else:
            self.stop()  # writes the archive of classes
            written = self._dir / "classes.jsa"
            if written.exists():
                shutil.move(written, self._classes)
        shutil.rmtree(self._dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _java(self, main: str, *arguments: str, options: Sequence[str]) -> list[str]:
        # Two cores shared with the tests: no collector threads beside them.
        shared = ["-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={self._dir / 'log4j2.xml'}"]
        return ["java", *options, *shared, "-cp", f"{self._jars}/*", main, *arguments]

    def _sharing(self) -> str:
        if self._classes.exists():
            return f"-XX:SharedArchiveFile={self._classes}"
        return f"-XX:ArchiveClassesAtExit={self._dir / 'classes.jsa'}"

    def _listeners(self) -> str:
        return f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller_port}"

    def _format(self) -> None:
        properties = {
            **PROPERTIES,
            "log.dirs": str(self._dir / "data"),
            "listeners": self._listeners(),
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            **self._properties,
        }
        (self._dir / "server.properties").write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
        (self._dir / "log4j2.xml").write_text(LOGGING.format(path=self._dir / "server.log"))
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        arguments = ["format", "-t", cluster_id, "-c", str(self._dir / "server.properties")]
        command = self._java("kafka.tools.StorageTool", *arguments, options=["-Xmx128m", "-XX:TieredStopAtLevel=1"])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"formatting the broker's data directory failed: {done.stdout}{done.stderr}")

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        # The port first: a librdkafka client that was refused once backs off, and start-up would wait for it.
        deadline = time.monotonic() + START_DEADLINE_SECS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the broker ended while starting:\n{self.log[-4000:]}")
            if is_open(self._port) and answers(self.bootstrap):
                return
            self._pause()
        self.kill()
        raise TimeoutError(f"the broker did not answer within {START_DEADLINE_SECS:.0f} s:\n{self.log[-4000:]}")

    def _pause(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(0.02)
        except subprocess.TimeoutExpired:
            return

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
        try:
            self._process.wait(STOP_DEADLINE_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def jars() -> Path:
    """Return the folder of Apache Kafka's jars, fetched by Maven the first time, or raise KafkaMissingError."""
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    match = re.search(r"<kafka.version>(.+)</kafka.version>", POM.read_text())
    assert match is not None
    folder = CACHE / f"jars-{match[1]}"
    if "java" in missing or (missing and not folder.exists()):
        raise KafkaMissingError(f"a real Kafka broker needs {' and '.join(missing)}: {INSTALL}")
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Fetched beside and renamed: a run that is cut off, or two at once, leave no half-filled folder.
        fetched = Path(tempfile.mkdtemp(dir=CACHE, prefix="fetch-"))
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(fetched)
            raise KafkaMissingError(f"Maven could not fetch Apache Kafka: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        try:
            fetched.rename(folder)
        except OSError:  # another run was first
            shutil.rmtree(fetched)
    return folder


def watch(pid: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a shell that kills ``pid`` and removes ``folder`` once this process is gone, however it went."""
    script = 'read -r _; kill -9 "$1"; rm -rf "$2"'
    return subprocess.Popen(
        ["sh", "-c", script, "watchdog", str(pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    for port in random.SystemRandom().sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found on 127.0.0.1")


def is_open(port: int) -> bool:
    """Say whether something listens on ``port`` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(bootstrap: str) -> bool:
    """Say whether the broker takes part in its cluster: it is registered and not fenced."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return bool(admin.list_topics(timeout=2.0).brokers)
    except KafkaException:
        return False


def main() -> None:
    """Run a broker until Ctrl-C."""
    try:
        server = KafkaServer()
    except KafkaMissingError as missing:
        sys.exit(str(missing))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with server:
        print(f"Kafka is at {server.bootstrap}   (Ctrl-C stops it and removes its data)\n")
        print(f"  fraudstream --set kafka.bootstrap_servers={server.bootstrap} topics create")
        print(f"  kcat -b {server.bootstrap} -L", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("\nstopping")


if __name__ == "__main__":
    main()
