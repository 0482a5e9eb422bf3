"""The demonstration runs on its own, in bounded time, and says what became of every record."""

import re
import signal
import time

import pytest

from command import Command
from state.features import default_feature_set
from stream.settings import load_settings

SECONDS, RATE = 4, 200


@pytest.fixture
def command(tmp_path, model_bundle):
    """With a model as an earlier demo of seed 1 leaves it, so that no test waits for a training."""
    directory = tmp_path / "var" / "demo" / f"model-1-{default_feature_set().hash[:12]}"
    directory.parent.mkdir(parents=True)
    directory.symlink_to(model_bundle)
    return Command(tmp_path)


def numbers(text, pattern):
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in:\n{text}"
    return [int(group.replace(",", "")) for group in found.groups()]


def test_every_transaction_is_decided_and_every_bad_record_is_a_dead_letter(command):
    done = command("demo", "--seconds", SECONDS, "--rate", RATE)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    good, bad = numbers(done.stdout, r"published +([\d,]+) transactions and (\d+) bad records in")
    assert good == SECONDS * RATE
    decided, *mix = numbers(
        done.stdout, r"decided +([\d,]+): ([\d,]+) approve \([\d.]+%\), ([\d,]+) review \([\d.]+%\), ([\d,]+) decline"
    )
    assert decided == good == sum(mix)
    assert numbers(done.stdout, r"bad input +(\d+) dead letters") == [bad]
    assert bad >= 7
    for reason in (
        "invalid_json",
        "missing_field",
        "out_of_range",
        "unknown_currency",
        "key_mismatch",
        "too_far_ahead",
    ):
        assert re.search(rf"\d+\s+{reason}", done.stdout), reason
    assert re.search(r"latency +p50 [\d.]+ m?s, p99 [\d.]+ m?s", done.stdout)


def test_it_says_that_its_broker_is_for_trying_out_and_what_points_it_at_a_real_one(command):
    done = command("demo", "--seconds", 1, "--rate", 50)
    assert "This broker is for trying out" in done.stdout
    assert "cannot deliver exactly once" in done.stdout
    assert "\x1b" not in done.stdout
    named = command.settings(done.stdout.partition("fraudstream.toml:\n")[2].partition("\nthen:")[0])
    settings = load_settings(named, {})
    assert (settings.kafka.bootstrap_servers, settings.kafka.delivery) == ("localhost:9092", "exactly_once")
    assert settings.store.kind == "sqlite"
    assert (command.folder / settings.model.bundle / "manifest.json").exists()


def test_ctrl_c_ends_it_early_with_its_summary(command):
    process = command.start("demo", "--seconds", 300, "--rate", 100)
    deadline = time.monotonic() + 60
    for line in process.stdout:
        assert time.monotonic() < deadline
        if "1/1" in line:  # the view is up: the first payments are under way
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    good, _ = numbers(out, r"published +([\d,]+) transactions and (\d+) bad")
    assert good < 100 * 60
    assert numbers(out, r"decided +([\d,]+):") == [good]


def test_an_earlier_model_is_taken_and_another_seed_trains_its_own(command):
    known = command("demo", "--seconds", 1, "--rate", 20)
    assert "trained by an earlier demo" in known.stdout
    fresh = command("demo", "--seconds", 1, "--rate", 20, "--seed", 2)
    assert re.search(r"trained model \w+ on 60,000 simulated payments", fresh.stdout)
    assert sum(path.is_dir() for path in (command.folder / "var" / "demo").iterdir()) == 2
