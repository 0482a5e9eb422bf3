"""What a worker and a monitor have in common as processes: they say where they are seen, and why they end."""

import gc
import logging
from collections.abc import Callable

from confluent_kafka import KafkaException

from models.errors import ModelError
from state.errors import StateError
from stream.errors import FraudstreamError
from stream.health import HealthServer

__all__ = ["ends_well", "spare_libraries", "tell_served"]


def spare_libraries() -> None:
    """Keep the garbage collector from what lives as long as the process; call it once all of it is composed.

    Looking through some 300,000 objects of libraries would stop a worker's loop for a sixth of a second now and then.
    """
    gc.collect()
    gc.freeze()


def tell_served(server: HealthServer, log: logging.Logger) -> None:
    """Say where metrics and health are."""
    log.info("metrics and health are served", extra={"event": "serving", "url": server.url})


def ends_well(run: Callable[[], object], log: logging.Logger) -> bool:
    """Run to the end; return whether it was a good one: one of our errors, or the client's, is a log line instead."""
    try:
        run()
    except (FraudstreamError, StateError, ModelError) as error:
        log.critical("%s", error, extra={"event": "ended", "error": type(error).__name__})
        return False
    except KafkaException as error:
        log.critical("the Kafka client gave up: %s", error.args[0].str(), extra={"event": "ended"})
        return False
    return True
