"""However decisions and labels are interleaved, the same pairs come out, and the same index is left."""

import json
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labels_and_decisions import DAY_MS, RETENTION_MS, Sent, decision, label, oracle
from stream.join import Join, by_place, horizon_ms
from stream.label_index import LabelIndex
from stream.labelled_record import decode_labelled

NOW_MS = 1_700_000_000_000


@pytest.fixture
def make(tmp_path):
    """Open a new index; all are closed at the end."""
    opened = []

    def index(name="labels.sqlite", retention_ms=RETENTION_MS):
        opened.append(LabelIndex(tmp_path / f"{len(opened)}-{name}", {"of": "a test"}, retention_ms))
        return opened[-1]

    yield index
    for one in opened:
        one.close()


def run(index, decisions, labels, batches, sample_rate=1.0):
    """Apply the records in batches of (so many decisions, so many labels); return what was written and counted."""
    join, clocks, written, outcomes = Join(index, sample_rate), {}, [], Counter()
    at = [0, 0]
    for take in [*batches, (len(decisions), len(labels))]:
        some = [rows[at[i] : at[i] + take[i]] for i, rows in enumerate((decisions, labels))]
        at = [at[0] + take[0], at[1] + take[1]]
        joined = join.apply(*map(by_place, some), clocks)
        behind = [(topic, 0) for i, topic in enumerate(("decisions", "labels")) if at[i] < len((decisions, labels)[i])]
        join.expire(horizon_ms(clocks, "decisions", behind), joined)
        written += joined.written
        outcomes += joined.outcomes
        assert joined.frauds == sum(decode_labelled(value).is_fraud for _, value in joined.written)
    return sorted(value for _, value in written), outcomes


ids = st.sampled_from(["t-1", "t-2", "42", 42, 7])
users = st.sampled_from(["ann", "bob", 42])
when = st.integers(0, RETENTION_MS)


@st.composite
def logs(draw):
    """A log of decisions and one of labels; times within the retention of one another or just past it."""
    decisions = [
        decision(
            *pair, score=draw(st.sampled_from([0.0, 0.41, 1.0])), event_time=NOW_MS + draw(when), offset=n, flags=f
        )
        for n, (pair, f) in enumerate(
            draw(st.lists(st.tuples(st.tuples(users, ids), st.sampled_from([[], ["duplicate"], ["late"]]))))
        )
    ]
    labels = [
        label(*pair, draw(st.booleans()), NOW_MS + draw(st.integers(0, 2 * RETENTION_MS)))
        for pair in draw(st.lists(st.tuples(users, ids)))
    ]
    return decisions, labels


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(logs(), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12), st.sampled_from([1.0, 0.5]))
def test_what_is_written_does_not_depend_on_the_interleaving(make, made, batches, rate):
    decisions, labels = (
        [Sent(topic, 0, n, value) for n, value in enumerate(rows)]
        for topic, rows in zip(("decisions", "labels"), made, strict=True)
    )
    index, another = make(), make()
    written, _ = run(index, decisions, labels, batches, rate)
    assert written == oracle(made[0], made[1], rate)
    assert run(another, decisions, labels, [(0, len(labels)), (len(decisions), 0)], rate)[0] == written
    assert another.content() == index.content()


def test_each_label_has_one_outcome(make):
    decisions = [Sent("decisions", 0, 0, decision("ann", "t-1", event_time=NOW_MS))]
    told = [(True, 1), (True, 2), (False, 3), (False, 4), (True, RETENTION_MS + 1)]
    labels = [Sent("labels", 0, n, label("ann", "t-1", fraud, NOW_MS + after)) for n, (fraud, after) in enumerate(told)]
    labels.append(Sent("labels", 0, 9, label("bob", "t-1", True, NOW_MS)))
    written, outcomes = run(make(), decisions, labels, [])
    assert outcomes == {"joined": 1, "repeated": 2, "contradicting": 1, "expired": 1, "unmatched": 1}
    first, second = sorted(map(decode_labelled, written), key=lambda one: one.label_time)
    assert (first.is_fraud, first.former, first.delay_ms) == (True, None, 1)
    assert (second.is_fraud, second.former, second.delay_ms) == (False, True, 3)


def test_an_integer_id_equals_its_text(make):
    decisions = [Sent("decisions", 0, 0, decision("7", "42", event_time=NOW_MS))]
    written, _ = run(make(), decisions, [Sent("labels", 0, 0, label(7, 42, True, NOW_MS))], [])
    assert [(one.user_id, one.transaction_id) for one in map(decode_labelled, written)] == [("7", "42")]


def test_ids_that_only_look_alike_together_are_kept_apart(make):
    decisions = [Sent("decisions", 0, 0, decision("ab", "c", event_time=NOW_MS))]
    _, outcomes = run(make(), decisions, [Sent("labels", 0, 0, label("a", "bc", True, NOW_MS))], [])
    assert outcomes == {"unmatched": 1}


def test_a_score_comes_back_as_the_decision_has_it(make):
    decisions = [Sent("decisions", 0, 0, decision("a", "t", score=0.41, event_time=NOW_MS))]
    written, _ = run(make(), decisions, [Sent("labels", 0, 0, label("a", "t", True, NOW_MS))], [])
    assert json.loads(written[0])["score"] == 0.41


