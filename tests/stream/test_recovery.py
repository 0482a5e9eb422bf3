"""Where a partition goes on: every order of S (log start), W (checkpoint), C (committed) and E (log end)."""

import itertools

import pytest

from stream.errors import RecoveryError
from stream.recovery import Facts, Plan, plan


def facts(start, watermark, committed, end, covered=None, *, stale=False):
    return Facts("transactions", 3, start, end, committed, watermark, covered, stale)


#        S     W     C     E     choice            replay  live  begin  commit
RIGHT = [
    (0, None, None, 90, "refuse", 0, 0, True, True),  # the very first start
    (7, None, None, 90, "refuse", 7, 7, True, True),  # on a log whose start was deleted long ago
    (0, 20, 50, 90, "refuse", 20, 50, False, False),  # the ordinary case: replay the gap
    (0, 50, 50, 90, "refuse", 50, 50, False, False),  # stopped gracefully: nothing to replay
    (20, 20, 50, 90, "refuse", 20, 50, False, False),  # the log begins exactly where the checkpoint ends
    (0, None, 50, 90, "refuse", 0, 50, True, False),  # an empty store is rebuilt from the log's start
    (5, None, 50, 90, "rebuild", 5, 50, True, False),
    (5, None, 50, 90, "accept_partial", 50, 50, True, False),
    (0, 60, 50, 90, "rebuild", 0, 50, True, False),  # W > C
    (30, 20, 50, 90, "rebuild", 30, 50, True, False),  # a gap in the log
    (30, 20, 50, 90, "accept_partial", 30, 50, False, False),
    (0, 20, 99, 90, "rebuild", 0, 0, True, True),  # C past the log's end
    (0, 20, 99, 90, "accept_partial", 90, 90, True, True),
    (60, 20, 50, 90, "rebuild", 60, 60, True, True),  # deleted before it was scored
    (60, 20, 50, 90, "accept_partial", 60, 60, False, True),
    (0, 20, None, 90, "rebuild", 0, 0, True, True),  # the committed offset expired
    (0, 20, None, 90, "accept_partial", 20, 20, False, True),
]


@pytest.mark.parametrize(("s", "w", "c", "e", "choice", "replay", "live", "begin", "commit"), RIGHT)
def test_a_partition_goes_on_where_state_and_log_meet(s, w, c, e, choice, replay, live, begin, commit):
    found = plan(facts(s, w, c, e), "earliest", choice)

    assert (found.replay_from, found.live_from, found.begin, found.commit) == (replay, live, begin, commit)


REFUSED = [
    (5, None, 50, 90, "not proven to cover"),
    (0, 60, 50, 90, "ahead of the committed offset"),
    (30, 20, 50, 90, "after the checkpoint"),
    (0, 20, 99, 90, "past the log's end"),
    (60, 20, 50, 90, "deleted before they were scored"),
    (0, 20, None, 90, "has expired"),
]


@pytest.mark.parametrize(("s", "w", "c", "e", "sentence"), REFUSED)
def test_what_does_not_fit_is_refused_with_its_name_and_the_choices(s, w, c, e, sentence):
    with pytest.raises(RecoveryError, match=sentence) as refused:
        plan(facts(s, w, c, e), "earliest", "refuse")

    assert "choose store.recovery = " in str(refused.value)
    assert "transactions[3]" in str(refused.value)


def test_state_ahead_of_the_offsets_is_never_accepted_as_it_is():
    with pytest.raises(RecoveryError, match="set back"):
        plan(facts(0, 60, 50, 90), "earliest", "accept_partial")


def test_the_first_start_at_the_latest_offset_begins_at_the_end():
    assert plan(facts(0, None, None, 90), "latest", "refuse") == Plan(
        90, 90, begin=True, commit=True, reason="first start at the latest offset"
    )


def test_an_offset_proven_to_cover_the_retention_spares_the_rest_of_the_log():
    found = plan(facts(5, None, 50, 90, covered=30), "earliest", "refuse")

    assert (found.replay_from, found.live_from, found.begin) == (30, 50, True)


def test_an_offset_deleted_meanwhile_proves_nothing():
    with pytest.raises(RecoveryError, match="not proven"):
        plan(facts(35, None, 50, 90, covered=30), "earliest", "refuse")


def test_only_an_expired_offset_lets_stored_users_be_ahead_of_the_log():
    assert plan(facts(0, 20, None, 90), "earliest", "accept_partial").decided_ahead
    for s, w, c, e, choice, *_ in RIGHT:
        if c is not None:
            assert not plan(facts(s, w, c, e), "earliest", choice).decided_ahead


#     S  covered  choice            replay  begin
STALE = [
    (5, 30, "refuse", 30, True),
    (0, None, "refuse", 0, True),
    (5, None, "rebuild", 5, True),
    (5, None, "accept_partial", 20, False),  # with the users that are still stored
    (30, None, "accept_partial", 30, False),
]


@pytest.mark.parametrize(("s", "covered", "choice", "replay", "begin"), STALE)
def test_a_stale_checkpoint_is_rebuilt_where_the_log_is_proven_to_cover_it_and_otherwise_as_chosen(
    s, covered, choice, replay, begin
):
    found = plan(facts(s, 20, 50, 90, covered, stale=True), "earliest", choice)

    assert (found.replay_from, found.live_from, found.begin) == (replay, 50, begin)


def test_a_stale_checkpoint_over_a_log_that_proves_nothing_is_refused_by_its_own_name():
    with pytest.raises(RecoveryError, match=r"was not renewed for so long.*choose store.recovery = rebuild"):
        plan(facts(5, 20, 50, 90, stale=True), "earliest", "refuse")


def test_every_order_of_offsets_either_replays_inside_the_log_or_is_refused():
    choices, starts = ("refuse", "rebuild", "accept_partial"), ("earliest", "latest")
    for s, w, c, e in itertools.product((0, 2, 4), (None, 0, 1, 3, 5, 7), (None, 0, 1, 3, 5, 7), (4, 6)):
        for choice, start, stale in itertools.product(choices, starts, (False, w is not None)):
            try:
                found = plan(facts(s, w, c, e, stale=stale), start, choice)
            except RecoveryError:
                continue
            assert s <= found.replay_from <= found.live_from <= e
            if not found.commit:
                assert found.live_from == c  # C always comes from the broker
