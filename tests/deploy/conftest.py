"""The whole of docker-compose.yml as processes on a test broker and store, while the tests of this folder run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from composed import Service, places
from deployment import absent
from kafka_server import KafkaMissingError, KafkaServer
from models.bundle import open_bundle
from redis_server import RedisMissingError, RedisServer
from small_models import promote

PASSWORD = "0123456789abcdef"
WORKERS = ("worker-1", "worker-2")


@dataclass(frozen=True)
class Composed:
    """Everything that goes on running, by service; what ended well is no longer there."""

    services: dict[str, Service]
    bootstrap: str
    folder: Path
    begin: Callable[..., Service]

    def __getitem__(self, name: str) -> Service:
        return self.services[name]

    @property
    def targets(self) -> dict[str, str]:
        """host:port of each that serves metrics."""
        return {name: urlsplit(self[name].url).netloc for name in (*WORKERS, "monitor")}

    def restart(self, name: str) -> None:
        """Start a service that has ended again, on the port it had."""
        port = self.targets[name].partition(":")[2]
        self.services[name] = self.begin(name, {"FRAUDSTREAM_METRICS__PORT": port, "FRAUDSTREAM_MONITOR__PORT": port})


@pytest.fixture(scope="session")
def composed(tmp_path_factory, model_bundle) -> Iterator[Composed]:
    """Start the services in the order of their depends_on, and wait until the monitor computes figures of drift.

    The registry has a champion already, smaller than the one that first-model would train.
    """
    folder = tmp_path_factory.mktemp("composed")
    moved = places(folder)
    promote(folder / "registry", open_bundle(model_bundle))
    try:
        # Of its own: its topics have the names that a user's have.
        servers = KafkaServer(), RedisServer(["--maxmemory-policy", "noeviction"])
    except (KafkaMissingError, RedisMissingError) as missing:
        absent(str(missing))
    with ExitStack() as stack:
        kafka, redis = map(stack.enter_context, servers)
        with redis.client() as client:
            client.config_set("requirepass", PASSWORD)
        (folder / "secrets" / "store_url").write_text(redis.url.replace("redis://", f"redis://:{PASSWORD}@"))
        (folder / "secrets" / "log_id_key").write_text("key")
        here = {
            "FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
            "FRAUDSTREAM_METRICS__PORT": "0",
            "FRAUDSTREAM_MONITOR__PORT": "0",
            "FRAUDSTREAM_MODEL__FOLLOW": moved["/registry"],
            "FRAUDSTREAM_REGISTRY__DIRECTORY": moved["/registry"],
            "FRAUDSTREAM_REGISTRY__URI": f"sqlite:///{folder / 'mlflow.db'}",
            # Short, so that a test need not wait for minutes.
            "FRAUDSTREAM_DRIFT__WINDOW": "10s",
            "FRAUDSTREAM_DRIFT__EVERY": "2s",
            "FRAUDSTREAM_DRIFT__MIN_EVENTS": "100",
            "FRAUDSTREAM_DRIFT__PERSISTENCE": "3",
            "FRAUDSTREAM_MONITOR__GRACE": "1s",
        }

        def start(name: str, more: Mapping[str, str] | None = None) -> Service:
            service = Service(name, moved, {**here, **(more or {})}, folder / name)
            stack.callback(service.close)
            return service

        start("topics").done()
        start("first-model").done()
        start("simulated-history").done()
        running = {name: start(name) for name in (*WORKERS, "monitor")}
        for name in WORKERS:
            ready(running[name])
        running["simulated-traffic"] = start("simulated-traffic")
        running["monitor"].wait_until(
            lambda: "fraudstream_drift_psi{" in running["monitor"].metrics(), "figures of drift", 180
        )
        yield Composed(running, kafka.bootstrap, folder, start)


def ready(service: Service) -> None:
    """Wait until its /readyz says so."""
    service.wait_until(lambda: '"ok"' in service.get("/readyz"), "readiness")