def test_a_sampled_index_keeps_its_share_of_approvals_and_all_others(make):
    rng = random.Random(5)
    kinds = [rng.choice(["approve", "approve", "approve", "review", "decline"]) for _ in range(4_000)]
    decisions = [
        Sent("decisions", 0, n, decision(f"u-{n}", "t", event_time=NOW_MS, offset=n, outcome=kind))
        for n, kind in enumerate(kinds)
    ]
    labels = [Sent("labels", 0, n, label(f"u-{n}", "t", False, NOW_MS)) for n in range(4_000)]
    written, outcomes = run(make(), decisions, labels, [], 0.25)
    found = [decode_labelled(value) for value in written]
    weights = {kind: {one.weight for one in found if one.decision == kind} for kind in ("approve", "review", "decline")}
    assert weights == {"approve": {4.0}, "review": {1.0}, "decline": {1.0}}
    counts = Counter(one.decision for one in found)
    assert (counts["review"], counts["decline"]) == (kinds.count("review"), kinds.count("decline"))
    assert 0.22 < counts["approve"] / kinds.count("approve") < 0.28
    assert outcomes["unmatched"] == 4_000 - len(found)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty_value"),
        (None, "empty_value"),
        (b"{", "invalid_json"),
        (b"[1]", "wrong_type"),
        (b"\xff", "invalid_json"),
        (b'{"transaction_id":"\xff","user_id":"u","is_fraud":true,"label_time":1}', "invalid_utf8"),
        (b'{"transaction_id":"t","user_id":"u","is_fraud":1,"label_time":1}', "wrong_type"),
        (b'{"transaction_id":"t","user_id":"u","is_fraud":true}', "missing_field"),
        (b'{"transaction_id":"","user_id":"u","is_fraud":true,"label_time":1}', "missing_field"),
        (b'{"transaction_id":"t","user_id":"u","is_fraud":true,"label_time":-1}', "out_of_range"),
        (b'{"transaction_id":"t","user_id":"u","is_fraud":true,"label_time":1e99}', "wrong_type"),
        (b'{"transaction_id":"%s","user_id":"u","is_fraud":true,"label_time":1}' % (b"t" * 5_000), "too_long"),
        (b'{"x":' + b"[" * 100_000, "too_deep"),
    ],
)
def test_what_is_no_label_is_set_aside_with_its_reason(make, value, reason):
    joined = Join(make()).apply(*(by_place([Sent(topic, 0, 0, value)]) for topic in ("decisions", "labels")), {})
    assert [(letter.error, letter.message.value()) for letter in joined.letters] == [(reason, value)]
    assert joined.refused_decisions.total() == 1
    assert joined.written == []


def test_decisions_leave_by_the_streams_own_time_and_waiting_labels_with_them(make):
    index = make()
    decisions = [Sent("decisions", 0, n, decision("u", f"t-{n}", event_time=NOW_MS + n * DAY_MS)) for n in range(400)]
    labels = [Sent("labels", 0, 0, label("u", "never", True, NOW_MS))]
    _, outcomes = run(index, decisions, labels, [(0, 1), *[(10, 0)] * 40])
    assert outcomes == {"unmatched": 1, "expired": 1}
    assert index.waiting == 0
    kept_days = (index.kept_ms + index.span_ms) // DAY_MS
    assert index.kept_ms // DAY_MS <= index.decisions <= kept_days + 1


def test_a_decision_that_comes_when_its_span_has_gone_does_not_stay(make):
    index = make()
    times = [NOW_MS, NOW_MS + 400 * DAY_MS, NOW_MS]
    decisions = [Sent("decisions", 0, n, decision("u", f"t-{n}", event_time=at)) for n, at in enumerate(times)]
    run(index, decisions, [], [(1, 0), (1, 0), (1, 0)])
    index.store({})
    assert (index.decisions, len(index.content())) == (1, 1)
    tables = index._connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'decisions_%'").fetchall()
    assert len(tables) == 1


def test_an_event_dated_ahead_lets_nothing_expire(make):
    index = make()
    far = decision("u", "t-far", event_time=NOW_MS + 5_000 * DAY_MS, scored_at=NOW_MS)
    decisions = [Sent("decisions", 0, 0, decision("u", "t", event_time=NOW_MS)), Sent("decisions", 0, 1, far)]
    _, outcomes = run(index, decisions, [Sent("labels", 0, 0, label("u", "t", True, NOW_MS))], [(2, 0)])
    assert outcomes == {"joined": 1}


def test_a_partition_with_a_backlog_holds_expiry_back():
    clocks = {("decisions", 0): 900, ("decisions", 1): 500, ("labels", 0): 300}
    assert horizon_ms(clocks, "decisions", []) == 900
    assert horizon_ms(clocks, "decisions", [("decisions", 1)]) == 500
    assert horizon_ms(clocks, "decisions", [("labels", 0)]) == 300
    assert horizon_ms(clocks, "decisions", [("labels", 1)]) == -1
    assert horizon_ms({}, "decisions", []) == -1
