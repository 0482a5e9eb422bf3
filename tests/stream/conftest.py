"""One input and what a worker writes from it that nobody disturbs: what every disturbed run is compared with."""

from dataclasses import dataclass

import pytest

from kafka_server import KafkaServer
from kafka_topics import Row, Topics
from line_output import LineOutput
from line_thread import line_settings, threaded_crew
from traffic import START_MS, traffic

EVENTS = 3_000
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Calm:
    """The input topic, what is in it, and the output of an undisturbed run over it."""

    source: str
    rows: list[Row]
    output: LineOutput


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
