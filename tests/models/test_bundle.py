"""A bundle is there whole or not at all, and one that was touched is refused with a sentence."""

import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from models.bundle import open_bundle, write_bundle
from models.ensemble import OnnxEngine
from models.errors import BundleError
from models.histograms import Histograms, render_histograms
from models.manifest import FILES, MANIFEST, MAX_MANIFEST_BYTES, Manifest, entry, read_manifest, render, seal
from models.meta import MetaModel
from models.reasons import Explainer
from models.sentences import Sentence
from models.train import train


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(bundle.directory, tmp_path / "bundle")


def rewrite(directory, **changes):
    """Change the manifest and make its checksum right again."""
    manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    (directory / MANIFEST).write_bytes(render(seal(msgspec.structs.replace(manifest, **changes))))


def test_a_bundle_reads_back_as_it_was_written(bundle, trained, parts, feature_names):
    assert bundle.feature_names == feature_names
    assert bundle.feature_set == parts["feature_set"]
    assert bundle.feature_set_hash == parts["feature_set_hash"]
    assert bundle.sentences == parts["sentences"]
    assert bundle.lineage == parts["lineage"]
    assert bundle.thresholds == trained.thresholds
    assert bundle.meta == trained.meta
    assert bundle.metrics == trained.metrics
    assert bundle.parameters == trained.parameters
    assert bundle.xgboost == trained.xgboost
    assert bundle.lightgbm == trained.lightgbm
    assert sorted(path.name for path in bundle.directory.iterdir()) == sorted([*FILES, MANIFEST])
    assert [path.name for path in bundle.directory.parent.iterdir()] == [bundle.directory.name]


def test_training_twice_gives_the_same_bundle_byte_for_byte(bundle, history, parts, tmp_path):
    again = train(
        history.features,
        history.labels,
        history.times_ms,
        feature_names=bundle.feature_names,
        seed=7,
        rounds=100,
    )
    second = write_bundle(tmp_path / "again", again, **parts)
    assert second.version == bundle.version
    for name in (*FILES, MANIFEST):
        assert (second.directory / name).read_bytes() == (bundle.directory / name).read_bytes(), name


def test_the_version_follows_the_content_unless_it_is_given(trained, parts, bundle, tmp_path):
    other = write_bundle(tmp_path / "other", trained, **{**parts, "lineage": {"data": "another"}})
    assert other.version != bundle.version
    named = write_bundle(tmp_path / "named", trained, version="2024-05.rc_1", **parts)
    assert named.version == "2024-05.rc_1"


@pytest.mark.parametrize("version", ["a/b", "..", "x" * 65, "a b", "\n"])
def test_a_version_that_could_not_stand_in_a_path_is_refused(trained, parts, tmp_path, version):
    with pytest.raises(BundleError, match="model version"):
        write_bundle(tmp_path / "bundle", trained, version=version, **parts)


