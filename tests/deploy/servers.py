"""Prometheus and Alertmanager as real processes, and somebody who hears what Alertmanager says."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import yaml

from deployment import DEPLOY, RULES, program
from kafka_server import free_port, is_open


class Server:
    """A program that listens on a port of its own between entering and leaving the context."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port, self._command = port, command

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: is_open(self.port), f"{self._command[0]} listens")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(30)

    def get(self, path: str, data: bytes | None = None, kind: str = "application/x-www-form-urlencoded") -> Any:
        """Return the JSON of an answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": kind})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")


class Prometheus(Server):
    """targets: host:port by the name of the service in docker-compose.yml. rules: files; alertmanager: its port."""

    def __init__(
        self, folder: Path, targets: Mapping[str, str], rules: list[Path] = RULES, alertmanager: int | None = None
    ) -> None:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["rule_files"] = [str(path) for path in rules]
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        if alertmanager is None:
            del config["alerting"]
        else:
            config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
        for job in config["scrape_configs"]:
            static = job["static_configs"][0]
            static["targets"] = [targets[target.partition(":")[0]] for target in static["targets"]]
        folder.mkdir(exist_ok=True)
        path = folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        port = free_port()
        options = [f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        super().__init__([program("prometheus"), *options, f"--web.listen-address=127.0.0.1:{port}"], port)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query, none before it can answer."""
        try:
            found = self.get("/api/v1/query", urllib.parse.urlencode({"query": query}).encode())
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it reads its own log yet
                return []
            raise
        samples: list[dict[str, Any]] = found["data"]["result"]
        return samples


class Alertmanager(Server):
    """config: the path of its settings."""

    def __init__(self, folder: Path, config: Path) -> None:
        port = free_port()
        options = [f"--config.file={config}", f"--storage.path={folder}", "--cluster.listen-address="]
        super().__init__([program("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{port}"], port)

    def tell(self, alerts: list[dict[str, str]]) -> None:
        """Tell it of alerts by their labels."""
        data = json.dumps([{"labels": labels} for labels in alerts]).encode()
        self.get("/api/v2/alerts", data, "application/json")

    def alerts(self) -> list[dict[str, Any]]:
        """Return what it was told of and what it makes of it."""
        found: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return found


class Chat:
    """An incoming webhook; what was said there as (receiver, line), heard(receiver, line) at once."""

    def __init__(self, heard: Callable[[str, str], object]) -> None:
        self.lines: list[tuple[str, str]] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for line in said["attachments"][0]["text"].splitlines():
                    chat.lines.append((self.path.strip("/"), line))
                    heard(self.path.strip("/"), line)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name it overrides)
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def said(self, *parts: str) -> list[str]:
        """Return the lines that hold all of these."""
        return [line for _, line in list(self.lines) if all(part in line for part in parts)]


def until(condition: Callable[[], object], what: str, secs: float = 60) -> None:
    """Wait until it is so."""
    deadline, tick = time.monotonic() + secs, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {secs:g} s in vain until {what}"
        tick.wait(0.05)
