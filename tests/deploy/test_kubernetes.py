"""The Kubernetes manifests, against Kubernetes' own schemas and against what the program expects."""

import subprocess

import kubernetes_validate
import pytest
import yaml

from deployment import DEPLOY, program
from stream.settings import load_settings

DOCUMENTS = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yml"))
    for document in yaml.safe_load_all(path.read_text())
]
PODS = {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in DOCUMENTS if "template" in d.get("spec", {})}
PORTS = {"fraudstream-worker": 9108, "fraudstream-monitor": 9109}


def by_kind(kind):
    return [document for document in DOCUMENTS if document["kind"] == kind]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_it_is_what_kubernetes_takes(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_manifest_with_a_wrong_key_is_refused():
    (budget,) = by_kind("PodDisruptionBudget")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**budget, "spec": {**budget["spec"], "maxGone": 1}}, kubernetes_validate.latest_version(), strict=True
        )


def test_the_settings_are_valid(tmp_path):
    (config,) = by_kind("ConfigMap")
    path = tmp_path / "fraudstream.toml"
    path.write_text(config["data"]["fraudstream.toml"])
    (tmp_path / "store_url").write_text("redis://:x@redis:6379/0")
    (tmp_path / "log_id_key").write_text("x")
    for pod in PODS.values():
        environ = {
            one["name"]: one["value"].replace("/run/secrets/fraudstream", str(tmp_path))
            for one in pod["containers"][0]["env"]
            if one["name"].startswith("FRAUDSTREAM_")
        }
        settings = load_settings(path, environ)
        reads_store = pod["containers"][0]["args"][0] == "worker"
        assert ("FRAUDSTREAM_STORE__URL_FILE" in environ) == reads_store
        (secrets,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets"]
        assert [one["key"] for one in secrets.get("items", [])] == ([] if reads_store else ["log_id_key"])
        assert settings.store.kind == "redis"
        assert pod["terminationGracePeriodSeconds"] * 1000 > settings.worker.shutdown_timeout_ms
        assert settings.metrics.port == PORTS["fraudstream-worker"]
        assert settings.monitor.port == PORTS["fraudstream-monitor"]


def test_a_worker_s_instance_id_is_its_pod_s_name():
    (workers,) = by_kind("StatefulSet")
    container = workers["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["worker", "--instance-id", "$(POD_NAME)"]
    assert container["env"][0] == {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert workers["spec"]["serviceName"] in {service["metadata"]["name"] for service in by_kind("Service")}


def test_one_monitor_at_a_time():
    (monitor,) = by_kind("Deployment")
    assert monitor["spec"]["replicas"] == 1
    assert monitor["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_do_as_little_as_it_can_and_is_probed_where_it_answers(name):
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["ports"] == [{"name": "metrics", "containerPort": PORTS[name]}]
    probes = {key: container[key]["httpGet"] for key in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {key: probe["path"] for key, probe in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("document", [*by_kind("Service"), *by_kind("PodDisruptionBudget")], ids=lambda d: d["kind"])
def test_selectors_find_the_pods_they_mean(document):
    selector = document["spec"]["selector"]
    wanted = selector.get("matchLabels", selector)
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in DOCUMENTS if "template" in d.get("spec", {})]
    assert len([found for found in labels if wanted.items() <= found.items()]) == 1


def test_prometheus_takes_the_scrape_configuration_which_finds_our_pods_under_the_jobs_of_the_rules(tmp_path):
    path = DEPLOY / "kubernetes" / "prometheus" / "scrape.yml"
    # Debian's Prometheus is built without Kubernetes discovery: what is around it is checked.
    other = tmp_path / "scrape.yml"
    other.write_text(path.read_text().replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: []"))
    done = subprocess.run(
        [program("promtool"), "check", "config", "--syntax-only", other], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {job["job_name"]: job for job in yaml.safe_load(path.read_text())["scrape_configs"]}
    assert set(jobs) == set(PODS) == set(PORTS)
    for document in DOCUMENTS:
        if "template" in document.get("spec", {}):
            labels = document["spec"]["template"]["metadata"]["labels"]
            kept = jobs[document["metadata"]["name"]]["relabel_configs"][0]["regex"]
            assert kept == f"{labels['app.kubernetes.io/name']};{labels['app.kubernetes.io/component']};metrics"
