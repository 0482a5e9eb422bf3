"""The live view: rates between samples, workers that come and go, the picture and its plain lines."""

import io
import math
import socket
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import orjson
import pytest
from prometheus_client import generate_latest
from rich.console import Console

from stream.errors import UsageError
from stream.health import Health, HealthServer
from stream.metrics import PrometheusObserver
from stream.observer import BatchReport
from stream.scrape import Rates, metrics_url, take_sample
from stream.top import Recent, run_top

ONE, TWO = "http://one:9108/metrics", "http://two:9108/metrics"
STARTED = 1_700_000_000.0


class Workers:
    """Workers by URL; what is not there refuses the connection."""

    def __init__(self):
        self.by_url = {}

    def start(self, url):
        worker = self.by_url[url] = PrometheusObserver(started_at=STARTED)
        worker.started(model="m-1", engine="onnx", feature_set="abcdef012345", state="s")
        return worker

    def fetch(self, url):
        if url not in self.by_url:
            raise ConnectionRefusedError(111, "Connection refused")
        return generate_latest(self.by_url[url].registry).decode()


class Script:
    """A stop whose waits run the next step of a scenario, one second each; the last one ends the view."""

    def __init__(self, clock, *steps):
        self.clock, self.steps = clock, list(steps)

    def wait(self, timeout):
        self.clock.now += timeout
        self.steps.pop(0)()
        return not self.steps


@pytest.fixture
def workers():
    return Workers()


def sample(workers, clock, *urls):
    return take_sample(urls or (ONE,), clock, workers.fetch)


def score(worker, events=100, latency_ms=4.0, **more):
    outcomes = {"approve": events - 3, "review": 2, "decline": 1}
    worker.batch(BatchReport(events=events, latency_ms=np.full(events, latency_ms), outcomes=outcomes, **more))


def hold(worker, number, lag):
    worker.recovering(number, replay_from=0, live_from=0, reason="assigned")
    worker.assigned([number])
    worker.live(number)
    worker.position(number, committed=5, lag=lag)
    worker.memory(number, users=1000, size_bytes=3 << 20, events=9, unwritten=1)


def test_rates_are_the_increase_between_two_samples(workers, clock):
    worker = workers.start(ONE)
    score(worker, events=5000, latency_ms=900.0)
    before = sample(workers, clock)
    clock.now += 2
    score(worker, stage_secs={"score": 0.2}, dead_letters={"key_mismatch": 3})
    score(worker)
    worker.committed(0.004)
    rates = Rates.between(before, sample(workers, clock))
    assert rates.events_per_sec == 100.0
    assert rates.decisions == {"approve": 194, "review": 4, "decline": 2}
    assert rates.dead_letters == {"key_mismatch": 3}
    assert rates.batch_mean == pytest.approx((103 + 100) / 2)
    assert rates.stages == {"score": pytest.approx(0.2)}
    assert 0.003 < rates.p50_secs < rates.p99_secs <= 0.005, "the slow events before do not count"
    assert 0.0025 < rates.commit_p50_secs <= 0.005


def test_workers_are_added_up_and_the_worst_partition_is_named(workers, clock):
    for url, number, lag in ((ONE, 0, 10), (TWO, 1, 300)):
        hold(workers.start(url), number, lag)
    before = sample(workers, clock, ONE, TWO)
    clock.now += 1
    for worker in workers.by_url.values():
        score(worker)
    rates = Rates.between(before, sample(workers, clock, ONE, TWO))
    assert rates.events == 200
    assert (rates.lag, rates.worst) == (310, ("1", 300))
    assert (rates.users, rates.size_bytes, rates.unwritten) == (2000, 6 << 20, 2)
    assert (rates.assigned, rates.live, rates.paused) == (2, 2, 0)
    assert rates.models == (("m-1", "onnx", "abcdef012345"),)
    assert rates.started_at == STARTED


