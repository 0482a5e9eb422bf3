"""Who races, by name. A Python peer runs in an environment of its own, made the first time from pinned hashes."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from contender import Contender, Delivery, Job, job_argument
from null import null
from ours import ours, variants
from scene import KEPT, MIDDLE, SHORT

HERE = Path(__file__).parent
BATCH = 2_048


def environment(name: str) -> Path:
    """Return the Python of an environment that holds what requirements/NAME.txt pins, made if it is not there."""
    pinned = HERE / "requirements" / f"{name}.txt"
    folder = KEPT / f"env-{name}-{hashlib.sha256(pinned.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        print(f"installing {name} into an environment of its own", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            str(pinned),
        ]
        subprocess.run([str(python), *install], check=True)
        (folder / ".ready").touch()
    return python


def python_peer(
    name: str, script: str, delivery: Delivery, *arguments: str, needs: str = "", copies: int = 1, once: bool = False
) -> Contender:
    """Return a peer that is one script of this folder. needs: its environment; without, the project's own."""

    def command(job: Job) -> list[str]:
        python = str(environment(needs)) if needs else sys.executable
        return [python, str(HERE / script), job_argument(job), *arguments]

    return Contender(name, delivery, command, events=SHORT if once else MIDDLE, copies=copies, once=once)


def kafka_streams(name: str, most: int) -> Contender:
    """Return the Java program; up to `most` payments are scored at once."""

    def command(job: Job) -> list[str]:
        built = java_program("kafka_streams")
        return [
            "java",
            "-Xmx2g",
            "-cp",
            f"{built / 'classes'}:{built / 'jars'}/*",
            "race.Race",
            job_argument(job),
            str(most),
        ]

    return Contender(name, "exactly_once", command, events=MIDDLE)


def pyflink(name: str, script: str, *, closed: bool = False, once: bool = False) -> Contender:
    """Return a PyFlink program, with Flink's connector for Kafka beside it."""

    def command(job: Job) -> list[str]:
        jars = java_program("flink_connector") / "jars"
        return [str(environment("flink")), str(HERE / script), job_argument(job), str(jars)]

    return Contender(name, "exactly_once", command, events=SHORT, closed=closed, once=once)


def java_program(name: str) -> Path:
    """Return the folder of a Java project's classes and jars, built by Maven the first time."""
    project = HERE / name
    sources = b"".join(path.read_bytes() for path in [project / "pom.xml", *sorted(project.rglob("*.java"))])
    folder = KEPT / f"{name}-{hashlib.sha256(sources).hexdigest()[:12]}"
    if not (folder / ".ready").exists():
        print(f"building {name}", file=sys.stderr)
        command = ["mvn", "-q", "-B", "-f", str(project / "pom.xml"), "package", f"-Dbench.target={folder}"]
        subprocess.run(command, check=True)
        (folder / ".ready").touch()
    return folder


def quick() -> list[Contender]:
    """Return those that a race of under three minutes is about."""
    by_hand = python_peer("loop by hand, batched", "loop_by_hand.py", "at_least_once", str(BATCH))
    return [ours(), null("exactly_once"), replace(by_hand, events=SHORT)]


def everybody() -> list[Contender]:
    """Return all of them."""
    return [
        *variants(),
        null("exactly_once"),
        null("at_least_once"),
        python_peer("loop by hand, one at a time", "loop_by_hand.py", "at_least_once", once=True),
        python_peer("loop by hand, batched", "loop_by_hand.py", "at_least_once", str(BATCH)),
        python_peer("Quix Streams, documented", "quix.py", "exactly_once", "documented", needs="quix", once=True),
        python_peer("Quix Streams, tuned", "quix.py", "exactly_once", "tuned", needs="quix", copies=2),
        python_peer("Faust, documented", "faust_agents.py", "at_least_once", "documented", needs="faust", once=True),
        python_peer("Faust, tuned", "faust_agents.py", "at_least_once", "tuned", needs="faust"),
        python_peer(
            "Bytewax, documented", "bytewax_flow.py", "at_least_once", "documented", needs="bytewax", once=True
        ),
        python_peer("Bytewax, tuned", "bytewax_flow.py", "at_least_once", "tuned", needs="bytewax"),
        kafka_streams("Kafka Streams", 1),
        kafka_streams("Kafka Streams, batched by hand", 512),
        pyflink("PyFlink, keyed process function", "flink_keyed.py", once=True),
        pyflink("PyFlink, SQL OVER", "flink_over.py", closed=True),
    ]
