"""What the benchmark rests on: the peers' windows are ours, and a figure says what its spread bears."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch):
    for folder in (BENCH, BENCH / "peers", BENCH.parent / "state"):
        monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith((str(BENCH), str(BENCH.parent / "state"))):
            del sys.modules[name]


def test_the_windows_of_the_peers_equal_the_naive_recomputation_bit_for_bit():
    from listed_windows import ITEM, columns, expired, features, packed, unpacked
    from oracle import Oracle, Payment
    from state.features import StateSpec, default_feature_set

    spec, rng = StateSpec(), random.Random(5)
    oracle, window, kept, at = Oracle(spec, default_feature_set()), ([], [], [], [], []), b"", 1_750_000_000_000
    places = [spec.fields.index(name) for name in ("merchant_id", "country", "device_id")]
    for offset in range(400):
        at += int(rng.expovariate(1 / rng.choice([1_000, 3_000_000, 200_000_000])))
        cents, ids = rng.randrange(1, 900_000), [rng.randrange(4) for _ in places]
        fields = [0] * len(spec.fields)
        for place, value in zip(places, ids, strict=True):
            fields[place] = value
        payment = {"amount": cents / 100, "event_time": at}
        payment |= {n: f"x-{i}" for n, i in zip(("merchant_id", "country", "device_id"), ids, strict=True) if i}
        for column, value in zip(window, columns(payment), strict=True):
            column.append(value)
        gone = expired(window[0])
        for column in window:
            del column[:gone]
        kept = (kept + packed(payment))[gone * ITEM.size :]
        expected, _ = oracle.observe(b"u", Payment(at, offset, offset + 1, cents, 1, tuple(fields)))
        for way in (window, unpacked(kept)):
            assert np.array(features(*way), np.float32).tobytes() == expected.tobytes(), offset


@pytest.mark.parametrize(
    ("values", "bound", "said"),
    [
        ([0.7, 0.61, 0.65], "≥ 0.6", "0.65 (0.61 to 0.70): met"),
        ([0.7, 0.5, 0.65], "≥ 0.6", "0.65 (0.50 to 0.70): the spread exceeds the claim"),
        ([0.5], "≥ 0.6", "0.50: missed"),
        ([0.02, 0.01], "≤ 3%", "0.01 (0.01 to 0.02): met"),
        ([2.5], "≤ 2", "2.50: missed"),
        ([2.5], "", "2.50"),
    ],
)
def test_a_figure_says_whether_all_of_its_spread_keeps_its_bound(values, bound, said):
    from spread import claim

    assert claim(values, bound) == said


@pytest.mark.parametrize(
    ("measured", "number"), [("12,345 (1 to 2)", 12_345.0), ("+1.8 %", 1.8), ("failed: 3 of", None), ("none", None)]
)
def test_a_figure_of_another_run_is_read_by_its_first_number(measured, number):
    from spread import first_number

    assert first_number(measured) == number


def test_a_run_is_compared_with_an_earlier_one_figure_by_figure_also_where_names_repeat():
    from figures import Part, Row, changes

    def run(first, second):
        named = [("ours", f"{first} events a second"), ("  CPU", "4.0"), ("null", f"{second}"), ("  CPU", f"{second}")]
        return [Row(figure, measured, "") for figure, measured in [*named, ("  CPU", f"{first}")]]

    former = {"parts": {"peers": [row._asdict() for row in run("1,000", 10)]}}
    rows = [*run("1,500", 5), Row("new", "7", "")]
    found = changes(former, {"peers": Part(rows, 0.0), "more": Part([Row("x", "1", "")], 0.0)})
    assert found == {("peers", place): said for place, said in enumerate(("+50%", "+0%", "-50%", "-50%", "+50%"))}


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ([10.0, 12.0], [15.0, 16.0], "+41%"),
        ([10.0, 15.0], [15.0, 16.0], "+24%, inside the spread"),
        ([10.0], [12.0], "+20%"),
        ([], [12.0], None),
        ([12.0], [], None),
    ],
)
def test_a_change_that_the_rounds_of_both_runs_allow_for_and_a_failure_are_no_change(then, now, said):
    from figures import Part, Row, changes
    from spread import failure, spread

    def part(values):
        measured = spread(values) if values else failure(ValueError("15,000 payments\nand more"))
        return Part([Row("ours", measured, "", values)], 0.0)

    former = {"parts": {"peers": [row._asdict() for row in part(then).rows]}}
    assert changes(former, {"peers": part(now)}).get(("peers", 0)) == said


def test_what_else_differs_between_two_runs_is_told():
    from figures import Part, Row, differences, record

    def run(load, redis):
        return record({"peers": Part([Row("x", "1", "")], load, 7)}, {"cores": 2, "libraries": {"redis": redis}})

    assert differences(run(0.1, "5.0"), run(0.1, "5.0")) == []
    assert differences(run(0.1, "5.0"), run(0.9, "6.0")) == [
        "libraries redis: 5.0 → 6.0",
        "began on a busy machine: - → peers",
    ]


def test_what_the_peers_are_pinned_to_is_told_by_name():
    from figures import PEERS, pinned

    found = pinned(PEERS)
    assert {"quix", "faust", "bytewax", "flink", "tl2cgen", "lleaves", "kafka_streams", "flink_connector"} == set(found)
    assert found["quix"].startswith("quixstreams ")
    assert "kafka-streams " in found["kafka_streams"]


def test_a_part_that_fails_is_a_figure_and_those_beside_it_are_kept(tmp_path, monkeypatch, capsys):
    import all as bench

    def fails():
        yield "first", "3", ""
        raise RuntimeError("no [broker]\nat all")

    monkeypatch.setattr(bench.figures, "LOOK_SECS", 0.01)
    monkeypatch.setattr(bench, "PARTS", {"one": lambda: [("x", "2", "", [1.0, 3.0], "µs")], "two": fails})
    former, target = tmp_path / "former.json", tmp_path / "found" / "run.json"
    assert bench.main(["one", "--json", str(former)]) == 0
    assert bench.main(["--json", str(target), "--compare", str(former)]) == 1
    kept = bench.figures.read(target)["parts"]
    assert [row["measured"] for row in kept["one"]] == ["2"]
    assert [row["measured"] for row in kept["two"]] == ["3", "failed: RuntimeError: no [broker]"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["run-one.svg", "run.json"]
    assert "no [broker]" in capsys.readouterr().out


def decided(row, score, word="approve", reasons=()):
    """Return a decision as a record, its score as a text of JSON."""
    import orjson

    from kafka_topics import Record

    told = {"transaction_id": f"t-{row:07d}", "decision": word, "reasons": [{"feature": name} for name in reasons]}
    return Record(0, row, b"u", orjson.dumps(told)[:-1] + f',"score":{score}}}'.encode())


RIGHT = [(0, 0.1), (1, 0.2), (2, 0.3)]


def held(word, *reasons):
    """Return four decisions, of which the last is held."""
    return [*RIGHT, (3, 0.9, word, reasons)]


@pytest.mark.parametrize(
    ("answers", "ours", "said"),
    [
        (RIGHT, None, ""),
        ([(2, 0.3), (0, 0.100009), (1, 0.2)], None, ""),
        ([(0, 0.1), (1, 0.2)], None, "1 payments without a decision, 0 with several"),
        ([(0, 0.1), (1, 0.2), (1, 0.2), (2, 0.3)], None, "0 payments without a decision, 1 with several"),
        ([(0, 0.1), (1, 0.2), (3, 0.3)], None, "1 payments without"),
        ([(0, 0.1), (1, 0.20002), (2, 0.3)], None, "1 scores differ, most t-0000001 by 2e-05"),
        ([(0, 0.1), (1, "null"), (2, 0.3)], None, "1 scores differ"),
        (held("review"), None, ""),
        (held("decline"), None, "1 decisions differ, first t-0000003: decline"),
        ([(0, 0.1, "review"), (1, 0.2), (2, 0.3)], None, "1 decisions differ, first t-0000000: review"),
        (held("review", "count_24h"), {}, ""),
        (held("review"), {}, "1 decisions are held without reasons"),
        ([(0, 0.1, "approve", ["count_24h"]), (1, 0.2), (2, 0.3)], {}, "1 decisions are held without reasons, or have"),
        ([(0, 0.1), (1, 0.2000001), (2, 0.3)], {}, "1 scores differ in their last bits"),
        ([(0, 0.1), (1, 0.2000001), (2, 0.3)], {"exact": False}, ""),
        (held("approve"), {"held": False}, ""),
        (held("review", "count_24h"), {"held": False}, "1 decisions differ"),
    ],
)
def test_a_contender_whose_answers_are_not_all_right_has_failed(answers, ours, said):
    from contender import Ours
    from models.policy import Thresholds
    from race import Wrong, check

    records = [decided(*answer) for answer in answers]
    scores, total = np.array([0.1, 0.2, 0.3, 0.9], np.float32), max(3, len({row for row, *_ in answers}))
    compared = (records, total, scores, Thresholds(0.8, 0.95), None if ours is None else Ours(**ours))
    if not said:
        check(*compared)
        return
    with pytest.raises(Wrong, match=said):
        check(*compared)


def test_a_score_within_the_tolerance_of_a_threshold_may_fall_on_either_side():
    from models.policy import Thresholds
    from race import check

    scores = np.array([0.800003, 0.3], np.float32)
    for word in ("approve", "review"):
        check([decided(0, 0.8, word), decided(1, 0.3)], 2, scores, Thresholds(0.8, 0.95))


@pytest.mark.parametrize(
    ("ours", "rows", "telemetry", "stored", "said"),
    [
        ({}, 2, 1, [5], ""),
        ({}, 1, 1, [5], "1 rows in the feature log for 2 payments"),
        ({}, 2, 0, [5], "0 records of telemetry"),
        ({}, 2, 1, [0], "no checkpoint stored users"),
        ({}, 2, 1, [], "no checkpoint stored users"),
        ({"features": False}, 0, 1, [5], ""),
        ({"features": False}, 2, 1, [5], "2 rows in the feature log"),
        ({"telemetry": False}, 2, 0, [5], ""),
        ({"telemetry": False}, 2, 3, [5], "3 records of telemetry"),
    ],
)
def test_a_worker_of_ours_that_does_less_or_more_than_its_row_says_has_failed(ours, rows, telemetry, stored, said):
    from contender import Ours
    from race import Wrong, check_ours
    from stream.feature_log import FeatureLog

    zeros = np.zeros(rows, np.int64)
    ids, x = ["t"] * rows, np.zeros((rows, 2), np.float32)
    features = [record for _, _, record in FeatureLog(["a", "b"], "", max_bytes=1).encode(ids, zeros, zeros, zeros, x)]
    if not said:
        check_ours(Ours(**ours), 2, features, telemetry, stored)
        return
    with pytest.raises(Wrong, match=said):
        check_ours(Ours(**ours), 2, features, telemetry, stored)


def test_the_null_pipeline_writes_real_bytes_in_turn_as_many_as_a_record_of_so_many_rows_has():
    from null_pipeline import Features

    features = Features([b"0123", b"456789"], one_row=3, further_row=2.0)
    assert [features.cut(rows) for rows in (1, 2, 1, 1, 1)] == [b"012", b"34567", b"012", b"345", b"678"]
