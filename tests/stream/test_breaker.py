"""The circuit breaker around the store."""

import random

from clock import Clock
from stream.breaker import FIRST_SECS, LONGEST_SECS, Breaker
from stream.observer import Observer


def test_a_closed_breaker_lets_everybody_ask():
    breaker = Breaker(Clock(0.0), Observer())

    assert breaker.allows()
    assert not breaker.is_open


def test_after_a_failure_nobody_asks_until_the_pause_is_over():
    clock = Clock(0.0)
    breaker = Breaker(clock, Observer(), random.Random(1))
    breaker.failed("no answer")

    assert breaker.is_open
    assert not breaker.allows()
    clock.now += FIRST_SECS * 1.5
    assert breaker.allows()


def test_the_pause_grows_up_to_a_bound():
    clock = Clock(0.0)
    breaker = Breaker(clock, Observer(), random.Random(1))
    for _ in range(50):
        breaker.failed("no answer")

    clock.now += LONGEST_SECS * 1.5
    assert breaker.allows()


def test_one_success_closes_it_and_forgets_the_failures():
    clock = Clock(0.0)
    breaker = Breaker(clock, Observer(), random.Random(1))
    for _ in range(5):
        breaker.failed("no answer")
    breaker.succeeded()

    assert breaker.allows()
    breaker.failed("no answer")
    clock.now += FIRST_SECS * 1.5
    assert breaker.allows()


def test_many_workers_do_not_come_back_at_the_same_moment():
    pauses = set()
    for seed in range(20):
        clock = Clock(0.0)
        breaker = Breaker(clock, Observer(), random.Random(seed))
        breaker.failed("no answer")
        while not breaker.allows():
            clock.now += 0.001
        pauses.add(round(clock.now, 3))

    assert len(pauses) > 10
