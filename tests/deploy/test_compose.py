"""docker-compose.yml and Dockerfile, as far as they can be tried without Docker.

The composed fixture runs every service of ours, with its own command and settings, as a process of this machine. Not
tried here: building the image, pulling the others, networks, limits and mounts as a container engine makes them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import compose_spec
import pyarrow.parquet as pq
import pytest
import yaml

from composed import SERVICES
from deployment import DEPLOY, ROOT
from stream.settings import load_settings

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BIN = Path(sys.executable).parent
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("fraudstream")]
ONE_SHOTS = [name for name, service in SERVICES.items() if service["restart"] == "no"]


def test_it_has_the_form_of_a_compose_file_and_one_that_has_not_is_refused():
    assert compose_spec.PyCompose.from_yaml(yaml.safe_dump(COMPOSE))  # its anchors written out
    with pytest.raises(Exception, match="imagge"):
        compose_spec.PyCompose.from_yaml("services: {a: {imagge: b}}")


def test_a_linter_of_hardening_finds_nothing_high():
    done = run("compose-lint", "check", "--format", "json", ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout


def test_a_linter_of_dockerfiles_finds_nothing():
    done = run("hadolint", "--failure-threshold", "style", ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_may_do_as_little_as_it_can(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "memory" in service["deploy"]["resources"]["limits"]
    assert "cpus" in service["deploy"]["resources"]["limits"]
    assert service.get("read_only") or name == "kafka", "only Kafka's image writes beside its code"
    assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", service["image"]), "an image is named by its whole version"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not re.search(r"(?i)password=|secret=", json.dumps(service)), "secrets come from files"


@pytest.mark.parametrize("name", SERVICES)
def test_whoever_goes_on_running_has_a_health_check_and_is_waited_for_until_it_is_well(name):
    service = SERVICES[name]
    if name not in ONE_SHOTS:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for other, waited in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONE_SHOTS else "service_healthy"
        assert waited == {"condition": wanted}


def test_every_file_volume_network_secret_and_config_named_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            assert rest.startswith("/")
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE["configs"])
    assert all((ROOT / config["file"]).exists() for config in COMPOSE["configs"].values())


def test_the_script_draws_every_secret_once_and_the_store_s_url_holds_the_store_s_password(tmp_path):
    (tmp_path / "deploy").mkdir()
    shutil.copy(DEPLOY / "secrets.sh", tmp_path / "deploy")
    drawn = []
    for _ in range(2):
        subprocess.run([tmp_path / "deploy" / "secrets.sh"], check=True)
        drawn.append({path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()})
    assert drawn[0] == drawn[1]
    assert {f"./secrets/{name}" for name in drawn[0]} == {secret["file"] for secret in COMPOSE["secrets"].values()}
    password = drawn[0]["redis.conf"].split()[1]
    assert drawn[0]["store_url"] == f"redis://:{password}@redis:6379/0"
    assert len(password) == 48


def test_secrets_are_never_committed_nor_sent_to_the_builder():
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not [line for line in ignored if line.startswith("!") and "secrets" in line]


@pytest.mark.parametrize("name", OURS)
def test_settings_and_environment_of_every_service_are_valid(name, tmp_path):
    service = SERVICES[name]
    (tmp_path / "store_url").write_text("redis://:x@redis:6379/0")
    (tmp_path / "log_id_key").write_text("x")
    environ = {key: value.replace("/run/secrets", str(tmp_path)) for key, value in service["environment"].items()}
    settings = load_settings(DEPLOY / "fraudstream.toml", environ)
    assert settings.kafka.bootstrap_servers.partition(":")[0] in SERVICES
    assert settings.registry.uri.reveal() == "http://mlflow:5000"
    if name == "monitor":
        assert "store_url" not in json.dumps(service), "it never uses the store"
    elif service["environment"]:
        assert settings.store.url.reveal() == "redis://:x@redis:6379/0"
    grace = service.get("stop_grace_period", "")
    assert name in ONE_SHOTS or int(grace.removesuffix("s")) * 1000 > settings.worker.shutdown_timeout_ms


def test_two_workers_have_names_of_their_own_and_share_a_registry_they_cannot_write():
    workers = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}
    assert len(workers) == 2
    assert [service["command"] for service in workers.values()] == [
        ["worker", "--instance-id", name] for name in workers
    ]
    assert all("registry:/registry:ro" in service["volumes"] for service in [*workers.values(), SERVICES["monitor"]])


def test_what_the_dockerfile_copies_exists_and_is_sent_to_the_builder():
    sent = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in [part for part in line.split() if not part.startswith("--")][:-1]
    ]
    assert copied
    for name in [source.replace("${ENGINE}", engine) for source in copied for engine in ("cpu", "gpu")]:
        assert (ROOT / name).exists()
        assert name in sent, f"{name} is not in .dockerignore's exceptions"


def test_the_image_runs_as_nobody_in_particular_and_compiles_what_the_makefile_compiles():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    for line in re.findall(r"-c '(from [^']*warm\(\))'", (ROOT / "Makefile").read_text()):
        assert line in DOCKERFILE
    assert "--require-hashes -r requirements.txt" in DOCKERFILE


def test_the_images_hold_the_versions_that_are_tested_and_nothing_that_only_tests_need():
    tested = pinned(ROOT / "requirements.txt")
    assert pinned(ROOT / "deploy/requirements-cpu.txt").items() <= tested.items()
    for engine in ("cpu", "gpu"):
        held = pinned(ROOT / f"deploy/requirements-{engine}.txt")
        differ = {name for name in held.keys() & tested.keys() if held[name] != tested[name]}
        assert differ <= {"xgboost"}  # pinned here for other systems only
        assert {"confluent-kafka", "faust-streaming", "river", "mlflow-skinny", "setuptools"} <= held.keys()
        assert not {"pytest", "hypothesis", "mypy", "ruff"} & held.keys()
    assert "onnxruntime-gpu" in held


def pinned(path: Path) -> dict[str, str]:
    """Return the version of each package in a file of pins, with its marker."""
    return dict(re.findall(r"^([a-z][a-z0-9._-]*)(?:\[[a-z,]*\])?==(.*?) \\$", path.read_text(), re.MULTILINE))


def test_mlflow_s_server_knows_the_options_it_is_given():
    from mlflow.cli import server

    known = {option for parameter in server.params for option in parameter.opts}
    command = SERVICES["mlflow"]["command"]
    assert command[:2] == ["mlflow", "server"]
    assert {part for part in command if part.startswith("--")} <= known


def test_every_service_of_ours_runs_as_composed_and_the_workers_share_the_partitions(composed):
    worker = composed["worker-1"].metrics()
    assert "fraudstream_worker_up 1.0" in worker
    other = composed["worker-2"].metrics()
    share = [
        int(float(re.search(r"^fraudstream_assigned_partitions (.*)$", text, re.MULTILINE).group(1)))
        for text in (worker, other)
    ]
    assert sum(share) == 12
    assert min(share) > 0
    for path in (composed.folder / "registry", composed.folder / "data" / "traffic.parquet"):
        assert path.exists()


def test_a_first_model_is_trained_registered_and_promoted_through_the_gates_once(tmp_path):
    registry = tmp_path / "registry"
    environ = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "FRAUDSTREAM_REGISTRY__DIRECTORY": str(registry),
        "FRAUDSTREAM_REGISTRY__URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "FIRST_MODEL_EVENTS": "20000",
    }
    command = [DEPLOY / "first_model.sh", tmp_path]
    first = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    champion = json.loads((registry / "champion.json").read_text())
    assert champion["approved_by"] == "first_model.sh"
    again = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert again.stdout == "There is a champion already.\n"


def test_labels_of_the_simulated_traffic_follow_it(composed, tmp_path):
    from kafka_topics import Topics, wait_until

    first = tmp_path / "first.parquet"
    pq.write_table(pq.read_table(composed.folder / "data" / "traffic.parquet").slice(0, 1_000), first)
    done = subprocess.run(
        [sys.executable, DEPLOY / "simulated_labels.py", first, *("--rate", "500", "--delay", "0")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FRAUDSTREAM_KAFKA__BOOTSTRAP_SERVERS": composed.bootstrap,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1000 labels sent to labels, 0 failed" in done.stdout
    ends = Topics(composed.bootstrap).ends("labels")
    assert sum(ends.values()) == 1_000
    wait_until(
        lambda: "fraudstream_label_last_timestamp_seconds " in composed["monitor"].metrics(), "labels are read", 120
    )


def run(command, *arguments):
    return subprocess.run([BIN / command, *map(str, arguments)], capture_output=True, text=True, check=False)
