"""Offsets and log that do not fit the checkpoint: one sentence with the choices; each choice works."""

import re

import pytest
from mismatch_cases import (
    PARTITIONS,
    RECORDS,
    about,
    chosen,
    crash,
    delete_records,
    expire_offsets,
    more,
    offsets,
    refusal,
    set_offsets,
    settle,
    since,
)

import stream.app
from kafka_topics import wait_until
from line_thread import ThreadedCrew
from stored import stored

pytestmark = pytest.mark.kafka


@pytest.fixture
def gap(line: ThreadedCrew) -> ThreadedCrew:
    """A checkpoint at the beginning, C beyond it, and a log that begins in between."""
    crash(line, "committed", 5, **{"store.checkpoint_interval_ms": 3_600_000, "worker.max_batch": 50})
    wait_until(lambda: max(offsets(line).values()) >= 150, "the commits show")
    delete_records(line, {p: c // 2 for p, c in offsets(line).items() if c})
    return line


def test_a_log_that_begins_after_the_checkpoint_is_refused(gap: ThreadedCrew):
    told = refusal(gap)

    assert re.search(r"The log of \S+\[\d\] begins at \d+, after the checkpoint at 0", told)
    assert all(choice in told for choice in ("rebuild", "accept_partial", "restore the log"))


@pytest.mark.parametrize("choice", ["rebuild", "accept_partial"])
def test_a_gap_in_the_log_is_passed_as_chosen(gap: ThreadedCrew, choice: str):
    new = more(gap)
    chosen(gap, choice)

    since(gap, new)


def test_records_deleted_before_they_were_scored_are_refused_and_passed_as_chosen(scored: ThreadedCrew):
    more(scored, 300)
    start = {p: c + 20 for p, c in offsets(scored).items()}
    delete_records(scored, start)
    told = refusal(scored)
    assert "were deleted before they were scored" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial"))
    chosen(scored, "accept_partial")

    output = scored.finish()
    assert output.repeated == []
    assert len(output.decisions) == RECORDS + 300 - 40
    assert stored(scored.topics, scored.settings).offsets == offsets(scored)


def test_offsets_set_back_behind_the_checkpoint_are_refused_and_rebuilt(scored: ThreadedCrew, calm):
    set_offsets(scored, {p: c - 30 for p, c in offsets(scored).items()})
    told = refusal(scored)
    assert "ahead of the committed offset" in told
    assert all(choice in told for choice in ("rebuild", "another kafka.group", "restore the offsets"))
    chosen(scored, "rebuild")

    again = scored.finish()
    assert len([place for what, place in again.repeated if what == "decision"]) == 30 * PARTITIONS
    again.repeated.clear()
    places = set(again.decisions)
    assert len(places) == RECORDS
    assert about(again, places).differences(about(calm(), places)) == []


@pytest.mark.parametrize(("choice", "again"), [("rebuild", RECORDS), ("accept_partial", 0)])
def test_an_offset_past_the_logs_end_is_refused_and_passed_as_chosen(scored: ThreadedCrew, choice: str, again: int):
    set_offsets(scored, {p: c + 1_000 for p, c in offsets(scored).items()})
    told = refusal(scored)
    assert "lies past the log's end" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial", "restore the topic"))
    chosen(scored, choice)
    new = more(scored)
    settle(scored, scored.workers["w"])

    output = scored.finish()
    assert len([place for what, place in output.repeated if what == "decision"]) == again
    assert new <= output.decisions.keys()


@pytest.mark.parametrize(("choice", "again"), [("rebuild", RECORDS), ("accept_partial", 0)])
def test_an_expired_offset_beside_a_checkpoint_is_refused_and_passed_as_chosen(
    scored: ThreadedCrew, calm, choice: str, again: int
):
    expire_offsets(scored)
    told = refusal(scored)
    assert "has expired while a checkpoint at" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial"))
    new = more(scored)
    chosen(scored, choice)

    output = scored.finish()
    assert len([place for what, place in output.repeated if what == "decision"]) == again
    output.repeated.clear()
    assert about(output, new).differences(about(calm(), new)) == []


def test_an_expired_offset_whose_stored_users_are_decided_ahead_decides_nothing_twice(line: ThreadedCrew):
    """Users are stored, W is not yet: the checkpoint is behind what was decided of them."""
    killed = line.start("dynamic-1", "users_written:2")
    wait_until(lambda: killed.killed, "it has killed itself")
    kept = stored(line.topics, line.settings)
    before = len(line.topics.read(line.line.decisions))
    expire_offsets(line)
    chosen(line, "accept_partial")

    output = line.finish()
    assert before > 0
    assert len(output.decisions) == RECORDS
    ahead = {place for what, place in output.repeated if what == "decision"}
    assert len(ahead) < before
    held = {
        (partition, offset)
        for partition, offset in output.decisions
        for user in [output.decisions[partition, offset]["user_id"].encode()]
        if (partition, user) in kept.records and kept.user((partition, user)).applied_offset >= offset
    }
    assert held
    assert not held & ahead


def test_an_offset_that_expired_long_ago_is_no_first_start(scored: ThreadedCrew, monkeypatch: pytest.MonkeyPatch):
    """By then the store may have dropped users, so W vouches for nobody; it still says that somebody was here."""
    expire_offsets(scored)
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)

    assert "has expired while a checkpoint at" in refusal(scored)


def test_a_checkpoint_nobody_renewed_for_too_long_is_rebuilt(
    scored: ThreadedCrew, calm, monkeypatch: pytest.MonkeyPatch
):
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)
    new = more(scored)
    worker = scored.here("w")
    settle(scored, worker)

    assert all("rebuilt" in reason for *_, reason in worker.values("recovering"))
    assert since(scored, new).differences(about(calm(), new)) == []


def test_a_partition_that_nothing_came_to_for_long_goes_on_at_its_checkpoint(
    scored: ThreadedCrew, calm, monkeypatch: pytest.MonkeyPatch
):
    """Its log begins behind its start, so it could not be rebuilt; the renewed checkpoint carries what comes next."""
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)
    scored.here("w").wait_for("live", PARTITIONS)
    new = more(scored)
    settle(scored, scored.workers["w"])

    assert {reason for *_, reason in scored.workers["w"].values("recovering")} == {"checkpoint"}
    assert since(scored, new).differences(about(calm(), new)) == []


def test_a_checkpoint_left_behind_by_its_log_is_refused_by_its_own_name(
    scored: ThreadedCrew, monkeypatch: pytest.MonkeyPatch
):
    more(scored)
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    now_ms = stream.app._now_ms
    monkeypatch.setattr(stream.app, "_now_ms", lambda: now_ms() + stream.app.EXPIRY_MARGIN_MS + 60_000)
    told = refusal(scored)

    assert "was not renewed for so long" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial"))
