"""/metrics, /healthz and /readyz over real HTTP, with an injected clock."""

import io
import json
import logging
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.registry import Collector

from stream.errors import StartupError
from stream.health import Health, HealthServer
from stream.metrics import PrometheusObserver


@pytest.fixture
def health(clock):
    return Health(clock, stuck_secs=60.0)


@pytest.fixture
def server(health, clock):
    with HealthServer("127.0.0.1", 0, health, PrometheusObserver(clock).registry) as server:
        yield server


def get(server, path, accept=""):
    """(status, content type, body); asked directly, whatever proxy the environment names."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers={"Accept": accept})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def check(server, path):
    status, content_type, body = get(server, path)
    assert content_type == "application/json"
    return status, json.loads(body)


def test_metrics_speak_the_format_asked_for(server):
    status, content_type, body = get(server, "/metrics")
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    assert "# TYPE fraudstream_events_total counter" in body
    status, content_type, body = get(server, "/metrics?x=1", "application/openmetrics-text; version=1.0.0")
    assert (status, content_type.split(";")[0]) == (200, "application/openmetrics-text")
    assert any(family.name == "fraudstream_events" for family in parse_open_metrics(body))


def test_another_path_is_not_found(server):
    assert check(server, "/") == (404, {"reason": "here are /metrics, /healthz and /readyz"})


def test_the_process_is_healthy_while_its_loop_turns(server, health, clock):
    assert check(server, "/healthz") == (200, {"status": "ok"})
    clock.now += 60.0
    assert check(server, "/healthz")[0] == 200
    clock.now += 0.5
    assert check(server, "/healthz") == (
        503,
        {"status": "unavailable", "reason": "the loop is stuck", "silent_secs": 60.5, "limit_secs": 60.0},
    )
    health.turned()
    assert check(server, "/healthz")[0] == 200


def test_whoever_asks_whether_a_worker_is_ready_hears_which_model_scores(server, health):
    health.started(model="a", engine="forest", feature_set="f", state="s")
    health.assigned([0])
    health.live(0)
    assert check(server, "/readyz") == (200, {"status": "ok", "model": "a"})
    health.swapped(model="b", engine="forest", feature_set="f", former="a", approved_by="ada")
    assert check(server, "/readyz") == (200, {"status": "ok", "model": "b"})


def test_the_worker_is_ready_once_every_partition_it_holds_is_live(server, health):
    def ready():
        status, answer = check(server, "/readyz")
        return status, answer.get("reason", ""), answer.get("partitions", [])

    nothing, catching_up = "no partitions have been assigned yet", "partitions are catching up"
    assert ready() == (503, nothing, [])
    health.recovering(0, replay_from=0, live_from=9, reason="assigned")
    health.recovering(1, replay_from=9, live_from=9, reason="assigned")
    health.live(1)  # nothing to replay: live before the assignment is told
    assert ready() == (503, nothing, [])
    health.assigned([0, 1])
    assert ready() == (503, catching_up, [0])
    health.live(0)
    assert ready() == (200, "", [])
    health.recovering(1, replay_from=5, live_from=9, reason="aborted")
    assert ready() == (503, catching_up, [1])
    health.live(1)
    health.store_failed("no connection")
    assert ready() == (503, "the store does not answer", [])
    health.breaker(is_open=False)
    assert ready() == (200, "", [])
    health.revoked([0, 1], lost=False)
    assert ready() == (503, nothing, [])
    health.live(1)  # kept in memory, handed back
    health.assigned([1])
    assert ready() == (200, "", [])
    health.stopped()
    assert ready() == (503, "the worker has left its group", [])


def test_a_worker_that_is_told_it_gets_no_partitions_is_ready(server, health):
    health.revoked([], lost=False)
    assert check(server, "/readyz")[0] == 503
    health.assigned([])
    assert check(server, "/readyz")[0] == 200


def test_a_port_in_use_is_refused_by_the_name_of_its_setting(server, health):
    with pytest.raises(StartupError, match=rf"^Port {server.port} on 127\.0\.0\.1 is taken.*set metrics\.port"):
        HealthServer("127.0.0.1", server.port, health, CollectorRegistry())


def test_an_address_of_another_host_is_refused_by_the_name_of_its_setting(health):
    with pytest.raises(StartupError, match=r"^192\.0\.2\.1 is no address of this host.*set metrics\.address"):
        HealthServer("192.0.2.1", 0, health, CollectorRegistry())
    with pytest.raises(StartupError, match=r"^nowhere\.invalid is no address of this host"):
        HealthServer("nowhere.invalid", 0, health, CollectorRegistry())


def test_the_port_is_free_again_after_leaving(health):
    with HealthServer("127.0.0.1", 0, health, CollectorRegistry()) as server:
        port = server.port
    with HealthServer("127.0.0.1", port, health, CollectorRegistry()) as again:
        assert check(again, "/healthz")[0] == 200


def test_it_listens_on_an_ipv6_address_too(health):
    if not socket.has_ipv6:
        pytest.skip("this host has no IPv6")
    try:
        server = HealthServer("::1", 0, health, CollectorRegistry())
    except StartupError:
        pytest.skip("this host has no ::1")
    with server:
        assert server.url == f"http://[::1]:{server.port}/metrics"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(server.url, timeout=10) as answer:
            assert answer.status == 200


def test_an_error_while_answering_is_a_log_line_and_the_next_request_is_served(health):
    class Broken(Collector):
        def collect(self):
            raise RuntimeError("no numbers")

    registry = CollectorRegistry()
    registry.register(Broken())
    written = io.StringIO()
    handler, logger = logging.StreamHandler(written), logging.getLogger("fraudstream.health")
    logger.addHandler(handler)
    try:
        with HealthServer("127.0.0.1", 0, health, registry) as server:
            with pytest.raises(OSError, match="closed"):
                get(server, "/metrics")
            assert check(server, "/healthz")[0] == 200
    finally:
        logger.removeHandler(handler)
    assert "a request failed" in written.getvalue()
    assert "no numbers" in written.getvalue()
