"""The command as a user meets it: its help, its sentences, its exit codes, and a file on its way to decisions."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from command import SCRIPT, Command, environment, sentence
from committed import wait_until_committed
from kafka_server import free_port
from kafka_topics import wait_until
from line_output import create_line
from stream.cli import SECTIONS, fraudstream

VERBS = sorted(fraudstream.commands)
NESTED = [[group, name] for group in ("models", "topics") for name in fraudstream.commands[group].commands]


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path)


@pytest.fixture
def line(kafka, topics, command):
    """Topics of one run, and a settings file that names them."""
    names = create_line(topics)
    command.settings(
        f"[kafka]\nbootstrap_servers = '{kafka.bootstrap}'\ngroup = '{names.transactions}'\n[topics]\n"
        + "".join(f"{key.split('.')[1]} = '{name}'\n" for key, name in names.settings().items())
    )
    return names


# --- help ------------------------------------------------------------------------------------------------------------


def test_help_groups_every_verb_and_imports_nothing_heavy():
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stream", "--help"], capture_output=True, text=True, check=True
    )
    for title, verbs in SECTIONS.items():
        assert f"{title}:" in found.stdout
        assert all(f"  {verb.name} " in found.stdout for verb in verbs)
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "stream.cli" in imported
    heavy = {"numba", "numpy", "pyarrow", "xgboost", "lightgbm", "onnxruntime", "confluent_kafka", "redis", "rich"}
    assert imported & heavy == set()


def test_every_verb_stands_in_one_section():
    listed = [verb.name for verbs in SECTIONS.values() for verb in verbs]
    assert sorted(listed) == VERBS


@pytest.mark.parametrize("verb", [*([name] for name in VERBS), *NESTED])
def test_the_help_of_every_verb_holds_an_example(command, verb):
    shown = command(*verb, "--help", COLUMNS="80")
    assert shown.returncode == 0
    assert shown.stderr == ""
    _, _, examples = shown.stdout.partition("Example:\n")
    assert examples.startswith("    fraudstream ")
    assert all(verb[-1] in line for line in examples.splitlines() if line)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\\b" not in shown.stdout, "a mark of click's that was not read as one"


def test_version_and_module(command):
    assert command("--version").stdout.startswith("fraudstream 0.")
    module = subprocess.run([sys.executable, "-m", "stream", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == command("--version").stdout


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["wrker"], "No such command 'wrker'"),
        (["worker", "--instnace-id", "a"], "No such option"),
        (["worker", "--recovery", "maybe"], "'maybe' is not one of 'refuse', 'rebuild', 'accept_partial'"),
        (["publish"], "Missing argument 'FILE'"),
        (["publish", "no.csv"], "File 'no.csv' does not exist"),
        (["publish", "h.csv", "--rate", "1", "--speed", "2"], "--rate or --speed, not both"),
        (["backfill", "h.csv"], "Missing option '-o'"),
        (
            ["backfill", "h.csv", "-o", "f.csv"],
            "f.csv would be Parquet under another name: give a path that ends with .parquet to -o.",
        ),
        (["simulate"], "--output or --topic"),
        (["simulate", "-o", "a.csv", "--rate", "5"], "--rate goes with --topic"),
        (["simulate", "-o", "a.xls"], "a.xls has none of the extensions .jsonl, .csv, .parquet"),
        (["--settings", "no.toml", "worker"], "'no.toml' does not exist"),
        (["worker", "--settings", "h.csv"], "--settings goes before the verb: fraudstream --settings … worker"),
        (["topics", "show", "--set", "a=b"], "--set goes before the verb: fraudstream --set … topics show"),
        (["--set", "kafka.group", "worker"], "--set takes KEY=VALUE"),
        (["--set", "kafka.grop=x", "worker"], "kafka.grop in the command line is no setting; did you mean group?"),
        (["--set", "worker.max_batch=many", "worker"], "worker.max_batch in the command line must be a whole number"),
        (["--set", "kafka.bootstrap_servers=embedded", "worker"], 'kafka.delivery must be "at_least_once" on the'),
        (["top", "ftp://there"], "ftp://there is no address of a worker"),
        (["demo", "--rate", "9999999"], "is not in the range"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(command, args, says):
    (command.folder / "h.csv").write_text("transaction_id,user_id,amount,currency,event_time\n1,2,3,EUR,4\n")
    done = command(*args)
    assert says in sentence(done)
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[kafka]\ngrup = 'a'\n", "kafka.grup in fraudstream.toml is no setting; did you mean group?"),
        ("[kafka\n", "The settings file fraudstream.toml is not TOML"),
        ("[worker]\nmax_batch = 0\n", "worker.max_batch in fraudstream.toml must be a whole number at least 1"),
        ("[kafka.properties]\nacks = '1'\n", "kafka.properties.acks in fraudstream.toml is fixed, because"),
        (
            "[kafka.consumer]\n'fetch.min.byte' = '1'\n",
            "kafka.consumer.fetch.min.byte is refused by the Kafka client (No such configuration property",
        ),
        ("[kafka.producer]\n'linger.ms' = 'x'\n", "kafka.producer.linger.ms is refused by the Kafka client (Invalid"),
        (
            "[kafka.properties]\n'security.protocol' = 'ssl'\n'ssl.ca.location' = 'no.pem'\n",
            "kafka.properties with kafka.consumer is refused by the Kafka client (Failed to create consumer: ssl.ca",
        ),
        (
            "[kafka]\nbootstrap_servers = 'embedded'\ndelivery = 'at_least_once'\n[store]\nkind = 'sqlite'\n",
            'store.kind in fraudstream.toml must be "memory" on the embedded broker',
        ),
        (
            "[kafka]\nbootstrap_servers = 'embedded'\ndelivery = 'at_least_once'\n[store]\nkind = 'memory'\n",
            "The embedded broker lives inside `fraudstream demo`",
        ),
    ],
)
def test_wrong_settings_are_one_sentence_and_exit_code_2(command, text, says):
    command.settings(text)
    for verb in ("worker", "doctor"):
        done = command(verb)
        assert sentence(done).startswith(says)
        assert done.returncode == 2


def test_a_file_with_other_columns_is_refused_with_the_nearest_one(command, line):
    (command.folder / "mine.csv").write_text("transaction_ID,user,amount,currency,event_time\n1,2,3,EUR,4\n")
    for args in (["publish", "mine.csv"], ["backfill", "mine.csv", "-o", "f.parquet"]):
        done = command(*args)
        assert "mine.csv has no column transaction_id (the nearest is transaction_ID)" in sentence(done)
        assert done.returncode == 2


@pytest.mark.parametrize(
    ("aggregate", "says"),
    [("cuont", "mine.toml: Feature n has the unknown"), ("count", "Feature n looks back 1h, but")],
)
@pytest.mark.parametrize("given", [["--feature-set", "mine.toml"], []])
def test_a_feature_set_that_cannot_be_computed_is_one_sentence_and_exit_code_2(command, given, aggregate, says):
    (command.folder / "h.jsonl").write_text("")
    (command.folder / "mine.toml").write_text(
        f"name = 'mine'\n[[feature]]\nname = 'n'\naggregate = '{aggregate}'\nwindow = '1h'\ntext = 'n'\n"
    )
    command.settings("[state]\nretention = '1m'\nfeature_set = 'mine.toml'\n")
    done = command("backfill", "h.jsonl", "-o", "f.parquet", *given)
    assert sentence(done).startswith(says)
    assert done.returncode == 2


def test_the_environment_and_the_command_line_win_over_the_file(command):
    command.settings("[topics]\ndecisions = 'same'\n")
    from_file = command("worker", FRAUDSTREAM_TOPICS__FEATURES="same")
    assert "topics.features in FRAUDSTREAM_TOPICS__FEATURES" in sentence(from_file)
    other = command.folder / "other.toml"
    other.write_text("[nonsense]\n")
    assert "nonsense" in sentence(command("worker", FRAUDSTREAM_SETTINGS=str(other)))
    over = command("--set", "topics.decisions=same", "--set", 'topics.features="same"', "worker")
    assert "in the command line" in sentence(over)


# --- surroundings ----------------------------------------------------------------------------------------------------


def test_a_worker_without_a_broker_gives_up_within_its_time_and_says_where_it_looked(command, model_bundle):
    started = time.monotonic()
    done = command(
        *("--set", f"kafka.bootstrap_servers=127.0.0.1:{free_port()}", "--set", f"model.bundle={model_bundle}"),
        *("--set", "metrics.port=0", "worker"),
    )
    assert done.returncode == 1
    assert "check kafka.bootstrap_servers" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 60


def test_publishing_without_a_broker_or_a_topic_is_one_sentence(command, line):
    (command.folder / "one.jsonl").write_text('{"user_id": "u"}\n')
    nowhere = command("--set", f"kafka.bootstrap_servers=127.0.0.1:{free_port()}", "publish", "one.jsonl")
    assert "check kafka.bootstrap_servers" in sentence(nowhere)
    unknown = command("publish", "one.jsonl", "--topic", "no-such-topic")
    assert sentence(unknown).startswith("The topic no-such-topic does not exist: create it with `fraudstream topics")
    assert (nowhere.returncode, unknown.returncode) == (1, 1)


def test_a_worker_names_the_topic_that_is_missing_and_the_bundle_that_is_not_there(command, line, model_bundle):
    missing = command("--set", "topics.decisions=gone", "--set", f"model.bundle={model_bundle}", "worker")
    assert (
        "The topic gone (topics.decisions) does not exist: create it with `fraudstream topics create`."
        in missing.stderr
    )
    bundle = command("worker")
    assert bundle.stderr.splitlines()[-1].startswith("Error: There is no bundle at var/model")
    assert (missing.returncode, bundle.returncode) == (1, 1)


def test_a_features_topic_that_cannot_take_one_row_is_refused_by_name(command, line, topics, model_bundle):
    small = topics.create("small", 4, {"max.message.bytes": "1000"})
    done = command(
        *("--set", f"topics.features={small}", "--set", f"model.bundle={model_bundle}", "--set", "metrics.port=0"),
        "worker",
    )
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"Error: The topic {small} (topics.features) takes records of 1000 bytes, and one row of")
    assert done.returncode == 1


# --- doing things ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h.jsonl", "h.csv", "h.parquet"])
def test_simulated_files_of_every_kind_give_the_same_features(command, name):
    made = command("simulate", "-o", name, "--events", 500, "--users", 20, "--seed", 3, "--fraud-rate", 0.02)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == f"{name}: 500 transactions, 10 frauds\n"
    done = command("backfill", name, "-o", "out/f.parquet", "--keep", "is_fraud")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "out/f.parquet: 500 transactions, 24 features of default\n"
    import pyarrow.parquet as pq

    table = pq.read_table(command.folder / "out/f.parquet")
    assert sum(str(label).lower() == "true" for label in table.column("is_fraud").to_pylist()) == 10
    assert table.column("count_30d").to_pylist()[-1] > 1


def test_topics_are_created_once_and_shown(kafka, command, request):
    name = request.node.name
    command.settings(
        f"[kafka]\nbootstrap_servers = '{kafka.bootstrap}'\n[topics]\ntransactions = '{name}'\n"
        f"decisions = '{name}.d'\nfeatures = '{name}.f'\ndead_letters = '{name}.dlq'\n"
    )
    before = command("topics", "show")
    assert before.returncode == 1
    assert "does not exist: create it with `fraudstream topics create`" in before.stdout
    created = command("topics", "create", "--partitions", 3)
    assert created.stdout.splitlines()[0].split() == [name, "created"]
    again = command("topics", "create", "--partitions", 5)
    assert all("exists, left as it is" in line for line in again.stdout.splitlines())
    shown = command("topics", "show")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[1].split()[:2] == [name, "3"]


def test_a_file_is_published_scored_and_the_worker_leaves_when_asked(command, line, topics, model_bundle):
    command("simulate", "-o", "h.parquet", "--events", 2_000, "--users", 50)
    published = command("publish", "h.parquet")
    assert (published.returncode, published.stderr) == (0, "")
    assert published.stdout.startswith(f"Published 2,000 transactions to {line.transactions} in ")

    process = command.start(
        *("--set", f"model.bundle={model_bundle}", "worker", "--instance-id", "one", "--metrics-port", 0)
    )
    try:
        wait_until(lambda: len(topics.read(line.decisions)) == 2_000, "2,000 decisions", 90)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "")
    events = [json.loads(text)["event"] for text in err.splitlines()]
    assert (events[0], events[-1]) == ("serving", "stopped")
    assert "stopping" in events


def test_a_second_signal_ends_a_worker_at_once(command, line, model_bundle, topics):
    process = command.start("--set", f"model.bundle={model_bundle}", "--set", "metrics.port=0", "worker")
    try:
        for text in process.stderr:
            if json.loads(text)["event"] == "assigned":
                break
        os.kill(process.pid, signal.SIGSTOP)  # both signals are there before it can finish what the first one asks
        process.send_signal(signal.SIGTERM)
        os.kill(process.pid, signal.SIGCONT)
        assert any('"event":"stopping"' in text for text in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


def test_an_unexpected_error_of_a_worker_is_one_json_line_and_exit_code_1(command, line, model_bundle):
    (command.folder / "sitecustomize.py").write_text(
        "import stream.worker\n"
        "def broken(self, line):\n"
        "    raise ZeroDivisionError('user-%07d paid %.2f' % (42, 12.5))\n"
        "stream.worker.Worker.run = broken\n"
    )
    path = os.pathsep.join([str(command.folder), *sys.path])
    done = command(*("--set", f"model.bundle={model_bundle}", "--set", "metrics.port=0", "worker"), PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (1, "")
    crashed = json.loads(done.stderr.splitlines()[-1])
    assert (crashed["event"], crashed["level"]) == ("crashed", "critical")
    assert "ZeroDivisionError" in done.stderr
    assert "0000042" not in done.stderr


def test_a_topic_keyed_otherwise_is_copied_by_user(command, line, topics, produce):
    source = topics.create("by-merchant")
    rows = [
        (b"merchant-%d" % (n % 3), json.dumps({"transaction_id": f"t{n}", "user_id": f"u{n % 7}"}).encode())
        for n in range(200)
    ]
    produce(source, [*rows, (b"merchant-1", b"no json")])
    done = command("rekey", source)
    assert done.returncode == 0
    assert (
        f"Copied 200 records from {source} to {line.transactions}, 1 dead letter to {line.dead_letters}." in done.stdout
    )
    assert {record.key for record in topics.read(line.transactions)} == {b"u%d" % n for n in range(7)}
    again = command("rekey", source)
    assert "Copied 0 records" in again.stdout


def test_publishing_can_be_interrupted_and_says_how_far_it_came(command, line):
    command("simulate", "-o", "h.jsonl", "--events", 5_000)
    with command.start("publish", "h.jsonl", "--rate", 50) as process:
        time_to_start = time.monotonic() + 60
        while not open_connections(process.pid):
            assert time.monotonic() < time_to_start, "publishing did not begin"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("Error: Interrupted")


def open_connections(pid):
    import psutil

    return any(connection.status == "ESTABLISHED" for connection in psutil.Process(pid).net_connections())


def test_a_reader_that_has_enough_is_no_error_to_speak_of(command):
    shell = f"{SCRIPT} --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(
            ["bash", "-c", shell], capture_output=True, text=True, cwd=command.folder, env=environment({}), check=True
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[0].startswith("Usage: fraudstream")
        assert done.stdout.splitlines()[1] in ("0", "1")


def test_no_progress_bar_where_the_output_is_no_terminal(command):
    command("simulate", "-o", "h.jsonl", "--events", 30_000)
    done = command("backfill", "h.jsonl", "-o", "f.parquet")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_nothing_is_left_to_decide_once_a_worker_has_committed_what_was_simulated(command, line, topics, model_bundle):
    command("simulate", "--topic", line.transactions, "--events", 300, "--users", 10)
    process = command.start("--set", f"model.bundle={model_bundle}", "--set", "metrics.port=0", "worker")
    try:
        wait_until_committed(topics, line.transactions, line.transactions, [])
        doctor = command("--set", f"model.bundle={model_bundle}", "doctor")
        assert doctor.returncode == 0, doctor.stdout
        assert "goes on where it was:" in doctor.stdout
        assert " 0 to decide" in " ".join(doctor.stdout.split())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
