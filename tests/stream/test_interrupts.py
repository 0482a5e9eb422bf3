"""A Ctrl-C that C code lost is found again; whatever else C code does wrong stays what it is."""

import signal
import threading

import pytest

from stream.interrupts import keeping_interrupts


@pytest.fixture(autouse=True)
def own_handler():
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def lose_an_interrupt():
    """Do as the Kafka client does."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise SystemError("returned NULL without setting an exception") from None


def test_an_interrupt_that_was_lost_is_raised_again():
    with pytest.raises(KeyboardInterrupt), keeping_interrupts():
        lose_an_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_was_not_lost_is_itself():
    with pytest.raises(KeyboardInterrupt), keeping_interrupts():
        signal.raise_signal(signal.SIGINT)


def test_one_inside_another_is_found_by_the_inner():
    with keeping_interrupts(), pytest.raises(KeyboardInterrupt), keeping_interrupts():
        lose_an_interrupt()


def test_an_error_of_c_code_without_an_interrupt_stays_one():
    with pytest.raises(SystemError), keeping_interrupts():
        raise SystemError("bad argument to internal function")


def test_another_handler_is_left_alone():
    heard = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: heard.set())
    with keeping_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert heard.is_set()