def test_an_existing_directory_is_replaced_only_when_asked(trained, parts, bundle, copy):
    with pytest.raises(BundleError, match="already something at"):
        write_bundle(copy, trained, **parts)
    (copy / "stray").write_text("")
    assert write_bundle(copy, trained, replace=True, **parts).version == bundle.version
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_bundle_that_cannot_be_written_leaves_nothing_behind(trained, parts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "bundle", trained, **parts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_altered_byte_is_found(copy, name, place):
    content = bytearray((copy / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        open_bundle(copy)


def test_the_sentence_says_what_to_do(copy):
    with (copy / "xgboost.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError) as caught:
        open_bundle(copy)
    assert str(caught.value) == (
        f"The bundle {copy} is altered: xgboost.json does not match its checksum; train or copy it again."
    )


def test_every_byte_of_the_manifest_counts(bundle):
    raw = (bundle.directory / MANIFEST).read_bytes()
    for at in range(len(raw)):
        spoiled = bytearray(raw)
        spoiled[at] ^= 1
        with pytest.raises(BundleError):
            read_manifest(bytes(spoiled), bundle.directory)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_truncated_file_is_found(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=name):
        open_bundle(copy)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        open_bundle(copy)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_link_out_of_the_bundle_is_refused(copy, name):
    outside = copy.parent / "outside"
    (copy / name).rename(outside)
    (copy / name).symlink_to(outside)
    with pytest.raises(BundleError, match=f"{name} is no plain file"):
        open_bundle(copy)


def test_a_card_is_part_of_the_bundle_and_of_its_checksums(trained, parts, tmp_path):
    card = {"card.md": b"# a card", "card_quality.svg": b"<svg/>"}
    bundle = write_bundle(tmp_path / "bundle", trained, card=card, **parts)
    assert {name: bundle.files[name] for name in card} == card
    assert set(bundle.files) == {*FILES, *card}
    for name in (*FILES, *card, MANIFEST):
        content = (bundle.directory / name).read_bytes()
        (bundle.directory / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleError, match=name):
            open_bundle(bundle.directory)
        (bundle.directory / name).write_bytes(content)
    open_bundle(bundle.directory)


@pytest.mark.parametrize("name", ["../card.md", "card.html", "/tmp/card_data.svg", "sub/card.md"])
def test_a_card_may_not_bring_other_files(trained, parts, tmp_path, name):
    with pytest.raises(BundleError, match="names a file that no bundle has"):
        write_bundle(tmp_path / "bundle", trained, card={name: b""}, **parts)
    assert not list(tmp_path.iterdir())


def test_a_card_that_the_manifest_does_not_name_is_a_foreign_file(copy):
    (copy / "card.md").write_text("forged")
    with pytest.raises(BundleError, match=r"'card\.md' does not belong to it"):
        open_bundle(copy)


def test_histograms_of_other_features_are_refused(copy, bundle):
    short = render_histograms(Histograms({}, bundle.histograms.score))
    (copy / "histograms.json").write_bytes(short)
    rewrite(copy, files={n: entry(short if n == "histograms.json" else c) for n, c in bundle.files.items()})
    with pytest.raises(BundleError, match="not of this model's features"):
        open_bundle(copy)


def test_an_extra_file_is_named(copy):
    (copy / "model.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"'model\.pkl' does not belong to it"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "model.pkl"])
def test_a_manifest_cannot_name_another_file(copy, bundle, name):
    files = {file: entry(content) for file, content in bundle.files.items()}
    rewrite(copy, files={**files, name: entry(b"")})
    with pytest.raises(BundleError, match="names a file that no bundle has"):
        open_bundle(copy)


def test_a_manifest_must_name_every_file(copy, bundle):
    files = {name: entry(content) for name, content in bundle.files.items()}
    del files["features.toml"]
    rewrite(copy, files=files)
    with pytest.raises(BundleError, match=r"does not name its features\.toml"):
        open_bundle(copy)


def test_a_manifest_with_another_number_of_features_is_refused_by_each_reader(copy, bundle):
    names = list(bundle.feature_names[:-1])
    histograms = render_histograms(
        Histograms({n: bundle.histograms.features[n] for n in names}, bundle.histograms.score)
    )
    (copy / "histograms.json").write_bytes(histograms)
    files = {n: entry(histograms if n == "histograms.json" else c) for n, c in bundle.files.items()}
    rewrite(copy, features=names, sentences=dict.fromkeys(names, Sentence("x")), files=files)
    narrow = open_bundle(copy)
    for reader in (OnnxEngine, Explainer):
        with pytest.raises(BundleError, match="takes 6 features, but its manifest names 5"):
            reader(narrow)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 1}, "has format 1, but this fraudstream reads format 2"),
        ({"features": []}, "name each feature once"),
        ({"sentences": {}}, "one sentence for each feature"),
        ({"version": "a/b"}, "model version"),
    ],
)
def test_a_manifest_that_does_not_fit_together_is_refused(copy, changes, words):
    rewrite(copy, **changes)
    with pytest.raises(BundleError, match=words):
        open_bundle(copy)


def test_a_sentence_that_reaches_for_more_than_the_value_is_refused(copy, bundle):
    rewrite(copy, sentences={**bundle.sentences, "amount": Sentence("{value.__class__}")})
    with pytest.raises(BundleError, match="sentence of feature 'amount'"):
        open_bundle(copy)


def test_thresholds_out_of_order_are_refused(copy, bundle):
    manifest = msgspec.json.decode((copy / MANIFEST).read_bytes(), type=Manifest)
    rewrite(copy, thresholds=msgspec.structs.replace(manifest.thresholds, review=0.9, decline=0.1))
    with pytest.raises(BundleError, match="0 < review <= decline <= 1"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"\xff", b"[" * 10_000, b'{"format": 2}', b'{"format": 2, "version": 3}', b'{"format": "1"}'],
)
def test_a_manifest_that_is_none_is_an_error_of_ours(copy, raw):
    (copy / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError, match=r"manifest\.json is not readable"):
        open_bundle(copy)


def test_a_huge_manifest_is_not_even_read(copy):
    with (copy / MANIFEST).open("r+b") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(BundleError, match=f"more than the {MAX_MANIFEST_BYTES} allowed"):
        open_bundle(copy)


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_no_bundle_is_said_so(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="There is no bundle at"):
        open_bundle(tmp_path / path)


def test_models_that_do_not_fit_the_names_are_not_written(trained, parts, tmp_path):
    narrow = replace(trained, feature_names=trained.feature_names[:-1])
    with pytest.raises(BundleError, match="takes 6 features, but 5 are named"):
        write_bundle(tmp_path / "bundle", narrow, **parts)
    assert not list(tmp_path.iterdir())


def test_a_meta_model_that_is_no_number_is_not_written(trained, parts, tmp_path):
    with pytest.raises(BundleError, match="not a finite number"):
        write_bundle(tmp_path / "bundle", replace(trained, meta=MetaModel(np.nan, 1.0, 1.0)), **parts)


def test_a_meta_model_that_is_not_readable_is_named(copy, bundle):
    broken = b'{"bias": 0.0}'
    (copy / "meta.json").write_bytes(broken)
    rewrite(copy, files={n: entry(broken if n == "meta.json" else c) for n, c in bundle.files.items()})
    with pytest.raises(BundleError, match=r"meta\.json is not readable"):
        open_bundle(copy)
