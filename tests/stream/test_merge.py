"""Partitions go out by record timestamp, each in its own order, and none waits for one that has ended."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from stream.merge import LANE_BYTES, LANE_RECORDS, Merge


@dataclass(frozen=True)
class Sent:
    number: int
    at: int
    time_ms: int
    payload: bytes = b""

    def partition(self):
        return self.number

    def timestamp(self):
        return 1, self.time_ms

    def value(self):
        return self.payload


def put(merge, *sent):
    for one in sent:
        merge.put(one)


def test_nothing_goes_out_before_every_partition_has_spoken_or_ended():
    merge = Merge(range(2))
    put(merge, Sent(0, 0, 10), Sent(0, 1, 30))
    assert merge.take() == []
    put(merge, Sent(1, 0, 20))
    assert merge.take() == [Sent(0, 0, 10), Sent(1, 0, 20)]
    put(merge, Sent(1, 1, 25))
    assert merge.take() == [Sent(1, 1, 25)]
    merge.lanes[1].ended = True
    assert merge.take() == [Sent(0, 1, 30)]


def test_a_timestamp_that_goes_back_keeps_its_place_in_its_partition():
    merge = Merge(range(2))
    put(merge, Sent(0, 0, 50), Sent(0, 1, 10), Sent(1, 0, 20), Sent(1, 1, 60))
    assert merge.take() == [Sent(1, 0, 20), Sent(0, 0, 50), Sent(0, 1, 10)]


def test_a_partition_is_full_by_records_or_by_bytes_until_they_are_taken():
    merge = Merge(range(2))
    put(merge, *(Sent(0, n, n) for n in range(LANE_RECORDS)), Sent(1, 0, 0, bytes(LANE_BYTES)))
    assert merge.lanes[0].full
    assert merge.lanes[1].full
    merge.lanes[0].ended = merge.lanes[1].ended = True
    assert len(merge.take()) == LANE_RECORDS + 1
    assert not merge.lanes[0].full
    assert not merge.lanes[1].full


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.booleans())))
def test_whatever_comes_all_of_it_goes_out_once_in_order(arrivals):
    merge, out, sent = Merge(range(3)), [], []
    for at, (number, time_ms, takes) in enumerate(arrivals):
        sent.append(Sent(number, at, time_ms))
        merge.put(sent[-1])
        if takes:
            out += merge.take()
    for lane in merge.lanes.values():
        lane.ended = True
    out += merge.take()
    for number in range(3):
        assert [one for one in out if one.number == number] == [one for one in sent if one.number == number]
    rank = {}
    reached = dict.fromkeys(range(3), -1)
    for one in sent:
        reached[one.number] = rank[one] = max(reached[one.number], one.time_ms)
    assert [rank[one] for one in out] == sorted(rank[one] for one in out)
