"""From an incident to whoever is called: every part is real, and only waits are shorter.

Kafka, Redis, two workers and the monitor as docker-compose.yml runs them, Prometheus with our rules, Alertmanager with
our settings, and a chat's webhook. `for` and the waits of grouping are divided by HURRY; ranges and bounds are as
written. `make incidents` prints what follows as it happens.

    a producer sends payments without device_id  ──▶ called: the feature is missing
    worker-1 is killed    ──▶ called; worker-2 decides on; back again ──▶ all clear
    the monitor is killed ──▶ called: it is down; that it is silent is kept back; what it had found is neither ended
                              nor said again
"""

import os
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from composed import BIN
from deployment import DEPLOY, ROOT, RULES
from servers import Alertmanager, Chat, Prometheus, until

HURRY = 60
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
MISSING = "first_seen_device_30d is missing"
#: Beside 50 a second with it: most of a window's payments lack the field.
BROKEN_RATE = 200


def hurried(duration: str) -> str:
    """Return the HURRYth part of a duration such as 2m or 1h30m."""
    secs = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h|d)", duration))
    return f"{max(1, round(1_000 * secs / HURRY))}ms"


def hurried_rules(folder: Path) -> list[Path]:
    """Write our rules with their waits shortened, nothing else."""
    written = []
    for path in RULES:
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = hurried(rule["for"])
        written.append(folder / path.name)
        written[-1].write_text(yaml.safe_dump(document))
    return written


def hurried_alertmanager(folder: Path, port: int) -> Path:
    """Write our settings with their waits shortened and the chat's addresses in files of this folder."""
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    for receiver in ("now", "morning"):
        (folder / f"alert_url_{receiver}").write_text(f"http://127.0.0.1:{port}/{receiver}")
    document = yaml.safe_load(text.replace("/run/secrets/", f"{folder}/"))
    for route in (document["route"], *document["route"]["routes"]):
        route.update({name: hurried(value) for name, value in route.items() if name.endswith(("wait", "interval"))})
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_waits_are_shortened_and_nothing_else(tmp_path):
    assert [hurried(each) for each in ("30s", "5m", "1h30m", "1d")] == ["500ms", "5000ms", "90000ms", "1440000ms"]
    for ours, theirs in zip(RULES, hurried_rules(tmp_path), strict=True):
        was, became = (yaml.safe_load(path.read_text()) for path in (ours, theirs))
        for group in (*was["groups"], *became["groups"]):
            for rule in group["rules"]:
                rule.pop("for", None)
        assert was == became


class Incident:
    """What is said of it, with seconds since `begins` was called last."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self.begins("it begins")

    def begins(self, what: str) -> None:
        self._at = time.monotonic()
        self.note(what)

    def note(self, what: str) -> None:
        print(f"{time.monotonic() - self._at:7.1f} s  {what}", flush=True)

    def heard(self, receiver: str, line: str) -> None:
        """Note what is new: a message about one kind of trouble names all that is still open of it again."""
        state, what, alert = re.match(r"(\w+): (.*?) \[(\w+)\]", line).groups()
        if self._said.get(what) != state:
            self.note(f"{receiver} hears, {state}: {what} [{alert}]")
        self._said[what] = state


def without_device(composed, folder: Path) -> Path:
    """Write payments of the same people, under ids of their own, as a producer sends them that lost a field."""
    table = pq.read_table(composed.folder / "data" / "traffic.parquet").slice(0, 80_000)
    ids = pa.array([f"broken-{one}" for one in table["transaction_id"].to_pylist()])
    table = table.set_column(table.schema.get_field_index("transaction_id"), "transaction_id", ids)
    path = folder / "broken.parquet"
    pq.write_table(table.drop_columns(["device_id"]), path)
    return path


def publish(composed, path: Path, stack: ExitStack) -> None:
    environ = {"PYTHONPATH": str(ROOT), "FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": composed.bootstrap}
    process = subprocess.Popen(
        [str(BIN / "fraudstream"), "publish", str(path), "--rate", str(BROKEN_RATE)],
        env={**os.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait, 30)
    stack.callback(process.kill)


def decided(composed, worker: str) -> float:
    found = re.search(r"^fraudstream_events_total (\S+)", composed[worker].metrics(), re.MULTILINE)
    return float(found[1])


def test_an_incident_reaches_whoever_is_to_be_called_once_and_its_end_too(composed, tmp_path):
    incident = Incident()
    with ExitStack() as stack:
        chat = stack.enter_context(Chat(incident.heard))
        config = hurried_alertmanager(tmp_path, chat.port)
        alertmanager = stack.enter_context(Alertmanager(tmp_path / "alertmanager", config))
        rules = hurried_rules(tmp_path)
        prometheus = Prometheus(tmp_path / "prometheus", composed.targets, rules, alertmanager.port)
        stack.enter_context(prometheus)
        until(lambda: len(prometheus.ask("up == 1")) == 3, "Prometheus scrapes all three")

        def missing():
            return [one for one in alertmanager.alerts() if one["annotations"]["summary"].startswith(MISSING)]

        incident.begins(f"a producer sends payments without device_id, {BROKEN_RATE} a second beside the others' 50")
        publish(composed, without_device(composed, tmp_path), stack)
        until(lambda: chat.said("firing", MISSING), "the missing feature is said", 120)
        (found,) = {one["startsAt"] for one in missing()}

        worker = f'instance="{composed.targets["worker-1"]}"'
        before = decided(composed, "worker-2")
        incident.begins("worker-1 is killed (SIGKILL)")
        composed["worker-1"].process.kill()
        until(lambda: chat.said("firing", "FraudstreamWorkerDown"), "the worker's end is said")
        until(lambda: decided(composed, "worker-2") > before, "worker-2 decides on")
        incident.note("worker-2 decides on")
        composed.restart("worker-1")
        until(lambda: prometheus.ask(f"up{{{worker}}} == 1"), "worker-1 is scraped again", 120)
        until(lambda: chat.said("resolved", "FraudstreamWorkerDown"), "the worker's return is said")

        incident.begins("the monitor is killed (SIGKILL)")
        composed["monitor"].process.kill()
        until(lambda: chat.said("firing", "FraudstreamMonitorDown"), "the monitor's end is said")

        def silent():
            alerts = alertmanager.alerts()
            return [one for one in alerts if one["labels"]["alertname"] == "FraudstreamMonitorSilent"]

        until(silent, "its silence is an alert")
        assert [one["status"]["state"] for one in silent()] == ["suppressed"]
        incident.note("FraudstreamMonitorSilent fires, and is kept back, for its cause was said")
        composed.restart("monitor")
        until(lambda: prometheus.ask("fraudstream_monitor_caught_up == 1"), "the monitor has read back", 120)
        until(lambda: chat.said("resolved", "FraudstreamMonitorDown"), "the monitor's return is said")
        assert chat.said("FraudstreamMonitorSilent") == []
        assert {one["startsAt"] for one in missing()} == {found}, "what it had found goes on as the same alert"
        assert chat.said("resolved", MISSING) == []
        incident.note("what it had found before is neither ended nor said anew")