def test_a_worker_that_starts_anew_counts_from_zero(workers, clock):
    score(workers.start(ONE), events=5000, latency_ms=900.0)
    before = sample(workers, clock)
    clock.now += 1
    score(workers.start(ONE), latency_ms=2.0)
    rates = Rates.between(before, sample(workers, clock))
    assert rates.events == 100
    assert rates.decisions == {"approve": 97, "review": 2, "decline": 1}
    assert rates.p99_secs <= 0.002


def test_a_worker_that_is_down_adds_nothing_and_comes_back_without_a_jump(workers, clock):
    score(workers.start(ONE), events=5000)
    gone = workers.by_url.pop(ONE)
    down = sample(workers, clock)
    assert [worker.down for worker in down.workers] == ["Connection refused"]
    rates = Rates.between(down, down)
    assert (rates.events, rates.workers, len(rates.down)) == (0, 1, 1)
    assert math.isnan(rates.p50_secs)
    workers.by_url[ONE] = gone
    clock.now += 1
    assert Rates.between(down, sample(workers, clock)).events == 0
    assert Rates.between(None, sample(workers, clock)).events == 5000, "everything since the start"


def test_whatever_answers_in_a_workers_place_is_down_too(clock):
    def answered(error_or_text):
        def fetch(_):
            if isinstance(error_or_text, Exception):
                raise error_or_text
            return error_or_text

        return take_sample([ONE], clock, fetch).workers[0].down

    assert answered("<html>hello</html>") == "what answers is no worker's metrics"
    assert answered("up 1\n") == "what answers is no worker's metrics"
    assert answered(TimeoutError("timed out")) == "timed out"


def test_workers_are_really_asked_over_http(clock):
    observer = PrometheusObserver()
    score(observer)
    with HealthServer("127.0.0.1", 0, Health(), observer.registry) as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        up, refused, missing = take_sample(
            [server.url, f"http://127.0.0.1:{taken.getsockname()[1]}/metrics", server.url + "/no"], clock
        ).workers
    assert up.total("fraudstream_events_total") == 100
    assert refused.down == "Connection refused"
    assert missing.down == "answers 404"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:9108", "http://localhost:9108/metrics"),
        ("http://w:1", "http://w:1/metrics"),
        ("https://w/here", "https://w/here"),
    ],
)
def test_an_address_may_be_a_host_and_port_or_a_url(given, url):
    assert metrics_url(given) == url


@pytest.mark.parametrize("given", ["file:///etc/passwd", "http://", ""])
def test_anything_else_is_refused_with_what_to_give(given):
    with pytest.raises(UsageError, match="give host:port"):
        metrics_url(given)


def recent(count=2):
    kept = Recent()
    for number in range(count):
        reasons = [{"text": f"{number} payments in the last hour"}, {"text": "first payment at this merchant"}]
        value = {"decision": "decline", "user_id": f"user-{number}", "score": 0.9123, "reasons": reasons}
        kept.decision(orjson.dumps(value))
    kept.decision(orjson.dumps({"decision": "review", "user_id": "reviewed", "score": 0.5, "reasons": []}))
    return kept


def test_recent_keeps_the_newest_declines_first():
    users = [decision["user_id"] for decision in recent(9).declines()]
    assert users == ["user-8", "user-7", "user-6", "user-5", "user-4", "user-3"]


