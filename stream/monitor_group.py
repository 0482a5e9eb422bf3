"""Faust's consumer as the monitor needs it: one member of the group holds everything, and reads what is committed.

Three things differ from Faust's own:

- Who holds what. Faust deals single partitions out in turn, so a second monitor would get one of the two topics. Here
  whoever holds them keeps them, all of them; where nobody does, the oldest gets them; the others wait. One that slept
  while another took over still believes that it holds them; the later generation of the group tells who does.
- `labelled` is written in transactions. Faust at least-once also reads what was aborted.
- What is committed. Faust adds up acknowledged offsets and waits for ever for those of transaction markers; here the
  monitor says how far it is.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import aiokafka
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.transport.drivers import aiokafka as driver
from mode.threads import WorkerThread

__all__ = ["OneActive", "transport"]

VERSION: Final = 0
PACKED: Final = struct.Struct(">qq")  # the generation in which it got the partitions, 0: not; its start, epoch ms


class OneActive(AbstractPartitionAssignor):  # type: ignore[misc]
    """Gives all partitions to one member: to who holds them, else to the oldest.

    generation: returns the group's generation that this member is in; set once there is a consumer.
    """

    name = "fraudstream-one-active"

    def __init__(self, started_ms: int) -> None:
        self._started_ms = started_ms
        self._held_in = 0
        self.generation: Callable[[], int] = lambda: 1

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return what the group's leader is told of this member."""
        return ConsumerProtocolMemberMetadata(VERSION, list(topics), PACKED.pack(self._held_in, self._started_ms))

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """Return who gets what; called in the member that leads the group."""
        chosen = min(members, key=lambda member: (*_rank(members[member].user_data), member))
        topics = sorted(members[chosen].subscription)
        everything = [(topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in topics]
        return {
            member: ConsumerProtocolMemberAssignment(VERSION, everything if member == chosen else [], b"")
            for member in members
        }

    def on_assignment(self, assignment: Any) -> None:
        """Remember what this member got."""
        holds = any(partitions for _, partitions in assignment.assignment)
        self._held_in = max(1, self.generation()) if holds else 0


def _rank(packed: bytes) -> tuple[int, int]:
    held_in, started_ms = PACKED.unpack(packed)
    return -held_in, started_ms


def transport(app: Any, urls: list[Any], assignor: OneActive, position: Callable[[str], int | None]) -> Any:
    """Return a transport for the app. position: the next offset of a topic to be read, None where not known."""

    class Daemon(WorkerThread):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.daemon = True  # where the broker is away, the process need not wait for it

    class Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
        Worker = Daemon

        def _create_worker_consumer(self, transport: Any) -> Any:
            conf = self.app.conf
            self._assignor = assignor
            consumer = aiokafka.AIOKafkaConsumer(
                client_id=conf.broker_client_id,
                group_id=conf.id,
                bootstrap_servers=driver.server_list(transport.url, transport.default_port),
                partition_assignment_strategy=[assignor],
                enable_auto_commit=False,
                auto_offset_reset=conf.consumer_auto_offset_reset,
                max_poll_records=conf.broker_max_poll_records,
                max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
                max_partition_fetch_bytes=conf.consumer_max_fetch_size,
                fetch_max_wait_ms=100,
                request_timeout_ms=int(conf.broker_request_timeout * 1000),
                session_timeout_ms=int(conf.broker_session_timeout * 1000),
                rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
                heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
                isolation_level="read_committed",
                metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
                **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
            )
            assignor.generation = lambda: int(consumer._coordinator.generation)  # noqa: SLF001 (told nowhere else)
            return consumer

    class Consumer(driver.Consumer):  # type: ignore[misc]
        def _new_consumer_thread(self) -> Any:
            return Thread(self, loop=self.loop, beacon=self.beacon)

        def _new_offset(self, tp: Any) -> int | None:
            self._acked[tp].clear()
            self._acked_index[tp].clear()
            self._gap[tp].clear()
            return position(tp.topic)

    class Transport(driver.Transport):  # type: ignore[misc]
        pass

    Transport.Consumer = Consumer
    return Transport(urls, app)
