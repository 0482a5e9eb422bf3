"""The worker as a process: logs, metrics, health checks and signals around the composed line."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from confluent_kafka import KafkaException
from msgspec import Struct

from models.errors import ModelError
from state.errors import StateError
from stream.app import compose
from stream.errors import FraudstreamError
from stream.health import Health, HealthServer
from stream.logs import LogObserver, configure, id_key
from stream.metrics import PrometheusObserver
from stream.observer import Observers
from stream.secret import Secret
from stream.settings import Settings

__all__ = ["run_worker", "secrets_of", "stop_on_signals"]

log = logging.getLogger("fraudstream")


def run_worker(settings: Settings) -> bool:
    """Score until a signal asks to stop; return whether the worker left in good order.

    What prevents the start is raised (FraudstreamError, StateError, ModelError); what ends it later is a log line. The
    first SIGTERM or SIGINT finishes the batch, commits, checkpoints and leaves, within worker.shutdown_timeout_ms; a
    second one ends the process at once.
    """
    key = id_key(settings.log.id_key)
    configure(settings.log.level, key, secrets_of(settings))
    metrics, health = PrometheusObserver(), Health()
    with _server(settings, health, metrics):
        app = compose(settings, Observers(metrics, health, LogObserver(key)))
        stop_on_signals(app.stop, settings.worker.shutdown_timeout_ms / 1000)
        try:
            app.run()
        except (FraudstreamError, StateError, ModelError) as error:
            log.critical("%s", error, extra={"event": "ended", "error": type(error).__name__})
            return False
        except KafkaException as error:
            log.critical("the Kafka client gave up: %s", error.args[0].str(), extra={"event": "ended"})
            return False
    return True


def _server(settings: Settings, health: Health, metrics: PrometheusObserver) -> AbstractContextManager[object]:
    if not settings.metrics.enabled:
        return nullcontext()
    server = HealthServer(settings.metrics.address, settings.metrics.port, health, metrics.registry)
    log.info("metrics and health are served", extra={"event": "serving", "url": server.url})
    return server


def stop_on_signals(stop: Callable[[], object], deadline_secs: float) -> None:
    """Call stop() at the first SIGTERM or SIGINT; end the process at the second, or once the deadline has passed.

    A thread does what a signal asks: a handler runs amid anything, even a log line, whose locks it would need.
    """
    told, tell = os.pipe()

    def wake(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        os.write(tell, bytes([number]))

    def leave() -> None:
        (number,) = os.read(told, 1)
        log.info("asked to stop", extra={"event": "stopping", "signal": signal.Signals(number).name})
        stop()
        threading.Event().wait(deadline_secs)
        _give_up(deadline_secs)

    threading.Thread(target=leave, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, wake)


def _give_up(deadline_secs: float) -> None:
    """End a stop that a silent broker or store holds up: nothing uncommitted counts, and the next start recovers."""
    log.critical("not stopped within %.0f s, so ended at once", deadline_secs, extra={"event": "overdue"})
    logging.shutdown()
    os._exit(1)


def secrets_of(value: object) -> Iterator[Secret]:
    """Yield every secret among the settings."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from secrets_of(inner)