def watch(workers, clock, *steps, width=80, terminal=True, source=None, urls=(ONE,)):
    """Run the view; return what it wrote and the totals."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=40,
        force_terminal=terminal,
        color_system=None,
        legacy_windows=False,
        _environ={},
        get_datetime=lambda: datetime.fromtimestamp(STARTED + 135 + clock.now - 1000, UTC),
    )
    totals = run_top(
        urls, 1.0, console, clock, Script(clock, *(steps or (lambda: None,))), recent=source, fetch=workers.fetch
    )
    return out.getvalue(), totals


@pytest.mark.parametrize("width", [80, 120])
def test_the_picture_fits_its_terminal_and_says_everything(workers, clock, width):
    worker = workers.start(ONE)
    hold(worker, 3, 1234)
    text, totals = watch(
        workers,
        clock,
        lambda: score(worker, stage_secs={"consume": 5.0, "score": 0.2}, dead_letters={"key_mismatch": 3}),
        width=width,
        source=recent(),
    )
    last = text[text.rindex("fraudstream") - 1 :].splitlines()
    assert all(len(line) <= width for line in last if "\x1b" not in line)
    picture = "\n".join(last)
    for said in (
        *("up 2 min 16 s", "model m-1", "events/s  100", "lag       1,234", "1,234 on 3", "batch     103"),
        *("p50       4.0 ms", "p99       5.0 ms", "97.0%", "2.0%", "1.0%", "3 key_mismatch", "busiest   score 100%"),
        *(
            "users     1,000",
            "memory    3.0 MiB",
            "answers",
            "1 of 1",
            "user-1",
            "0.912",
            "1 payments in the last hour",
        ),
    ):
        assert said in picture, said
    assert picture.index("user-1") < picture.index("user-0")
    assert "reviewed" not in picture
    assert totals.events == 100


def test_columns_stay_aligned_when_nothing_has_happened_yet(workers, clock):
    workers.start(ONE)
    text, _ = watch(workers, clock, source=Recent())
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert {len(row) for row in rows} == {80}
    assert "none yet" in text


def test_a_worker_that_goes_down_is_told_and_the_view_goes_on(workers, clock):
    score(workers.start(ONE))
    gone = {}

    def back():
        workers.by_url.update(gone)

    text, totals = watch(
        workers, clock, lambda: gone.update({ONE: workers.by_url.pop(ONE)}), back, lambda: score(workers.by_url[ONE])
    )
    assert "http://one:9108/metrics is down: Connection refused" in text
    assert "Traceback" not in text
    assert "events/s  100" in text[text.rindex("throughput") :]
    assert totals.events == 200


def test_the_store_being_away_is_seen(workers, clock):
    worker = workers.start(ONE)
    text, _ = watch(workers, clock, lambda: worker.store_failed("no connection"))
    assert "does not answer" in text[text.rindex("throughput") :]


def test_an_id_from_outside_cannot_command_the_terminal(workers, clock):
    workers.start(ONE)
    source = Recent()
    source.decision(
        orjson.dumps(
            {"decision": "decline", "user_id": "a\x1b]0;b\x07[bold]", "score": 1.0, "reasons": [{"text": "\x9b2J"}]}
        )
    )
    text, _ = watch(workers, clock, source=source, width=120)
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert "a�]0;b�[bold]" in text


def test_without_a_terminal_each_interval_is_one_line(workers, clock):
    worker = workers.start(ONE)
    hold(worker, 3, 1234)
    text, _ = watch(workers, clock, *[lambda: score(worker)] * 30, terminal=False)
    header, first, second, *rest = text.splitlines()
    names = "time events/s lag p50 p99 approve review decline dead batch users memory stored store up"
    assert " ".join(header.split()) == names
    assert first.split()[1:3] == ["–", "1,234"], "nothing can be said about speed before the first interval"
    assert second.split()[:3] == ["22:15:36", "100", "1,234"]
    assert "97.0%     2.0%     1.0%" in second
    assert [line.split()[0] for line in rest].count("time") == 1, "the header comes again every 20 lines"
    assert len({len(line) for line in [first, second, *rest]}) == 1
    assert "\x1b" not in text


def test_without_a_terminal_a_worker_that_is_down_has_a_line_of_its_own(workers, clock):
    text, _ = watch(workers, clock, terminal=False)
    assert text.splitlines()[-1] == "http://one:9108/metrics is down: Connection refused"
    assert text.splitlines()[-2].endswith("0/1")


def test_an_interrupt_ends_the_view_quietly(workers, clock):
    worker = workers.start(ONE)

    def interrupt():
        raise KeyboardInterrupt

    _, totals = watch(workers, clock, lambda: score(worker), interrupt)
    assert totals.events == 100


def test_the_reading_clock_is_the_one_given(workers, clock):
    times = [sample(workers, clock).at_secs]
    clock.now += 7
    times.append(sample(workers, clock).at_secs)
    assert [later - earlier for earlier, later in pairwise(times)] == [7]
