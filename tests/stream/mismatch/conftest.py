"""A crew over an input of 400 records, and what an undisturbed one writes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mismatch_cases import PARTITIONS, RECORDS, decide, traffic_of, undisturbed

from kafka_server import KafkaServer
from kafka_topics import Topics
from line_output import LineOutput
from line_thread import ThreadedCrew, line_settings, threaded_crew


@pytest.fixture
def line(topics: Topics, tmp_path: Path) -> Iterator[ThreadedCrew]:
    """A crew over an input of 400 records, nothing of it decided yet."""
    source = topics.create("transactions", PARTITIONS)
    topics.produce(source, traffic_of(RECORDS))
    settings = line_settings(topics.bootstrap) | {"store.kind": "sqlite", "store.path": str(tmp_path / "state.sqlite")}
    with threaded_crew(topics, source, settings) as workers:
        yield workers


@pytest.fixture
def scored(line: ThreadedCrew) -> ThreadedCrew:
    """The same, all decided and stored."""
    decide(line)
    return line


@pytest.fixture(scope="session")
def calm(kafka: KafkaServer) -> Callable[..., LineOutput]:
    """calm(**settings) is what one worker writes from these records and 100 more that nobody disturbs."""
    topics, known = Topics(kafka.bootstrap), {}

    def run(**settings: object) -> LineOutput:
        key = json.dumps(settings)
        if key not in known:
            source = topics.create("transactions", PARTITIONS)
            topics.produce(source, traffic_of(RECORDS + 100))
            known[key] = undisturbed(topics, source, **settings)
        return known[key]

    return run
