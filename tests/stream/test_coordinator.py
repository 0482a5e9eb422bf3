"""A group's coordinator is asked again while it is on its way, and for nothing else."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.coordinator import patiently

ON_THE_WAY = [
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
]


class Broker:
    """Refuses with each code in turn, then answers; `paused` holds how long it was left alone after each."""

    def __init__(self, *codes):
        self._codes = list(codes)
        self.paused = []

    def __call__(self):
        if self._codes:
            raise KafkaException(KafkaError(self._codes.pop(0)))
        return "the offsets"


def test_a_coordinator_that_is_on_its_way_is_asked_until_it_answers():
    broker = Broker(*ON_THE_WAY)
    assert patiently(broker, 60, pause=broker.paused.append) == "the offsets"
    assert len(broker.paused) == len(ON_THE_WAY)
    assert min(broker.paused) > 0


@pytest.mark.parametrize(("code", "secs"), [(KafkaError.GROUP_AUTHORIZATION_FAILED, 60), (ON_THE_WAY[0], -1)])
def test_another_refusal_or_the_end_of_patience_is_raised_at_once(code, secs):
    broker = Broker(code)
    with pytest.raises(KafkaException):
        patiently(broker, secs, pause=broker.paused.append)
    assert broker.paused == []
