"""The worker as a process: logs, metrics, health checks and signals around the composed line."""

import logging
from contextlib import AbstractContextManager, nullcontext

from stream.app import compose
from stream.health import Health, HealthServer
from stream.logs import LogObserver, configure, id_key
from stream.metrics import PrometheusObserver
from stream.observer import Observers
from stream.process import ends_well, spare_libraries, tell_served
from stream.secret import secrets_of
from stream.settings import Settings
from stream.signals import stop_on_signals

__all__ = ["run_worker"]

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
        spare_libraries()
        return ends_well(app.run, log)


def _server(settings: Settings, health: Health, metrics: PrometheusObserver) -> AbstractContextManager[object]:
    if not settings.metrics.enabled:
        return nullcontext()
    server = HealthServer(settings.metrics.address, settings.metrics.port, health, metrics.registry)
    tell_served(server, log)
    return server
