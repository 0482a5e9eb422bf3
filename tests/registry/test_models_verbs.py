"""`fraudstream models`: the whole way from a bundle to a rollback, and what goes wrong on it."""

from pathlib import Path

import pytest

from stream.model_table import compared
from stream.registry import Version


def test_figures_of_different_holdouts_are_said_not_to_compare_two_versions():
    def version(holdout):
        tags = {"holdout_sha256": "of the file", "holdout_payments": holdout, "metric.out_of_fold_auc_roc": "0.7"}
        return Version(1, f"v-{holdout}", 0, tags)

    assert list(compared(version("a"), version("b")))[-1].startswith("Note: Each version's figures are of its own days")
    assert not any(line.startswith("Note") for line in compared(version("a"), version("a")))


def test_the_whole_way_from_a_bundle_to_a_rollback(made, run):
    assert "No version is registered" in run("list")[1]
    versions = [run("register", made / name)[1].split(":")[0] for name in ("a", "b")]
    for version in versions:
        code, out, err = run("promote", version, "--approve", "Ada")
        assert (code, err) == (0, "")
        assert f"{version}: champion" in out
        assert "FAIL" not in out
    assert run("list")[1].count("passed") == 2
    _, out, _ = run("show", versions[1])
    assert "approved by" in out
    assert "rows with a leaf of another tree path" in out
    _, out, _ = run("compare", *versions)
    assert out.count("average_precision") >= 1
    assert "gate: events held" in out
    code, out, _ = run("thresholds", versions[1], "--review", "0.2", "--decline", "0.8", "--approve", "Bob")
    assert code == 0
    changed = out.splitlines()[-1].split(":")[0]
    assert run("rollback", "--approve", "Ada")[1] == f"{versions[1]}: champion again, in place of {changed}\n"
    assert run("rollback", "--approve", "Ada")[1] == f"{versions[0]}: champion again, in place of {versions[1]}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("promote", "v"), "say who approves with --approve NAME"),
        (("promote", "v", "--approve", " "), "say who approves with --approve NAME"),
        (("rollback",), "say who approves with --approve NAME"),
        (("thresholds", "v", "--review", "0.2", "--decline", "0.8"), "say who approves with --approve NAME"),
        (("thresholds", "v", "--review", "0.9", "--decline", "0.8", "--approve", "A"), "0 < review <= decline <= 1"),
        (("promote", "v", "--approve", "A"), "There is no version v: none is registered yet"),
        (("show", "v"), "There is no version v"),
        (("compare", "v", "w"), "There is no version v"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(run, args, says):
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert says in err


def test_a_failed_gate_prints_the_table_and_ends_with_exit_code_1(made, run, monkeypatch):
    monkeypatch.setenv("FRAUDSTREAM_REGISTRY__GATES__MIN_FRAUDS", "100000")
    version = run("register", made / "a")[1].split(":")[0]
    code, out, err = run("promote", version, "--approve", "Ada")
    assert code == 1
    assert "FAIL" in out
    assert "frauds in the holdout is 1" in err
    assert "which must be ≥ 100,000" in err


def test_a_pointer_and_a_registry_that_disagree_are_said(made, run, settings):
    version = run("register", made / "a")[1].split(":")[0]
    run("promote", version, "--approve", "Ada")
    Path(settings.directory, "champion.json").unlink()
    assert f"Workers follow no version, but the registry's champion is {version}" in run("list")[2]
