"""What several tests of the stream share.

An input and what a worker writes from it that nobody disturbs, which every disturbed run is compared with; and topics
of their own with monitors that watch them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clock import Clock
from decided import write_versions
from kafka_server import KafkaServer
from kafka_topics import Row, Topics
from line_output import LineOutput
from line_thread import line_settings, threaded_crew
from models.bundle import Bundle
from monitor_scene import Scene, scene_on
from small_models import FOREIGN_FEATURES, other_features, promote, small_model
from state.features import parse_feature_set
from swap_stand import Stand
from traffic import START_MS, traffic

EVENTS = 3_000
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Calm:
    """The input topic, what is in it, and the output of an undisturbed run over it."""

    source: str
    rows: list[Row]
    output: LineOutput


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is set."""
    return Clock()


@pytest.fixture(scope="session")
def calm(kafka: KafkaServer) -> Calm:
    """An input of 3,000 records in 4 partitions, decided once without disturbance."""
    topics = Topics(kafka.bootstrap)
    source = topics.create("transactions")
    rows = [Row(key, value, timestamp_ms=START_MS + DAY_MS) for key, value in traffic(EVENTS)]
    topics.produce(source, rows)
    with threaded_crew(topics, source, line_settings(topics.bootstrap) | {"worker.max_batch": 1024}) as alone:
        alone.here("calm")
        output = alone.finish()
    assert len(output.decisions) + len(output.dead_letters) == EVENTS
    return Calm(source, rows, output)


@pytest.fixture(scope="session")
def watched_bundle(tmp_path_factory) -> Bundle:
    """A bundle that made-up telemetry names."""
    return small_model(tmp_path_factory.mktemp("watched") / "bundle", seed=1, rounds=2, rows=800)


@pytest.fixture(scope="session")
def watched_registry(tmp_path_factory, watched_bundle: Bundle) -> Path:
    """A registry whose champion it is."""
    registry: Path = tmp_path_factory.mktemp("watched-registry")
    promote(registry, watched_bundle)
    return registry


@pytest.fixture(scope="session")
def four_versions(tmp_path_factory) -> Path:
    """A directory with the bundles v1 to v4."""
    directory: Path = tmp_path_factory.mktemp("four-versions")
    write_versions(directory, ("v1", "v2", "v3", "v4"))
    return directory


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> dict[str, Bundle]:
    """Three versions over the default features, one over others, one that needs a field the state does not keep."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {name: small_model(folder / name, seed) for seed, name in enumerate("abc")}
    found["other"] = small_model(folder / "other", 7, other_features())
    found["foreign"] = small_model(folder / "foreign", 8, parse_feature_set(FOREIGN_FEATURES))
    return found


@pytest.fixture
def stand(tmp_path: Path, bundles: dict[str, Bundle]) -> Stand:
    """A worker's stand where version a was promoted and scores."""
    found = Stand(tmp_path, bundles)
    found.promote("a")
    found.begin()
    found.look()
    return found


@pytest.fixture
def scene(kafka: KafkaServer, watched_registry: Path, tmp_path: Path) -> Iterator[Scene]:
    """Topics of their own on the session's broker, and the monitors that watch them."""
    with scene_on(kafka.bootstrap, watched_registry, tmp_path) as scene:
        yield scene
