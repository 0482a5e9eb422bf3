"""Alertmanager: its settings are valid, and a real one keeps quiet of consequences while their cause is said."""

import re
import subprocess

import pytest
import yaml

from deployment import DEPLOY, alert_rules, program
from servers import Alertmanager, until

CONFIG = DEPLOY / "alertmanager" / "alertmanager.yml"
ALERTS = {rule["alert"]: rule["labels"]["severity"] for rule in alert_rules()}
W1, W2 = {"instance": "worker-1:9108"}, {"instance": "worker-2:9108"}


def test_its_own_tool_accepts_the_settings():
    done = subprocess.run([program("amtool"), "check-config", CONFIG], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_inhibits_by_alerts_that_exist():
    for rule in yaml.safe_load(CONFIG.read_text())["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            for pattern in re.search(r'"(.*)"', matcher).group(1).split("|"):
                assert any(re.fullmatch(pattern, name) for name in ALERTS), f"{pattern} is no alert"


def test_receivers_write_to_addresses_that_stand_in_mounted_secrets_alone():
    service = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]["alertmanager"]
    posts = [post for one in yaml.safe_load(CONFIG.read_text())["receivers"] for post in one["slack_configs"]]
    assert [post["api_url_file"] for post in posts] == [f"/run/secrets/{name}" for name in service["secrets"]]
    assert not any("api_url" in post or not post["send_resolved"] for post in posts)


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "now"), ("warning", "morning")])
def test_an_alert_goes_to_whom_its_severity_says(severity, receiver):
    done = subprocess.run(
        [program("amtool"), "config", "routes", "test", f"--config.file={CONFIG}", f"severity={severity}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == receiver


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory):
    """A real one on our settings: tells it of alerts and returns those that it would not keep to itself."""
    with Alertmanager(tmp_path_factory.mktemp("alertmanager"), CONFIG) as server:

        def told(*alerts, case):
            server.tell([{"alertname": name, "severity": ALERTS[name], "case": case, **more} for name, more in alerts])

            def of_case():
                return [alert for alert in server.alerts() if alert["labels"]["case"] == case]

            until(lambda: len(of_case()) == len(alerts), "all are there")
            # An inhibition is judged each time it is asked for.
            return {
                (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
                for alert in of_case()
                if alert["status"]["state"] == "active"
            }

        yield told


# The cases share one Alertmanager, so each cause appears in one case alone.
def test_a_worker_that_is_down_is_said_and_that_it_decides_nothing_is_not_but_of_the_other_it_is(alertmanager):
    said = alertmanager(
        ("FraudstreamWorkerDown", W1),
        ("FraudstreamNoDecisions", W1),
        ("FraudstreamNoDecisions", W2),
        ("FraudstreamLagGrows", {}),
        ("FraudstreamFeatureDrift", {"model": "a", "feature": "amount"}),
        case="down",
    )
    assert said == {
        ("FraudstreamWorkerDown", "worker-1:9108"),
        ("FraudstreamNoDecisions", "worker-2:9108"),
        ("FraudstreamFeatureDrift", ""),
    }


def test_a_monitor_that_is_down_is_said_and_its_silence_is_not(alertmanager):
    said = alertmanager(
        ("FraudstreamMonitorDown", {}), ("FraudstreamMonitorSilent", {}), ("FraudstreamDeadLetters", {}), case="monitor"
    )
    assert {name for name, _ in said} == {"FraudstreamMonitorDown", "FraudstreamDeadLetters"}


def test_of_one_feature_the_cause_is_said_and_of_another_whatever_it_is(alertmanager):
    said = alertmanager(
        ("FraudstreamFeatureMissing", {"model": "a", "feature": "country", "instance": "missing"}),
        ("FraudstreamFeatureDrift", {"model": "a", "feature": "country", "instance": "its drift"}),
        ("FraudstreamFeatureDrift", {"model": "a", "feature": "hour", "instance": "drift"}),
        ("FraudstreamDetectorDrift", {"model": "a", "feature": "hour", "instance": "its detector"}),
        ("FraudstreamDetectorDrift", {"model": "a", "feature": "score", "instance": "another's detector"}),
        case="feature",
    )
    assert {what for _, what in said} == {"missing", "drift", "another's detector"}
