"""An alert is raised once and cleared once, when enough comparisons in a row say so."""

import pytest

from stream.watch_alerts import AlertBook, Cause, Finding, open_alerts

CAUSE = Cause("feature_drift", "amount", "", "m1")
STATES = {"x": "wrong", "o": "well", "~": "between", ".": "unknown"}


def judged(states, persistence=3, **book):
    """Return the numbers of the comparisons at which something was said, with what."""
    alerts = AlertBook(persistence, **book)
    said = []
    for number, state in enumerate(states):
        finding = Finding(STATES[state], "psi", 0.3, 0.2, "so.")
        said += [(number, alert.state, alert.since) for alert in alerts.judge(CAUSE, finding, number)]
    return said


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("xxx", [(2, "raised", 0)]),
        ("xx~xx.xxoxx", []),
        ("oxxxxxxx", [(3, "raised", 1)]),
        ("xxxooo", [(2, "raised", 0), (5, "cleared", 0)]),
        ("xxxoo~oo.ooxoo", [(2, "raised", 0)]),
        ("xxx......~~~~~~", [(2, "raised", 0)]),
        ("xxxoooxxx", [(2, "raised", 0), (5, "cleared", 0), (8, "raised", 6)]),
        ("ooooo", []),
    ],
)
def test_rows_of_comparisons_raise_and_clear(states, expected):
    assert judged(states) == expected


def test_nothing_is_said_before_it_judges_but_rows_are_counted():
    assert judged("xxxxx", judge_from_ms=4) == [(4, "raised", 2)]
    assert judged("xxx", judge_from_ms=4) == []


def test_an_alert_open_already_is_not_raised_again_and_is_cleared_under_its_own_id():
    book = AlertBook(1)
    (raised,) = book.judge(CAUSE, Finding("wrong", "psi", 0.3, 0.2, "so."), 5)
    again = AlertBook(2, [raised], judge_from_ms=7)
    assert again.judge(CAUSE, Finding("wrong", "psi", 0.3, 0.2, "so."), 8) == []
    assert again.judge(CAUSE, Finding("well", "psi", 0.1, 0.2, "so."), 9) == []
    (cleared,) = again.judge(CAUSE, Finding("well", "psi", 0.1, 0.2, "so."), 10)
    assert (cleared.state, cleared.id, cleared.since, cleared.at) == ("cleared", raised.id, 5, 10)
    assert again.open == {}


def test_what_was_open_at_a_time_is_read_from_the_log_of_alerts():
    book = AlertBook(1)
    wrong, well = Finding("wrong", "psi", 0.3, 0.2, "so."), Finding("well", "psi", 0.1, 0.2, "so.")
    log = [*book.judge(CAUSE, wrong, 1), *book.judge(CAUSE, well, 5), *book.judge(CAUSE, wrong, 8)]
    assert [alert.at for alert in open_alerts(log, 5)] == [1]
    assert open_alerts(log, 6) == []
    assert [alert.at for alert in open_alerts([*log, log[0], log[2]], 9)] == [8]


def test_causes_that_vanish_are_forgotten():
    book = AlertBook(3)
    for number in range(50):
        cause = Cause("decision_mix_drift", "", f"segment {number}", "")
        book.judge(cause, Finding("wrong", "psi", 1.0, 0.2, "so."), number)
        book.prune(number - 10)
    assert len(book._wrong) <= 11
