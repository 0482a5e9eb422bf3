"""The Faust application: two agents that hand each record to the monitor, in order, one at a time.

As Faust's open bugs demand: at-least-once, memory store, no tables, no leader, no topics declared, concurrency 1, a
group of its own, no web server; and with the consumer of `stream.monitor_group`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import faust
from yarl import URL

from stream.monitor_group import OneActive, transport
from stream.monitor_security import faust_credentials
from stream.settings import Settings

__all__ = ["Handle", "make_app", "unread"]

#: handle(topic, offset, timestamp in epoch ms, value)
Handle = Callable[[str, int, int, bytes | None], Awaitable[None]]

#: How long a killed monitor's topics wait for the next one, unless kafka.session_timeout_ms says less.
SESSION_SECS: Final = 10.0
COMMIT_SECS: Final = 1.0
REQUEST_SECS: Final = 40.0
#: Records a topic may have waiting in memory: telemetry takes some ten kilobytes each.
BUFFER: Final = 1_024


def make_app(
    settings: Settings,
    datadir: str,
    started_ms: int,
    handle: Handle,
    position: Callable[[str], int | None],
    bootstrap: str | None = None,
) -> Any:
    """Return the application, not started. datadir: a directory that ends with the process; Faust wants one."""
    servers = (bootstrap or settings.kafka.bootstrap_servers).split(",")
    urls = [URL(f"kafka://{server.strip()}") for server in servers]
    session = min(SESSION_SECS, settings.kafka.session_timeout_ms / 1000)
    credentials = faust_credentials(settings)
    app = faust.App(
        settings.monitor.group,
        autodiscover=False,
        broker=urls,
        **({"broker_credentials": credentials} if credentials else {}),
        broker_client_id="fraudstream-monitor",
        broker_commit_interval=COMMIT_SECS,
        broker_heartbeat_interval=session / 4,
        broker_max_poll_interval=3_600.0,
        broker_rebalance_timeout=session,
        broker_request_timeout=REQUEST_SECS,
        broker_session_timeout=session,
        consumer_auto_offset_reset="earliest",
        datadir=datadir,
        key_serializer="raw",
        processing_guarantee="at_least_once",
        store="memory://",
        stream_buffer_maxsize=BUFFER,
        stream_processing_timeout=3_600.0,
        # A record waits while the monitor reads back; a rebalance that waited for it would end our membership.
        stream_wait_empty=False,
        broker_commit_livelock_soft_timeout=3_600.0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        value_serializer="raw",
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.transport = transport(app, urls, OneActive(started_ms), position)
    for topic in (settings.topics.telemetry, settings.topics.labelled):
        app.agent(app.topic(topic, value_type=bytes, key_type=bytes), name=topic, concurrency=1)(_agent(topic, handle))
    app.finalize()
    return app


def unread(app: Any, topic: str, following: int) -> int | None:
    """Return how many offsets lie between what was handled and the topic's end as last seen, None before the first.

    following: the offset after the last one handled. Behind it may lie markers of transactions, which are no records:
    what the consumer has passed while nothing waits is no lag.
    """
    thread = getattr(app.consumer, "_thread", None)
    consumer = getattr(thread, "_consumer", None)
    subscription = consumer and consumer._subscription.subscription  # noqa: SLF001 (aiokafka tells it nowhere else)
    assignment = subscription and subscription.assignment
    if not assignment:
        return None
    for place in assignment.tps:
        state = assignment.state_value(place)
        if place.topic != topic or state is None or state.highwater is None or not state.has_valid_position:
            continue
        waits = any(message.topic == topic for message in list(app.consumer.unacked))
        return max(0, int(state.highwater) - (following if waits else max(following, int(state.position))))
    return None


def _agent(topic: str, handle: Handle) -> Any:
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            await handle(topic, message.offset, round(message.timestamp * 1000), message.value)

    return agent
