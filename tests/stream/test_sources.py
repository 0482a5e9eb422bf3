"""A registry directory read while others replace what is in it."""

import hashlib
import json
import os
import threading

import pytest

from stream.sources import CHAMPION, DirectorySource, Pointer, PointerError, SourceError, write_pointer

OLD_NS = 1_600_000_000_000_000_000


def pointer(version="v1", content=b"{}"):
    return Pointer(version, hashlib.sha256(content).hexdigest(), "ada", 1_750_000_000_000)


def place(directory, version="v1", content=b"{}"):
    """Put a manifest where the version's bundle is, and name it."""
    (directory / version).mkdir(exist_ok=True)
    (directory / version / "manifest.json").write_bytes(content)
    named = pointer(version, content)
    write_pointer(directory, named)
    return named


@pytest.fixture
def source(tmp_path):
    return DirectorySource(tmp_path)


def test_what_is_written_is_what_is_read(tmp_path, source):
    named = place(tmp_path)
    assert source.current() == named
    assert source.open(named) == tmp_path / "v1"
    written = json.loads((tmp_path / CHAMPION).read_bytes())
    assert written == {
        "version": "v1", "manifest_sha256": named.manifest_sha256, "approved_by": "ada", "at": named.at_ms,
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_before_the_first_promotion_no_version_is_named(source):
    assert source.current() is None


def test_a_directory_that_is_not_there_is_unreadable_and_not_empty(tmp_path):
    with pytest.raises(SourceError, match=r"no registry directory .*gone: correct model\.follow") as raised:
        DirectorySource(tmp_path / "gone").current()
    assert not isinstance(raised.value, PointerError)


def test_a_pointer_that_does_not_change_is_not_read_again(tmp_path, source, monkeypatch):
    named = place(tmp_path)
    os.utime(tmp_path / CHAMPION, ns=(OLD_NS, OLD_NS))
    assert source.current() == named
    monkeypatch.setattr(source, "_read", lambda _: pytest.fail("read again"))
    assert source.current() == named


def test_a_pointer_replaced_within_one_tick_of_the_clock_is_seen(tmp_path, source):
    place(tmp_path, "v1")
    assert source.current().version == "v1"
    times = (tmp_path / CHAMPION).stat()
    second = (tmp_path / CHAMPION).read_bytes().replace(b"v1", b"v2")
    with (tmp_path / CHAMPION).open("r+b") as file:  # in place: same size, and the same times below
        file.write(second)
    os.utime(tmp_path / CHAMPION, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source.current().version == "v2"


def test_a_pointer_is_whole_however_often_it_is_replaced_meanwhile(tmp_path, source):
    names = [f"v{number}" for number in range(40)]
    place(tmp_path, names[0])

    def promote():
        for name in names * 5:
            place(tmp_path, name)

    thread = threading.Thread(target=promote)
    thread.start()
    seen = set()
    while thread.is_alive():
        found = source.current()
        seen.add(found.version)
        assert found.manifest_sha256 == pointer().manifest_sha256
    thread.join()
    assert source.current().version == names[-1]
    assert seen <= set(names)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "is no pointer to a version"),
        (b"\xff\x00", "is no pointer to a version"),
        (b"[1]", "is no pointer to a version"),
        (b'{"version": "v1"}', "is no pointer to a version"),
        (b"[" * 60_000, "is no pointer to a version"),
        (b" " * (1 << 17), "larger than a pointer can be"),
        (b'{"version": "../v1", "manifest_sha256": "%064d", "approved_by": "", "at": 1}' % 0, "no version's name"),
        (b'{"version": ".v1", "manifest_sha256": "%064d", "approved_by": "", "at": 1}' % 0, "no version's name"),
        (b'{"version": "v1", "manifest_sha256": "abc", "approved_by": "", "at": 1}', "no SHA-256"),
    ],
)
def test_what_is_no_pointer_is_said_in_one_sentence_each_time_it_is_asked_for(tmp_path, source, raw, sentence):
    (tmp_path / CHAMPION).write_bytes(raw)
    os.utime(tmp_path / CHAMPION, ns=(OLD_NS, OLD_NS))
    for _ in range(2):
        with pytest.raises(PointerError, match=sentence):
            source.current()
    good = place(tmp_path)
    assert source.current() == good


def test_a_bundle_whose_manifest_is_not_the_promoted_one_is_refused(tmp_path, source):
    named = place(tmp_path)
    (tmp_path / "v1" / "manifest.json").write_bytes(b"{ }")
    with pytest.raises(PointerError, match="is not the one that was promoted"):
        source.open(named)


def test_a_pointer_to_nowhere_is_refused_with_what_is_missing(tmp_path, source):
    with pytest.raises(PointerError, match=r"names version v1, but .*v1 is missing: promote it again"):
        source.open(pointer())
    (tmp_path / "v1").mkdir()
    with pytest.raises(PointerError, match=r"v1/manifest.json is missing"):
        source.open(pointer())


def test_a_version_outside_the_directory_is_refused(tmp_path):
    inside, outside = tmp_path / "registry", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    named = place(outside, "v1")
    source = DirectorySource(inside)
    with pytest.raises(PointerError, match="no version's name"):
        source.open(Pointer("../elsewhere/v1", named.manifest_sha256, "", 0))
    (inside / "v1").symlink_to(outside / "v1")
    with pytest.raises(PointerError, match="is no directory"):
        source.open(named)
    (inside / "v2").mkdir()
    (inside / "v2" / "manifest.json").symlink_to(outside / "v1" / "manifest.json")
    with pytest.raises(PointerError, match="is no bundle's manifest"):
        source.open(Pointer("v2", named.manifest_sha256, "", 0))
