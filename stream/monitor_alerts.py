"""What the monitor says to `alerts`: each cause once, whoever says it.

Every publication is a transaction under one name for the whole group. A monitor that starts ends what its predecessor
left open, and a predecessor that was only asleep cannot write any more; then the topic is read, so what was said is
known for certain. Readers of `alerts` should read what is committed.
"""

import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from stream.alert_record import Alert, decode_alert, encode_alert
from stream.clients import producer_config
from stream.errors import BrokerSilent, ProducerFenced, StartupError
from stream.monitor_readback import LogReader
from stream.settings import Settings

__all__ = ["AlertLog"]

WAIT_SECS: Final = 30.0
#: A broker that restarts is back within seconds; one that is gone for this long is a reason to start again.
GIVE_UP_SECS: Final = 120.0
PAUSE_SECS: Final = 0.5

_FORBIDDEN: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


class AlertLog:
    """Writes alerts, and knows which were written. Every method may wait for the broker."""

    def __init__(self, settings: Settings, bootstrap: str | None = None) -> None:
        self._settings, self._bootstrap = settings, bootstrap
        self._topic = settings.topics.alerts
        self._name = f"{settings.monitor.group}-alerts"
        self._producer: Any = None
        self._said: set[tuple[str, str]] = set()

    def open(self) -> list[Alert]:
        """Become the only writer, and return everything that was said.

        Raises StartupError, BrokerSilent, ProducerFenced.
        """
        self._producer = self._new_producer()
        with LogReader(self._settings, self._bootstrap) as reader:
            alerts = [
                alert for record in reader.read(self._topic, *reader.range(self._topic)) for alert in _read(record)
            ]
        self._said = {(alert.id, alert.state) for alert in alerts}
        return alerts

    def publish(self, alerts: Iterable[Alert]) -> list[Alert]:
        """Write those not said before, and return them once they are durable. Raises ProducerFenced."""
        new = [alert for alert in alerts if (alert.id, alert.state) not in self._said]
        if not new:
            return []
        deadline = time.monotonic() + GIVE_UP_SECS
        while not self._written(new):
            if time.monotonic() > deadline:
                raise StartupError(
                    f"Alerts could not be written to {self._topic} for {GIVE_UP_SECS:.0f} s: look at the broker; the "
                    f"next start says them."
                )
            time.sleep(PAUSE_SECS)
        self._said.update((alert.id, alert.state) for alert in new)
        return new

    def _written(self, alerts: list[Alert]) -> bool:
        failed: list[Any] = []
        try:
            self._producer.begin_transaction()
            for alert in alerts:
                self._producer.produce(
                    self._topic,
                    encode_alert(alert),
                    alert.signal.encode(),
                    partition=0,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
            self._producer.commit_transaction(WAIT_SECS)
        except KafkaException as error:
            _raise_fenced(error)
            # What became of the commit is not known: a new producer ends it, and the topic says what was written.
            return self._are_there(alerts)
        return not failed

    def _are_there(self, alerts: list[Alert]) -> bool:
        try:
            said = {(alert.id, alert.state) for alert in self.open()}
        except (StartupError, BrokerSilent):
            return False  # and the producer that is left will say so again
        return said.issuperset((alert.id, alert.state) for alert in alerts)

    def _new_producer(self) -> Any:
        config = producer_config(self._settings, transactional=True, bootstrap=self._bootstrap)
        producer = Producer({**config, "transactional.id": self._name, "linger.ms": 0})
        try:
            producer.init_transactions(WAIT_SECS)
        except KafkaException as error:
            _raise_fenced(error)
            if error.args[0].code() in _FORBIDDEN:
                raise StartupError(
                    f"The broker does not let this user write alerts ({error.args[0].str()}): grant it Write on the "
                    f"topic {self._topic} and on the transactional id {self._name}."
                ) from error
            raise BrokerSilent(
                f"The broker did not take the writer of alerts for {WAIT_SECS:.0f} s ({error.args[0].str()}): look at "
                f"the broker; the next start says what is to be said."
            ) from error
        return producer


def _read(record: Any) -> list[Alert]:
    """Return the alert in a record; what is none was not written by a monitor and says nothing."""
    try:
        return [decode_alert(record.value() or b"")]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _raise_fenced(error: KafkaException) -> None:
    if error.args[0].name() in ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"):
        raise ProducerFenced(
            "Another monitor of the same monitor.group took over, so this one ends: run one, or give each its group."
        ) from error
