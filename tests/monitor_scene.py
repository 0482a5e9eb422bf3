"""Topics of their own, and the monitors that watch them."""

import threading
from contextlib import contextmanager

from confluent_kafka import Consumer, TopicPartition

from kafka_topics import Topics
from monitor_process import MonitorProcess
from stream.alert_record import decode_alert

ROLES = ("telemetry", "labelled", "alerts", "labels", "decisions", "dead_letters")


class Scene:
    """Topics of their own, and the monitors that watch them. bootstrap None: there is no broker."""

    def __init__(self, bootstrap, registry, folder):
        self.topics = Topics(bootstrap) if bootstrap else None
        self.names = {role: self.topics.create(role, 1) if self.topics else role for role in ROLES}
        self.group = f"monitor-{self.names['alerts']}"
        self.folder = folder
        self.settings = {
            **{f"topics.{role}": name for role, name in self.names.items()},
            "kafka.bootstrap_servers": bootstrap,
            "kafka.session_timeout_ms": 3_000,
            "monitor.group": self.group,
            "monitor.port": 0,
            "monitor.grace": "20s",
            "monitor.read_back": "50m",
            "registry.directory": str(registry),
            "drift.min_events": 500,
            "drift.window": "2m",
            "drift.every": "30s",
            "drift.persistence": 3,
            "drift.rhythm": "5m",
            "drift.epoch": "10m",
            "drift.detector_every": "10s",
            "drift.adversarial_every": "0s",
            "quality.window": "40m",
            "quality.delay": "3m",
            "quality.every": "30s",
        }
        self.running = []

    def start(self, **changed):
        monitor = MonitorProcess(self.folder, self.settings | {key.replace("__", "."): v for key, v in changed.items()})
        self.running.append(monitor)
        return monitor

    def produce(self, told):
        for role in ("telemetry", "labelled"):
            self.topics.produce(self.names[role], [row for whose, row in told if whose == role])

    def committed(self):
        consumer = Consumer({"bootstrap.servers": self.topics.bootstrap, "group.id": self.group, "log_level": 2})
        places = [TopicPartition(self.names[role], 0) for role in ("telemetry", "labelled")]
        found = [place.offset for place in consumer.committed(places, timeout=10)]
        consumer.close()
        return found

    def settle(self, monitor, timeout_secs=120):
        """Wait until everything was read and committed, and shows; return what it shows."""
        ends = [self.topics.ends(self.names[role])[0] for role in ("telemetry", "labelled")]
        monitor.wait_until(lambda: self.committed() == ends, f"commits up to {ends}", timeout_secs)
        shown = [monitor.state()]

        def is_still():
            threading.Event().wait(1.2)  # it shows what it knows once a second
            shown.append(monitor.state())
            return shown[-1] == shown[-2]

        monitor.wait_until(is_still, "metrics that stay", timeout_secs)
        return shown[-1]

    def alerts(self):
        return [decode_alert(record.value) for record in self.topics.read(self.names["alerts"])]

    def close(self):
        for monitor in self.running:
            monitor.close()


@contextmanager
def scene_on(bootstrap, registry, folder):
    scene = Scene(bootstrap, registry, folder)
    try:
        yield scene
    finally:
        scene.close()
