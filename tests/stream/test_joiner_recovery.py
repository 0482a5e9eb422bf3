"""Where the joiner goes on, for every order of log start, watermark, committed offset and log end."""

import pytest

from stream.errors import RecoveryError
from stream.joiner_recovery import Facts, Plan, plan


def facts(start, end, committed, watermark, partition=0):
    return Facts("labels", partition, start, end, committed, watermark)


def one(fact, choice="refuse"):
    begin, plans = plan([fact], choice)
    found = plans["labels", fact.partition]
    return begin, found.replay_from, found.live_from


@pytest.mark.parametrize(
    ("fact", "replayed"),
    [
        (facts(0, 9, 7, 5), (5, 7)),
        (facts(0, 9, 7, 7), (7, 7)),
        (facts(5, 9, 7, 5), (5, 7)),
        (facts(3, 9, None, None), (3, 3)),  # nobody read it yet
        (facts(3, 9, 7, None), (3, 7)),  # the index is gone
        (facts(0, 0, None, 0), (0, 0)),  # expired, but it can have been nothing else
        (facts(3, 9, None, 9), (9, 9)),
    ],
)
def test_what_fits_goes_on_by_itself_whatever_the_choice(fact, replayed):
    for choice in ("refuse", "rebuild", "accept_partial"):
        assert one(fact, choice) == (False, *replayed)


@pytest.mark.parametrize(
    ("fact", "sentence", "rebuilt", "partial"),
    [
        (facts(2, 9, None, 5), "has expired while its index stands at 5", (2, 2), (5, 5)),
        (facts(2, 9, 12, 5), "lies past the log's end 9", (2, 2), (9, 9)),
        (facts(6, 9, 4, 4), "Records 4 to 5 of labels[0] were deleted", (6, 6), (6, 6)),
        (facts(2, 9, 5, 7), "ahead of the committed offset 5", (2, 5), None),
        (facts(4, 9, 7, 3), "begins at 4, after the label index at 3", (4, 7), (4, 7)),
    ],
)
def test_what_does_not_fit_is_a_sentence_with_its_choices(fact, sentence, rebuilt, partial):
    with pytest.raises(RecoveryError) as refused:
        plan([fact], "refuse")
    assert sentence in str(refused.value)
    assert "rebuild" in str(refused.value)
    assert one(fact, "rebuild") == (True, *rebuilt)
    if partial is None:
        assert "accept_partial" not in str(refused.value)
        with pytest.raises(RecoveryError):
            plan([fact], "accept_partial")
    else:
        assert "labels.recovery = accept_partial" in str(refused.value)
        assert one(fact, "accept_partial") == (False, *partial)


def test_a_rebuild_forgets_what_is_known_of_every_partition():
    begin, plans = plan([facts(0, 9, 5, 7), facts(0, 9, 6, 6, partition=1)], "rebuild")
    assert begin
    assert [(one.replay_from, one.live_from) for one in plans.values()] == [(0, 5), (0, 6)]
    assert plans["labels", 1] == Plan(0, 6, "read again from the log")


def test_a_partition_whose_offset_expired_beside_others_is_no_first_start_once_the_index_is_gone():
    known, expired, empty = facts(0, 9, 5, None), facts(2, 9, None, None, 1), facts(4, 4, None, None, 2)
    with pytest.raises(RecoveryError, match=r"offset of labels\[1\] has expired, those of other partitions have not"):
        plan([known, expired, empty], "refuse")
    begin, plans = plan([known, expired, empty], "accept_partial")
    assert not begin
    assert [(one.replay_from, one.live_from) for one in plans.values()] == [(0, 5), (2, 9), (4, 4)]
    begin, plans = plan([known, expired, empty], "rebuild")
    assert begin
    assert [(one.replay_from, one.live_from) for one in plans.values()] == [(0, 5), (2, 2), (4, 4)]


def test_a_partition_that_was_added_is_a_first_start_beside_others_that_the_index_knows():
    _, plans = plan([facts(0, 9, 5, 5), facts(0, 9, None, None, partition=1)], "refuse")
    assert plans["labels", 1] == Plan(0, 0, "first start")
