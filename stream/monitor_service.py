"""The monitor as a process: logs, metrics, health checks and signals around it."""

import logging
import time

from stream.deadletter import ERRORS
from stream.health import HealthServer
from stream.logs import configure, id_key
from stream.monitor import Monitor
from stream.monitor_health import MonitorHealth, MonitorLog, Repeats
from stream.monitor_metrics import MonitorMetrics
from stream.monitor_observer import MonitorObservers
from stream.monitor_security import faust_credentials, unreached
from stream.monitor_state import NOT_DECODED, UNKNOWN_DECISION
from stream.process import ends_well, tell_served
from stream.secret import secrets_of
from stream.settings import Settings
from stream.signals import stop_on_signals

__all__ = ["run_monitor"]

log = logging.getLogger("fraudstream.monitor")


def countable(settings: Settings) -> list[tuple[str, str]]:
    """Return (topic, reason) of every kind of record that can be set aside."""
    topics = settings.topics
    return [
        (topics.telemetry, NOT_DECODED),
        (topics.labelled, NOT_DECODED),
        (topics.labelled, UNKNOWN_DECISION),
        *((topic, reason) for topic in (topics.labels, topics.decisions) for reason in ERRORS),
    ]


def run_monitor(settings: Settings) -> bool:
    """Watch until a signal asks to stop; return whether the monitor left in good order.

    What is wrong with the settings or the port is raised (FraudstreamError); everything else that ends it is a log
    line. The first SIGTERM or SIGINT commits and leaves, within worker.shutdown_timeout_ms; a second one ends the
    process at once.
    """
    faust_credentials(settings)
    metrics, health = MonitorMetrics(aside=countable(settings)), MonitorHealth(time.monotonic)
    monitor = settings.monitor
    server = HealthServer(monitor.address, monitor.port, health, metrics.registry, section="monitor")
    configure(settings.log.level, id_key(settings.log.id_key), secrets_of(settings))
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repeats())
    tell_served(server, log)
    if names := unreached(settings):
        log.warning(
            "properties that tune the Kafka client do not reach Faust, which reads telemetry and labelled",
            extra={"event": "unreached", "properties": names},
        )
    with server:
        running = Monitor(settings, MonitorObservers(metrics, health, MonitorLog()))
        stop_on_signals(running.stop, settings.worker.shutdown_timeout_ms / 1000)
        return ends_well(running.run, log)
