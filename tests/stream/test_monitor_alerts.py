"""Alerts while the broker is away: nobody is told of missing rights, and what was to be said is said once."""

import pytest

from kafka_server import free_port
from kafka_topics import Topics
from stream import monitor_alerts, monitor_readback
from stream.alert_record import Alert
from stream.errors import BrokerSilent
from stream.monitor_alerts import AlertLog
from stream.settings import load_settings

ALERT = Alert(
    id="1",
    state="raised",
    signal="feature_drift",
    subject="amount",
    segment="",
    model="a",
    statistic="psi",
    value=0.5,
    bound=0.2,
    since=1,
    at=2,
    runbook="feature_drift",
    text="The feature amount is distributed unlike in training.",
)


def hasten(monkeypatch):
    monkeypatch.setattr(monitor_alerts, "WAIT_SECS", 1.0)
    monkeypatch.setattr(monitor_alerts, "PAUSE_SECS", 0.01)
    monkeypatch.setattr(monitor_readback, "ANSWER_SECS", 1.0)


def log_at(bootstrap, topic="alerts", kind=AlertLog):
    return kind(load_settings(None, {}, {"kafka.bootstrap_servers": bootstrap, "topics.alerts": topic}))


def test_a_broker_that_does_not_answer_is_no_want_of_rights(monkeypatch):
    hasten(monkeypatch)
    with pytest.raises(BrokerSilent, match="look at the broker") as raised:
        log_at(f"127.0.0.1:{free_port()}").open()
    assert "grant" not in str(raised.value)


def test_an_alert_outlasts_a_broker_that_is_away_for_longer_than_one_wait(own_kafka, monkeypatch):
    topics = Topics(own_kafka.bootstrap)
    attempts = []

    class Log(AlertLog):
        def _new_producer(self):
            attempts.append(1)
            if len(attempts) == 4:
                own_kafka.resume()
            return super()._new_producer()

    log = log_at(own_kafka.bootstrap, topics.create("alerts", 1), Log)
    assert log.open() == []
    hasten(monkeypatch)
    own_kafka.suspend()
    assert log.publish([ALERT]) == [ALERT]
    assert len(attempts) >= 4
    assert log.publish([ALERT]) == []
    assert log.open() == [ALERT]
