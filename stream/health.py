"""The worker's small HTTP server: /metrics for Prometheus, /healthz and /readyz for whoever supervises the process.

/healthz   200 while the loop goes round, 503 once it is stuck: restart the process
/readyz    200 once every partition held is decided live, 503 before, and while the store does not answer
"""

import errno
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Final, Protocol, Self

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream.errors import StartupError
from stream.observer import Observer

__all__ = ["Checks", "Health", "HealthServer", "stuck"]

# One turn may hold three waits for the broker of 30 s each (an assignment: producer, offsets, log ends); at the same
# time (max.poll.interval.ms) the group gives the partitions away.
STUCK_SECS: Final = 120.0
REQUEST_SECS: Final = 10.0  # a client that never finishes its request holds a thread no longer than this

log = logging.getLogger("fraudstream.health")


class Checks(Protocol):
    """What the server asks."""

    def unhealthy(self) -> dict[str, Any] | None:
        """Return why the process should be restarted, None while it should not."""

    def unready(self) -> dict[str, Any] | None:
        """Return why it does not do its work now, None where it does."""

    @property
    def about(self) -> dict[str, str]:
        """Return what to say beside the answer."""


def stuck(silent_secs: float, limit_secs: float) -> dict[str, Any] | None:
    """Return what to say of a loop that has been silent for longer than it may be, None of any other."""
    if silent_secs <= limit_secs:
        return None
    return {"reason": "the loop is stuck", "silent_secs": round(silent_secs, 3), "limit_secs": limit_secs}


class Health(Observer):
    """What the two checks need to know. clock: monotonic seconds."""

    # What a hook means stands at Observer.
    # ruff: noqa: D102

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, stuck_secs: float = STUCK_SECS) -> None:
        self._clock = clock
        self._stuck_secs = stuck_secs
        self._lock = threading.Lock()
        self._turned_at = clock()
        self._subscribed = False
        self._stopped = False
        self._breaker_open = False
        self._assigned: set[int] = set()
        self._live: set[int] = set()
        self._model = ""

    def started(self, *, model: str, **_: str) -> None:
        self._model = model

    def swapped(self, *, model: str, **_: str) -> None:
        self._model = model

    def turned(self) -> None:
        self._turned_at = self._clock()

    def assigned(self, partitions: list[int]) -> None:
        with self._lock:
            self._subscribed = True
            self._assigned.update(partitions)

    def revoked(self, partitions: list[int], *, lost: bool) -> None:  # noqa: ARG002 (both mean not held)
        with self._lock:
            self._assigned.difference_update(partitions)
            self._live.difference_update(partitions)
            # A worker without partitions is ready too (there may be more workers than partitions), once it is told so.
            self._subscribed = bool(self._assigned)

    def recovering(self, partition: int, **_: object) -> None:
        with self._lock:
            self._live.discard(partition)

    def live(self, partition: int) -> None:
        with self._lock:
            self._live.add(partition)

    def store_failed(self, sentence: str) -> None:  # noqa: ARG002 (the log says it)
        self._breaker_open = True

    def breaker(self, *, is_open: bool) -> None:
        self._breaker_open = is_open

    def stopped(self) -> None:
        self._stopped = True

    def unhealthy(self) -> dict[str, Any] | None:
        """Return why the process should be restarted, None while it should not."""
        return stuck(self._clock() - self._turned_at, self._stuck_secs)

    def unready(self) -> dict[str, Any] | None:
        """Return why transactions are not all decided as they come, None where they are."""
        with self._lock:
            replaying = sorted(self._assigned - self._live)
        if self._stopped:
            return {"reason": "the worker has left its group"}
        if not self._subscribed:
            return {"reason": "no partitions have been assigned yet"}
        if self._breaker_open:
            return {"reason": "the store does not answer"}
        if replaying:
            return {"reason": "partitions are catching up", "partitions": replaying}
        return None

    @property
    def about(self) -> dict[str, str]:
        """Return which model scores, once that is known."""
        return {"model": self._model} if self._model else {}


class HealthServer:
    """Serves from a thread of its own between entering and leaving the context.

    port 0 takes a free one; `port` says which. section: of the settings, where address and port stand. Raises
    StartupError where the address cannot be listened on.
    """

    def __init__(
        self, address: str, port: int, health: Checks, registry: CollectorRegistry, section: str = "metrics"
    ) -> None:
        self._server = _listen(address, port, _handler(health, registry), section)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where /metrics is."""
        host = str(self._server.server_address[0])
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (read, not listened on)
        return f"http://[{host}]:{self.port}/metrics" if ":" in host else f"http://{host}:{self.port}/metrics"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without looking up this host's name, which takes seconds where DNS does not answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 (the shape it overrides)
        """A client that hangs up is its own affair; anything else is one log line."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            log.error("a request failed", exc_info=error, extra={"event": "request_failed"})


class _ServerV6(_Server):
    address_family = socket.AF_INET6


def _listen(address: str, port: int, handler: type[BaseHTTPRequestHandler], section: str) -> _Server:
    try:
        return (_ServerV6 if ":" in address else _Server)((address, port), handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"Port {port} on {address} is taken by another process: set {section}.port to another one, "
                f"or to 0 for any that is free."
            ) from error
        if error.errno == errno.EACCES:
            raise StartupError(
                f"Listening on port {port} of {address} is not allowed: set {section}.port to one above 1023."
            ) from error
        raise StartupError(
            f"{address} is no address of this host ({error.strerror}): set {section}.address to 127.0.0.1, or to "
            f"0.0.0.0 for every interface."
        ) from error


def _handler(health: Checks, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECS
        server_version, sys_version = "fraudstream", ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, encode(registry))
            elif path == "/healthz":
                self._check(health.unhealthy(), {})
            elif path == "/readyz":
                self._check(health.unready(), health.about)
            else:
                self._json(HTTPStatus.NOT_FOUND, {"reason": "here are /metrics, /healthz and /readyz"})

        def _check(self, problem: dict[str, Any] | None, about: dict[str, str]) -> None:
            if problem is None:
                self._json(HTTPStatus.OK, {"status": "ok", **about})
            else:
                self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "unavailable", **problem, **about})

        def _json(self, status: HTTPStatus, document: dict[str, Any]) -> None:
            self._answer(status, "application/json", orjson.dumps(document))

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name it overrides)
            """Say nothing: a scrape every few seconds is no event."""

    return Handler
