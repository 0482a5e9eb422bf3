"""`fraudstream monitor` as a user starts it, in a process of its own, watched through its log, /metrics and /readyz."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from command import SCRIPT, environment

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

#: What depends on when one looks, on how often the process was started, or on how a file came to its size.
OF_THE_PROCESS = (
    "process_",
    "fraudstream_monitor_start",
    "fraudstream_monitor_interval_age",
    "fraudstream_label_",
    "fraudstream_joiner_index_bytes",
)


class MonitorProcess:
    """One monitor; `folder` is where it runs, `settings` are by dotted key."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        assigned = [part for key, value in settings.items() for part in ("--set", f"{key}={toml(value)}")]
        self.process = subprocess.Popen(
            [str(SCRIPT), *assigned, "monitor"],
            cwd=folder,
            env=environment({"PYTHONWARNINGS": "error"}),
            stderr=self._errors,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (one thread starts it)
        )
        self._url = ""

    @property
    def errors(self) -> str:
        return Path(f"/proc/self/fd/{self._errors.fileno()}").read_text()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.errors.splitlines() if line.startswith("{")]

    def events(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.lines if line["event"] == event]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def url(self) -> str:
        if not self._url:
            self.wait_for("serving")
            self._url = str(self.events("serving")[0]["url"])
        return self._url

    def wait_for(self, event: str, timeout_secs: float = 60) -> None:
        self.wait_until(lambda: self.events(event), event, timeout_secs)

    def wait_until(self, reached: Callable[[], object], what: str, timeout_secs: float = 60) -> None:
        deadline = time.monotonic() + timeout_secs
        tick = threading.Event()
        while not reached():
            assert self.alive, f"the monitor ended ({self.process.returncode}) before {what}:\n{self.errors[-3000:]}"
            assert time.monotonic() < deadline, f"no {what} within {timeout_secs} s:\n{self.errors[-3000:]}"
            tick.wait(0.05)

    def get(self, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url.replace("/metrics", path), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError as error:
            raise AssertionError(f"{path} does not answer:\n{self.errors[-3000:]}") from error

    def series(self) -> Series:
        """Every sample of a scrape."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def value(self, name: str, **labels: str) -> float | None:
        return self.series().get((f"fraudstream_{name}", tuple(sorted(labels.items()))))

    def state(self) -> Series:
        """The gauges that follow from the log alone."""
        return {
            key: value
            for key, value in self.series().items()
            if not key[0].startswith(OF_THE_PROCESS) and not key[0].endswith(("_total", "_created"))
        }

    def wait_for_lag(self, topics: list[str], timeout_secs: float = 60) -> None:
        """Wait until everything of these topics was handled and shown."""

        def caught_up() -> bool:
            lags = [self.value("monitor_lag_records", topic=topic) for topic in topics]
            return all(lag == 0 for lag in lags)

        self.wait_until(caught_up, f"lag of 0 on {topics}", timeout_secs)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self, timeout_secs: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_secs)

    def close(self) -> None:
        if self.alive:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self._errors.close()


def toml(value: object) -> str:
    return json.dumps(value) if isinstance(value, (str, list)) else str(value).lower()
