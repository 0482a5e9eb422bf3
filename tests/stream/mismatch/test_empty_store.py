"""An empty store, and the very first start: rebuilt from the log where that holds enough, refused where it does not."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from mismatch_cases import (
    PARTITIONS,
    RECORDS,
    about,
    chosen,
    crash,
    decide,
    delete_records,
    lose_store,
    more,
    offsets,
    refusal,
    settle,
    since,
    undisturbed,
)

from line_thread import ThreadedCrew
from stream.coverage import Coverage

pytestmark = pytest.mark.kafka

# One hour will be kept: windows of half an hour, and as much lateness.
FEATURE_SET = """\
name = "short"
[[feature]]
name = "count_30m"
aggregate = "count"
window = "30m"
text = "{value:.0f} payments in the last half hour"
[[feature]]
name = "sum_30m"
aggregate = "sum"
window = "30m"
text = "{value:.0f} spent in the last half hour"
[[feature]]
name = "merchants_30m"
aggregate = "distinct"
field = "merchant_id"
window = "30m"
text = "{value:.0f} merchants in the last half hour"
"""


def test_an_empty_store_is_rebuilt_from_the_logs_start(scored: ThreadedCrew, calm):
    lose_store(scored)
    new = more(scored)
    worker = scored.here("w")
    settle(scored, worker)

    assert since(scored, new).differences(about(calm(), new)) == []
    assert sum(report.replayed for report in worker.values("batch")) == RECORDS


def test_a_log_not_proven_to_cover_the_retention_is_no_replacement_for_the_store(scored: ThreadedCrew):
    lose_store(scored)
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    told = refusal(scored)

    assert "store holds nothing" in told
    assert "its log begins at 10" in told
    assert all(choice in told for choice in ("rebuild", "accept_partial", "restore the store"))


@pytest.mark.parametrize(("choice", "replayed"), [("rebuild", RECORDS - 20), ("accept_partial", 0)])
def test_an_unproven_log_is_replayed_or_not_as_chosen(scored: ThreadedCrew, choice: str, replayed: int):
    lose_store(scored)
    delete_records(scored, dict.fromkeys(offsets(scored), 10))
    new = more(scored)
    worker = chosen(scored, choice)

    since(scored, new)
    assert sum(report.replayed for report in worker.values("batch")) == replayed


def test_a_recorded_offset_covers_the_retention_in_event_time(line: ThreadedCrew, calm, tmp_path: Path):
    """Everything before it is deleted, and every record was published within this second: timestamps prove nothing."""
    (tmp_path / "short.toml").write_text(FEATURE_SET)
    short = {"state.retention": "1h", "state.feature_set": str(tmp_path / "short.toml")}
    line.settings |= short
    decide(line)
    covered = {p: covered_from(line, p) for p in offsets(line)}
    assert all(0 < at < offsets(line)[p] for p, at in covered.items()), covered
    new = more(line)
    delete_records(line, covered)
    lose_store(line)
    worker = line.here("w")
    settle(line, worker)

    assert since(line, new).differences(about(calm(**short), new)) == []
    assert {(p, at) for p, at, *_ in worker.values("recovering")} == set(covered.items())


def covered_from(crew: ThreadedCrew, partition: int) -> int:
    # Asked as a consumer: librdkafka's admin client crashes where a coordinator is still loading.
    consumer = Consumer({"bootstrap.servers": crew.topics.bootstrap, "group.id": crew.group})
    try:
        (place,) = consumer.committed([TopicPartition(crew.line.transactions, partition)], timeout=20)
    finally:
        consumer.close()
    at = Coverage.parse(place.metadata).covered_from(3_600_000)
    assert at is not None
    return at


def test_a_group_that_began_on_a_shortened_log_is_rebuilt_from_where_it_began(line: ThreadedCrew):
    """Nothing before its first offset was ever in its state, so nothing is missing."""
    delete_records(line, dict.fromkeys(line.topics.ends(line.line.transactions), 30))
    decide(line)
    lose_store(line)
    new = more(line)
    worker = line.here("w")
    settle(line, worker)

    alone = undisturbed(line.topics, line.line.transactions)
    assert since(line, new).differences(about(alone, new)) == []
    assert {at for _, at, *_ in worker.values("recovering")} == {30}


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_first_start_cut_off_at_any_step_is_a_first_start_again(line: ThreadedCrew, start: str):
    for step in (1, 2):
        crash(line, "recovering", step, **{"kafka.start": start})
    crash(line, "assigned", 1, **{"kafka.start": start})
    worker = line.here("w", **{"kafka.start": start})
    worker.wait_for("live", PARTITIONS)
    new = more(line)
    settle(line, worker)

    output = line.finish()
    assert output.repeated == []
    assert output.decisions.keys() >= new
    assert len(output.decisions) == (500 if start == "earliest" else 100)
